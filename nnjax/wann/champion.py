"""Nets as files: JSON that holds a net and its space, and the table that the program of Gaier and Ha (2019) writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from nnjax.types import Array
from nnjax.wann.edges import EdgeGenome
from nnjax.wann.genome import ABSENT, DISABLED, ENABLED, NAMES, Genome, Space, check, to_dense

FORMAT = "nnjax.wann genome, version 1"
_LARGEST = float(np.finfo(np.float32).max)  # of weights, which are read as float32 as a rule
_MOST_BYTES = 2**28  # of a file; a table of as many nodes as a space may have takes less
_LONGEST_NAME = 64
_KEYS = ("inputs", "outputs", "max_nodes", "activations", "hidden", "output_activations", "connections")


class Champion(NamedTuple):
    """A net read from a file.

    Attributes:
      genome: the net.
      space: its sizes and activations.
      weights: (N, N) in the slots of the genome, 0 where no connection is enabled; None if the file has none.
    """

    genome: Genome
    space: Space
    weights: Array | None


def to_json(genome: Genome | EdgeGenome, space: Space, weights: Array | None = None) -> str:
    """One net as a JSON text: names of activations, and connections as [source, destination, enabled].

    Nodes are numbered bias, inputs, hidden nodes, outputs, without the empty slots. With ``weights``, (N, N), an
    enabled connection has its weight as a fourth entry. An `EdgeGenome` is read back as a `Genome`.

    Raises:
      ValueError: a population, a genome of another space, or weights of another shape or not finite.
    """
    if np.ndim(genome.hidden):
        raise ValueError(f"hidden of shape {np.shape(genome.hidden)} must be (): one genome a file, not a population")
    check(genome, space)
    genome = to_dense(genome, space) if isinstance(genome, EdgeGenome) else genome
    genes, codes = np.asarray(genome.connections), np.asarray(genome.activations)
    if weights is not None:
        weights = np.asarray(weights)
        if weights.shape != genes.shape or not np.isfinite(weights[genes == ENABLED]).all():
            raise ValueError(f"weights of shape {weights.shape} must be {genes.shape}, finite where connections are")
    slots = _slots(space, int(genome.hidden))
    names = [space.table[code] for code in codes[slots]]
    connections: list[list] = []
    for source, destination in np.argwhere(genes[np.ix_(slots, slots)] != ABSENT).tolist():
        at = slots[source], slots[destination]
        entry = [source, destination, bool(genes[at] == ENABLED)]
        connections.append([*entry, float(weights[at])] if weights is not None and entry[2] else entry)
    first, last = 1 + space.inputs, len(names) - space.outputs
    fields = {
        "format": FORMAT,
        "inputs": space.inputs,
        "outputs": space.outputs,
        "max_nodes": space.max_nodes,
        "activations": list(space.activations),
        "hidden": names[first:last],
        "output_activations": names[last:],
        "connections": connections,
    }
    lines = (f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def from_json(text: str) -> Champion:
    """The net that `to_json` wrote.

    Raises:
      ValueError: the text is no JSON, no net or one that contradicts itself; one sentence says where.
    """
    data = _fields(text)
    space = Space(data["inputs"], data["outputs"], data["max_nodes"], tuple(data["activations"]))
    hidden, outputs = data["hidden"], data["output_activations"]
    if len(hidden) > space.max_hidden:
        raise ValueError(f"{len(hidden)} hidden nodes do not fit into max_nodes={space.max_nodes}")
    if len(outputs) != space.outputs:
        raise ValueError(f"output_activations has {len(outputs)} names for {space.outputs} outputs")
    for name in (*hidden, *outputs):
        if name not in space.table:
            raise ValueError(f"activation {name!r} is not one of {', '.join(space.table)}")
    slots = _slots(space, len(hidden))
    codes = np.zeros(space.max_nodes, np.int8)
    codes[slots[1 + space.inputs :]] = [space.table.index(name) for name in (*hidden, *outputs)]
    genes = np.zeros((space.max_nodes, space.max_nodes), np.int8)
    weights = np.full(genes.shape, np.nan)
    for entry in data["connections"]:
        source, destination, enabled, weight = _connection(entry, len(slots))
        at = slots[source], slots[destination]
        if genes[at] != ABSENT:
            raise ValueError(f"connections has {source} to {destination} twice")
        genes[at] = ENABLED if enabled else DISABLED
        if enabled and weight is not None:
            weights[at] = weight
    return _champion(genes, codes, len(hidden), space, _all_or_none(weights, genes == ENABLED))


def from_csv(text: str, *, inputs: int | None = None, outputs: int | None = None) -> Champion:
    """A net in the format of Gaier and Ha's program (2019).

    N rows of N + 1 numbers between commas, for bias, inputs, hidden nodes in topological order, outputs: row source,
    column destination, 0 no connection, nan a disabled one, any other number the weight of an enabled one. The last
    column is the activation of the row's node, 1 to 10, places in `NAMES` and one more.

    The format does not tell inputs from hidden nodes. Those that nothing leads into are taken for bias and inputs, and
    those that lead nowhere for outputs, which is right for every net that their search makes, unless a trained weight
    was rounded to 0: then say how many there are.

    Args:
      text: contents of the file.
      inputs: number of inputs; by default as above.
      outputs: number of outputs; by default as above.

    Returns:
      A `Champion` without empty slots; `nnjax.wann.resize` adds some.

    Raises:
      ValueError: the text is no such table or holds no net; one sentence says where.
    """
    rows = _numbers(text)
    table, codes = rows[:, :-1], rows[:, -1]
    for row, code in enumerate(codes):
        if code not in range(1, len(NAMES) + 1):
            raise ValueError(f"row {row + 1} ends in {code:g}; expected an activation's number, 1 to {len(NAMES)}")
    exists = np.isnan(table) | (table != 0)
    if np.isinf(table).any() or np.tril(exists).any():
        row, column = np.argwhere(np.isinf(table) | np.tril(exists))[0] + 1
        fault = "infinite" if np.isinf(table[row - 1, column - 1]) else "a connection that leads to no later node"
        raise ValueError(f"row {row}, column {column} is {fault}")
    reached, leads = exists.any(0), exists.any(1)
    sources = int(np.argmax(reached)) if reached.any() else len(table)
    ends = int(np.argmax(leads[::-1])) if leads.any() else len(table)
    inputs, outputs = sources - 1 if inputs is None else inputs, ends if outputs is None else outputs
    if inputs < 1 or outputs < 1 or 1 + inputs + outputs > len(table):
        raise ValueError(f"a table of {len(table)} nodes with {inputs} inputs and {outputs} outputs is no net")
    space = Space(inputs, outputs, len(table))
    enabled = exists & ~np.isnan(table)
    genes = np.where(enabled, ENABLED, np.where(exists, DISABLED, ABSENT)).astype(np.int8)
    places = (codes - 1).astype(np.int8)
    places[: 1 + inputs] = 0  # whatever the file says of them, bias and inputs have none
    return _champion(genes, places, len(table) - 1 - inputs - outputs, space, np.where(enabled, table, 0))


def load_champion(path: str | Path, *, inputs: int | None = None, outputs: int | None = None) -> Champion:
    """A net with its space and, where the file has them, its weights; JSON or CSV by what the file holds.

    Args:
      path: the file.
      inputs, outputs: for `from_csv`; a JSON file says itself.

    Raises:
      ValueError: the file holds no net; one sentence names the file and what is wrong.
      OSError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(f"the file has more than the {_MOST_BYTES:,} bytes of the largest net")
        text = content.decode("utf-8-sig")
        return from_json(text) if text.lstrip()[:1] == "{" else from_csv(text, inputs=inputs, outputs=outputs)
    except UnicodeDecodeError:
        raise ValueError(f"champion {str(path)!r}: not a text") from None
    except ValueError as error:
        raise ValueError(f"champion {str(path)!r}: {error}") from None


