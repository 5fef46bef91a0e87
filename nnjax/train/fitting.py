"""A run on the host: progress, checkpoints, Ctrl-C, and pictures that are streamed from the disk."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.data.stream import Reader, Stream
from nnjax.train.checkpoints import Checkpoints, run_digest
from nnjax.train.run import Network, Result, Schedule, State, Train, check_lengths, schedule_of
from nnjax.types import Array, Key, PyTree

__all__ = ["fit", "fit_stream", "of_bytes"]


def fit(
    train: Train,
    key: Key,
    hparams: Any,
    data: Mapping[str, tuple],
    *,
    segments: int = 20,
    on_segment: Callable[[State, int, int], None] | None = None,
    checkpoint: str | Path | None = None,
) -> Result:
    """Run ``train`` in about ``segments`` equal compiled pieces, with checkpoints between them.

    Args:
      train: from `make_train`.
      key, hparams, data: as for a call of ``train``, whose numbers this gives.
      segments: pieces; more give finer progress, fewer cost less.
      on_segment: called with the state, ticks done and ticks in all after each piece; the state's memory is used
        again for the next piece, so copy what is to be kept.
      checkpoint: a folder (orbax); a run found there goes on where it stopped.

    Raises:
      ValueError: ``segments`` below 1, or the checkpoints in the folder are of a run with another configuration,
        key, hyper-parameters or data.
    """
    if segments < 1:
        raise ValueError(f"segments={segments} must be a positive integer")
    total = train.ticks(data)
    piece = max(1, total // segments)
    state = jax.jit(train.start)(key, hparams, data)
    advance = jax.jit(train.advance, static_argnames="ticks", donate_argnums=0)
    done = 0
    digest = "" if checkpoint is None else run_digest(train, key, hparams, data)
    with Checkpoints(checkpoint, digest) as kept:
        done, state = kept.restore(state)
        while done < total:
            ticks = min(piece, total - done)
            state = advance(state, hparams, data, ticks=ticks)
            done += ticks
            kept.save(done, state)
            if on_segment:
                on_segment(state, done, total)
            if train.stopped(state):
                break
    return train.finish(state, data)


def fit_stream(
    train: Train,
    key: Key,
    hparams: Any,
    stream: Stream,
    data: Mapping[str, tuple | Stream] | None = None,
    *,
    segments: int = 20,
    on_segment: Callable[[State, int, int], None] | None = None,
    checkpoint: str | Path | None = None,
) -> Result:
    """Run ``train`` on pictures that threads decode while the device computes: the updates of `fit`, batch by batch.

    Pictures arrive as bytes and become floats in [0, 1] on the device, before ``train.augment``. With
    ``seed=order_key(key)`` the stream shows them in the order in which `fit` would, and the numbers are those of `fit`
    on the same pictures in memory, but for the rounding of another compiled program. How long the device stood still
    for want of pictures is added to ``stream.timing``; the first update, which compiles, evaluations and checkpoints
    are not counted. Nor is, where the device is the CPU, what the decoding threads take from the updates themselves.

    Args:
      train: from `make_train`; its configuration must have the stream's batch_size, shuffle and remainder.
      key, hparams: as for a call of ``train``.
      stream: from `nnjax.data.stream`, the training pictures; ``epochs`` of the configuration counts.
      data: what is evaluated, by name: ``(x, y)`` or ``(x, y, weight)`` in memory, x of bytes or floats, or another
        stream, of which every picture is read once at every evaluation, whatever its ``shuffle`` and ``remainder``.
      segments: checkpoints and calls of ``on_segment``, about.
      on_segment: called with the state, updates done and updates in all; the state's memory is used again.
      checkpoint: a folder (orbax); a run found there goes on where it stopped, with the same numbers.

    Raises:
      ValueError: ``segments`` below 1, a stream that does not fit the configuration, a split with arrays of different
        lengths, or checkpoints of another run.
      DataError: a picture cannot be read; checkpoints already written stay.
    """
    if segments < 1:
        raise ValueError(f"segments={segments} must be a positive integer")
    data = train._evaluated(data or {})
    arrays = {name: split for name, split in data.items() if not isinstance(split, Stream)}
    check_lengths(arrays)
    train = dataclasses.replace(train, network=of_bytes(train.network))
    schedule = _checked(train, stream)
    run = _Streamed(train, hparams, schedule, data)
    first = stream.folder.read([0], stream.size, fit=stream.fit)
    state = jax.jit(lambda key, hparams, x: train._begin(key, hparams, x, data, schedule))(key, hparams, first)
    streams = {"": stream} | {name: split for name, split in data.items() if isinstance(split, Stream)}
    digest = ""
    if checkpoint is not None:
        digest = run_digest(train, key, hparams, arrays)
        digest += "".join(f" {name!r} {one.digest()}" for name, one in streams.items())
    every = max(1, schedule.steps // segments)
    with Checkpoints(checkpoint, digest) as kept:
        done, state = kept.restore(state)
        if done == 0 and schedule.at_start:
            state = run.evaluate(state)
        with stream.batches(*divmod(done, schedule.batches)) as reader:
            while done < schedule.steps and not (done in schedule.stops and train.stopped(state)):
                state = run.update(state, reader)
                done += 1
                if done in schedule.stops:
                    state = run.evaluate(state)
                if done % every == 0 or done == schedule.steps:
                    run.pause(stream)
                    kept.save(done, state)
                    if on_segment:
                        on_segment(state, done, schedule.steps)
        run.pause(stream)
    return train._finished(state, schedule)


def of_bytes(network: Network) -> Network:
    """The network with x of bytes (uint8) made floats in [0, 1], as pictures are kept in a quarter of the memory."""

    def apply(params: PyTree, stats: PyTree, x: Array, *, key: Key | None, train: bool) -> tuple[Array, PyTree]:
        return network.apply(params, stats, _floats(x), key=key, train=train)

    return network._replace(init=lambda key, x: network.init(key, _floats(x)), apply=apply)


def _floats(x: Array) -> Array:
    if x.dtype != jnp.uint8:
        return x
    # Looked up: a division by a constant is compiled as a product with its inverse, which differs in the last bit from
    # what `nnjax.data.load` and NumPy give.
    return jnp.asarray(np.arange(256, dtype=np.float32) / np.float32(255))[x]


def _checked(train: Train, stream: Stream) -> Schedule:
    config = train.config
    for name in ("batch_size", "shuffle", "remainder"):
        if getattr(config, name) != getattr(stream, name):
            theirs, ours = getattr(stream, name), getattr(config, name)
            raise ValueError(f"{name}={theirs!r} of the stream must be the configuration's {name}={ours!r}")
    schedule = schedule_of(config, len(stream.folder))
    if stream.epochs is not None and schedule.steps > stream.epochs * schedule.batches:
        raise ValueError(f"epochs={stream.epochs} of the stream give fewer than the run's {schedule.steps} updates")
    return schedule


class _Streamed:
    """The compiled pieces of a streamed run, and its stopwatch."""

    def __init__(self, train: Train, hparams: Any, schedule: Schedule, data: Mapping[str, tuple | Stream]):
        self._train, self._hparams = train, hparams
        self._data = {
            name: split if isinstance(split, Stream) else tuple(map(jnp.asarray, split)) for name, split in data.items()
        }
        self._update = jax.jit(self._one, donate_argnums=0)
        self._scores = jax.jit(train._metrics)
        self._sums = jax.jit(train._sums)
        self._record = jax.jit(train._recorded, donate_argnums=0)
        # Updates handed to the device and not yet known to be done; the host runs two ahead.
        self._running: collections.deque[Array] = collections.deque()
        self._warm = False
        self._since: float | None = None
        self._waited = self._total = 0.0

    def _one(self, state: State, hparams: Any, x: Array, y: Array, weight: Array) -> tuple[State, Array]:
        state = self._train._step(state, hparams, (_floats(x), y, weight))
        return state, state.clock + 0

    def update(self, state: State, reader: Reader) -> State:
        """One update with the next batch."""
        if len(self._running) >= 2:
            jax.block_until_ready(self._running.popleft())
        if not reader.ready():
            # What is waited while the device is at work costs nothing.
            jax.block_until_ready(list(self._running))
            self._running.clear()
        before = reader.waited
        batch = next(reader)
        if self._since is not None:
            self._waited += reader.waited - before
        state, mark = self._update(state, self._hparams, *batch)
        if self._warm and self._since is None:
            self._since = time.perf_counter()
        if not self._warm:
            jax.block_until_ready(mark)
            self._warm, self._since = True, time.perf_counter()
        self._running.append(mark)
        return state

    def evaluate(self, state: State) -> State:
        """The state after an evaluation of every split."""
        self._stop()
        scores: dict[str, Array] = {}
        for name, split in self._data.items():
            if isinstance(split, Stream):
                values = self._streamed(state, split)
            else:
                values = self._scores(state.params, state.stats, split)
            scores |= {f"{name}_{metric}": value for metric, value in values.items()}
        return self._record(state, scores)

    def _streamed(self, state: State, split: Stream) -> dict[str, Array]:
        totals: dict[str, Array] = {name: jnp.zeros(()) for name in self._train.metrics}
        weight = 0.0
        # All of it: a batch that is dropped in training is part of the split.
        with dataclasses.replace(split, epochs=1, shuffle=False, remainder="keep").batches() as reader:
            for batch in reader:
                sums = self._sums(state.params, state.stats, batch)
                totals = {name: totals[name] + sums[name] for name in totals}
                weight += float(batch.weight.sum())
        return {name: total / weight for name, total in totals.items()}

    def pause(self, stream: Stream) -> None:
        """Stop the watch and hand its reading to the stream."""
        self._stop()
        stream.timing.waited += self._waited
        stream.timing.total += self._total
        self._waited = self._total = 0.0

    def _stop(self) -> None:
        jax.block_until_ready(list(self._running))
        self._running.clear()
        if self._since is not None:
            self._total += time.perf_counter() - self._since
        self._since = None
