"""Where the nodes of a net stand in a picture: columns by layer, few crossings, connections that pass beside nodes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

from nnjax.wann.edges import EdgeGenome
from nnjax.wann.genome import DISABLED, ENABLED, Genome, Space, alive, check, layers, to_dense

_SWEEPS = 24
_COUNTED = 700  # connections beyond which crossings, a matter of pairs, are not counted


class Graph(NamedTuple):
    """One net as a list of nodes and a list of connections.

    Attributes:
      slots: (n,) int, the slot of each node, in the order bias, inputs, hidden nodes, outputs.
      layer: (n,) int, as `nnjax.wann.layers` has it: 0 for bias and inputs, the last one for all outputs.
      names: n names, each node's activation.
      enabled: (m, 2) int, places of source and destination in ``slots``; its layers rise.
      disabled: (d, 2) int, the same; its layers may be equal or fall.
    """

    slots: np.ndarray
    layer: np.ndarray
    names: tuple[str, ...]
    enabled: np.ndarray
    disabled: np.ndarray


def graph(genome: Genome | EdgeGenome, space: Space) -> Graph:
    """The nodes and connections of one net.

    Raises:
      ValueError: a population, or a genome of another space.
    """
    if np.ndim(genome.hidden):
        raise ValueError(f"hidden of shape {np.shape(genome.hidden)} must be (): one genome a picture, no population")
    check(genome, space)
    genome = to_dense(genome, space) if isinstance(genome, EdgeGenome) else genome
    slots = np.flatnonzero(np.asarray(alive(genome, space)))
    genes = np.asarray(genome.connections)[np.ix_(slots, slots)]
    names = tuple(space.table[code] for code in np.asarray(genome.activations)[slots])
    layer = np.asarray(layers(genome, space))[slots]
    return Graph(slots, layer, names, np.argwhere(genes == ENABLED), np.argwhere(genes == DISABLED))


def heights(layer: np.ndarray, connections: np.ndarray, pinned: np.ndarray) -> np.ndarray:
    """How high every node stands in its layer, from 0 to 1, so that few connections cross.

    Layer by layer, to and fro, the nodes take the order of the mean height of those that they are connected with, near
    ones counting more (the barycenter heuristic of Sugiyama et al., 1981), and stand as near to it as a fixed least
    distance allows. The best of all rounds is kept.

    Args:
      layer: (n,) int.
      connections: (m, 2) int, sources and destinations, of rising layers.
      pinned: (n,), heights that are given; NaN for nodes that may be moved.

    Returns:
      (n,), no two of a layer equal unless pinned so.
    """
    columns = [np.flatnonzero((layer == number) & np.isnan(pinned)) for number in range(layer.max() + 1)]
    columns = [column for column in columns if len(column)]
    gap = 1 / max([1, *(len(column) - 1 for column in columns), min(len(layer), 10)])
    gaps = [min(max(0.8 / len(column), gap), 2 * gap, 1 / max(len(column) - 1, 1)) for column in columns]
    y = np.where(np.isnan(pinned), 0.5, pinned)
    for column in columns:
        y[column] = np.linspace(1, 0, len(column) + 2)[1:-1]
    source, destination = connections.T
    near = np.zeros((len(layer), len(layer)))
    near[destination, source] = 1 / np.maximum(layer[destination] - layer[source], 1)
    best, fewest = y.copy(), np.inf
    for sweep in range(_SWEEPS):
        pull = (near, near.T, near + near.T)[sweep % 3]
        for column, apart in list(zip(columns, gaps, strict=True))[:: 1 if sweep % 2 == 0 else -1]:
            weight = pull[column].sum(1)
            wanted = np.where(weight > 0, pull[column] @ y / np.where(weight > 0, weight, 1), y[column])
            order = np.argsort(wanted, kind="stable")
            y[column[order]] = _spread(wanted[order], apart)
        count = crossings(layer, y, connections) if len(connections) <= _COUNTED else fewest
        if count <= fewest:
            best, fewest = y.copy(), count
    return _stretched(best, np.isnan(pinned))


def _stretched(y: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Heights whose ``free`` ones fill more of the picture, where they lie close together: three times at most."""
    if not free.any():
        return y
    low, high = y[free].min(), y[free].max()
    factor = min(3.0, 0.86 / max(high - low, 1e-6))
    if factor <= 1:
        return y
    reach = factor * (high - low)
    start = np.clip((low + high - reach) / 2, 0.07, 0.93 - reach)
    return np.where(free, start + factor * (y - low), y)