def read_champion(path: str | Path) -> Genome:
    """The net in a file, JSON or CSV, without its weights: what `load_champion` calls its genome; raises as it does.

    A connection whose weight was rounded to 0 in a CSV is lost: the format says 0 where there is none. A CSV has no
    header either, and where the first hidden nodes lost all connections that led to them, or the last ones all that led
    on, they are taken for inputs or outputs (`from_csv`). Then say how many there are: ``load_champion(path, inputs=5,
    outputs=1)``, whose other connections are lost all the same. JSON has what it takes.

    A net that has activations beside those of Gaier and Ha (2019) needs the space that `load_champion` returns.
    """
    return load_champion(path).genome


def _all_or_none(weights: np.ndarray, enabled: np.ndarray) -> np.ndarray | None:
    """Weights with 0 for NaN, once it is sure that all enabled connections have one; None where none has."""
    missing = int((np.isnan(weights) & enabled).sum())
    if missing == enabled.sum():
        return None
    if missing:
        raise ValueError(f"{missing} of {enabled.sum()} enabled connections have no weight; expected all or none")
    return np.where(enabled, weights, 0)


def _slots(space: Space, hidden: int) -> np.ndarray:
    """Slots of the nodes, in the order bias, inputs, hidden nodes, outputs."""
    return np.r_[: 1 + space.inputs + hidden, space.first_output : space.max_nodes]


def _champion(genes: np.ndarray, codes: np.ndarray, hidden: int, space: Space, weights: np.ndarray | None) -> Champion:
    genome = Genome(jnp.asarray(genes), jnp.asarray(codes), jnp.asarray(hidden, jnp.int32))
    check(genome, space)
    return Champion(genome, space, None if weights is None else jnp.asarray(weights, jnp.result_type(float)))


def _fields(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: numbers of too many digits, too
        raise ValueError(f"no JSON: {str(error)[:100]}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"no net: expected an object whose format is {FORMAT!r}")
    if missing := [key for key in _KEYS if key not in data]:
        raise ValueError(f"{missing[0]} is missing")
    for name in ("inputs", "outputs", "max_nodes"):
        if type(data[name]) is not int or abs(data[name]) >= 2**31:
            raise ValueError(f"{name}={_shown(data[name])} must be a whole number, at least 1")
    for name in ("activations", "hidden", "output_activations"):
        names = data[name] if isinstance(data[name], list) else [None]
        if not all(isinstance(item, str) and len(item) <= _LONGEST_NAME for item in names):
            raise ValueError(f"{name} must be a list of names, of {_LONGEST_NAME} letters at most")
    if len({*data["activations"]}) < len(data["activations"]):
        raise ValueError("activations must name each once")
    if not isinstance(data["connections"], list):
        raise ValueError("connections must be a list")
    return data


def _connection(entry: Any, nodes: int) -> tuple[int, int, bool, float | None]:
    if isinstance(entry, list) and len(entry) in (3, 4):
        source, destination, enabled, weight = (*entry, None)[:4]
        whole = all(type(node) is int and 0 <= node < nodes for node in (source, destination))
        weighs = weight is None or (type(weight) in (int, float) and abs(weight) <= _LARGEST)
        if whole and type(enabled) is bool and weighs:
            return source, destination, enabled, weight
    raise ValueError(f"connections holds {_shown(entry)}; expected [source, destination, true or false] of nodes "
                     f"0 to {nodes - 1}, or with a weight behind it")  # fmt: skip


def _shown(value: Any) -> str:
    """What a file holds, in a few letters."""
    try:
        text = repr(value)
    except RecursionError:  # lists in lists that were just not too deep to be read
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _numbers(text: str) -> np.ndarray:
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError("the file is empty")
    rows = []
    for number, line in enumerate(lines, 1):
        cells = line.split(",")
        if len(cells) != len(lines) + 1:
            raise ValueError(f"row {number} of {len(lines)} has {len(cells)} columns; expected {len(lines) + 1}")
        try:
            rows.append([float(cell) for cell in cells])
        except ValueError:
            raise ValueError(f"row {number} holds something that is no number") from None
    return np.asarray(rows)