def _spread(wanted: np.ndarray, gap: float) -> np.ndarray:
    """The heights nearest to ``wanted`` (k,), which rise, that lie ``gap`` apart or more within [0, 1]."""
    least = gap * np.arange(len(wanted))
    fitted = isotonic_regression(wanted - least).x
    return np.clip(fitted, 0, max(0.0, 1 - least[-1])) + least


def crossings(layer: np.ndarray, y: np.ndarray, connections: np.ndarray) -> int:
    """How many pairs of connections (m, 2), drawn as straight lines, cross; those with a common node do not."""
    points = np.stack([layer, y], 1).astype(float)
    start, end = points[connections[:, 0]], points[connections[:, 1]]
    run = end - start

    def side(of: np.ndarray) -> np.ndarray:  # (m, m): on which side of connection i the end of connection j lies
        away = of[None] - start[:, None]
        turn = run[:, None, 0] * away[..., 1] - run[:, None, 1] * away[..., 0]
        return np.where(np.abs(turn) < 1e-9, 0, np.sign(turn))

    parted = side(start) * side(end) < 0
    return int((parted & parted.T).sum()) // 2


def route(layer: np.ndarray, y: np.ndarray, connections: np.ndarray, clearance: float, points: int = 24) -> np.ndarray:
    """Curves (m, points, 2) for connections (m, 2), level at both ends.

    One that passes layers is bent until it keeps ``clearance``, in units of y, from their nodes, or as far as it can
    within the picture.
    """
    t = np.linspace(0, 1, points)
    sizes = clearance * np.array([1, -1, 2, -2, 3, -3, 4.5, -4.5, 6, -6])
    bends = [(0, 0), *((first, last) for b in sizes for first, last in ((b, b), (0, b), (b, 0)))]
    curves = np.empty((len(connections), points, 2))
    for curve, (source, destination) in zip(curves, connections, strict=True):
        first, last = layer[source], layer[destination]
        # Back or within a layer, as a disabled one may run: out to the right, and in from there.
        reach = 0.45 * (last - first) if last > first else 0.4
        curve[:, 0] = _bezier(t, first, first + reach, last - reach if last > first else last + reach, last)
        a, b = y[source], y[destination]
        if last <= first + 1:
            curve[:, 1] = _bezier(t, a, a, b, b)
            continue
        tried = np.stack([_bezier(t, a, a + out, b + back, b) for out, back in bends])
        curve[:, 1] = tried[_clear(layer, y, curve[:, 0], tried, clearance)]
    return curves


def _bezier(t: np.ndarray, a: float, b: float, c: float, d: float) -> np.ndarray:
    return (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d


def _clear(layer: np.ndarray, y: np.ndarray, x: np.ndarray, tried: np.ndarray, clearance: float) -> int:
    """The first of the curves ``tried`` (k, points) that is clear of all nodes between its ends, or the clearest."""
    passed = np.flatnonzero((layer > x[0]) & (layer < x[-1]))
    at = np.stack([np.interp(layer[passed], x, curve) for curve in tried])
    outside = np.maximum(tried.max(1) - 1, -tried.min(1))
    room = np.where(outside < 0.12, np.abs(at - y[passed]).min(1), -1 - outside)
    return int(np.argmax(room >= clearance) if (room >= clearance).any() else np.argmax(room))
