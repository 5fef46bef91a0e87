"""Batches of pictures that do not fit in memory: decoded in threads ahead of the device, in an order known beforehand.

    batches = stream(folder, 32, 141, seed=0)
    for x, y, weight in batches.batches(epoch=3, batch=10):  # goes on where a run was left
        ...

Which pictures a batch holds depends on the seed, the epoch and the batch's number alone, never on how fast which thread
was. Batches hold bytes: a quarter of what floats would take to send to the device, which makes floats of them.
"""

from __future__ import annotations

import collections
import hashlib
import operator
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from nnjax.data.images import FITS, ImageFolder, checked_size
from nnjax.naming import choose
from nnjax.types import Key

__all__ = ["Batch", "Reader", "Stream", "Timing", "stream"]


class Batch(NamedTuple):
    """Pictures x uint8 (b, h, w, 3), labels y int32 (b,), and weight float32 (b,), 0 where a batch is filled up."""

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray


@dataclass
class Timing:
    """Seconds that a training loop stood still for want of pictures, ``waited``, out of ``total``.

    Where the update itself runs on the CPU, the threads that decode take cores from it: updates then are slower, which
    ``total`` holds and ``waited`` does not.
    """

    waited: float = 0.0
    total: float = 0.0

    @property
    def share(self) -> float:
        """The part of the time that was waited; 0 before anything was timed."""
        return self.waited / self.total if self.total else 0.0


@dataclass(frozen=True, eq=False)
class Stream:
    """What batches a folder gives, made by `stream`; iterate it, or begin anywhere with ``batches``.

    Attributes:
      folder: the pictures.
      batch_size, size, seed, shuffle, remainder, epochs, fit, workers, prefetch: as given to `stream`.
      timing: filled by `nnjax.train.fit_stream`.
    """

    folder: ImageFolder
    batch_size: int
    size: tuple[int, int]
    seed: int | Key
    shuffle: bool
    remainder: str
    epochs: int | None
    fit: str
    workers: int
    prefetch: int
    timing: Timing = field(default_factory=Timing)

    def __len__(self) -> int:
        """Batches an epoch."""
        n = len(self.folder)
        return n // self.batch_size if self.remainder == "drop" else -(-n // self.batch_size)

    def __iter__(self) -> Reader:
        return self.batches()

    def batches(self, epoch: int = 0, batch: int = 0) -> Reader:
        """An iterator from this batch on; close it, or use it as a context, to end its threads.

        Raises:
          ValueError: a negative epoch, or a batch that an epoch does not have.
        """
        if epoch < 0 or not 0 <= batch < len(self):
            raise ValueError(f"epoch={epoch}, batch={batch} must be from 0, with batch below the {len(self)} an epoch")
        return Reader(self, epoch * len(self) + batch)

    def order(self, epoch: int) -> np.ndarray:
        """Places of the pictures in the order in which this epoch shows them, (n,)."""
        n = len(self.folder)
        if not self.shuffle:
            return np.arange(n)
        key = jax.random.key(self.seed) if isinstance(self.seed, int) else self.seed
        return np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), n))

    def digest(self) -> str:
        """Changes when anything does that the batches depend on; 64 hexadecimal digits."""
        seed = self.seed if isinstance(self.seed, int) else np.asarray(jax.random.key_data(self.seed)).tolist()
        facts = (self.batch_size, self.size, seed, self.shuffle, self.remainder, self.fit)
        return hashlib.sha256(f"{self.folder.digest()} {facts}".encode()).hexdigest()


def stream(
    folder: ImageFolder,
    batch_size: int,
    size: int | tuple[int, int],
    *,
    seed: int | Key = 0,
    shuffle: bool = True,
    remainder: str = "keep",
    epochs: int | None = None,
    fit: str = "crop",
    workers: int | None = None,
    prefetch: int = 3,
) -> Stream:
    """Batches of a folder's pictures, epoch after epoch.

    Args:
      folder: from `nnjax.data.image_folder` or `nnjax.data.load_images`.
      batch_size: pictures a batch.
      size: height and width in pixels, or one number for both.
      seed: decides the order of every epoch; a key, such as `nnjax.train.order_key` gives, stands for itself.
      shuffle: a new order every epoch; False keeps the folder's.
      remainder: what becomes of an epoch's last, smaller batch: ``keep`` (filled up with pictures of weight 0) or
        ``drop``.
      epochs: how many; None goes on for ever.
      fit: ``crop`` or ``squash``; see `nnjax.data.ImageFolder.read`.
      workers: threads that decode; default: one a core, 16 at most.
      prefetch: batches decoded ahead of the one in use; memory is bounded by these.

    Raises:
      ValueError: a number below 1, more pictures a batch than there are, another ``remainder`` or ``fit``.
    """
    workers = min(os.cpu_count() or 1, 16) if workers is None else workers
    numbers = {"batch_size": batch_size, "workers": workers, "prefetch": prefetch}
    for name, value in (numbers | ({} if epochs is None else {"epochs": epochs})).items():
        if not hasattr(value, "__index__") or operator.index(value) < 1:
            raise ValueError(f"{name}={value!r} must be a positive integer")
    # NumPy's integers look otherwise in a digest.
    batch_size, workers, prefetch = map(operator.index, (batch_size, workers, prefetch))
    epochs = None if epochs is None else operator.index(epochs)
    if batch_size > len(folder):
        raise ValueError(f"batch_size={batch_size} is more than the {len(folder)} pictures")
    choose("remainder", remainder, ("keep", "drop"))
    choose("fit", fit, FITS)
    seed = operator.index(seed) if hasattr(seed, "__index__") and not isinstance(seed, jax.Array) else seed
    return Stream(
        folder, batch_size, checked_size(size), seed, shuffle, remainder, epochs, fit, workers, prefetch
    )  # fmt: skip


class _Pending(NamedTuple):
    """A batch whose pictures are being decoded into its rows."""

    batch: Batch
    rows: list[Future]


class Reader(Iterator[Batch]):
    """Hands out the batches of a `Stream` one after the other while threads decode those that come next.

    Attributes:
      waited: seconds that ``next`` had to wait for pictures.
    """

    def __init__(self, source: Stream, first: int):
        self.waited = 0.0
        self._stream = source
        self._next = first  # number of the batch that is submitted next, through all epochs
        self._order: tuple[int, np.ndarray] = (-1, np.arange(0))
        self._ahead: collections.deque[_Pending] = collections.deque()
        self._pool = ThreadPoolExecutor(source.workers, thread_name_prefix="nnjax-pictures")
        self._open = True
        self._submit()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def ready(self) -> bool:
        """Whether ``next`` would return at once."""
        return not self._ahead or all(row.done() for row in self._ahead[0].rows)

    def __next__(self) -> Batch:
        """The next batch. Raises DataError, naming the picture, where one cannot be read."""
        if not self._ahead:
            self.close()
            raise StopIteration
        pending = self._ahead.popleft()
        self._submit()
        start = time.perf_counter()
        try:
            for row in pending.rows:
                row.result()
        except BaseException:
            self.close()
            raise
        self.waited += time.perf_counter() - start
        return pending.batch

    def close(self) -> None:
        """End the threads; what was decoded ahead is dropped."""
        self._open = False
        self._ahead.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self) -> None:
        source = self._stream
        while self._open and len(self._ahead) < source.prefetch:
            epoch, number = divmod(self._next, len(source))
            if source.epochs is not None and epoch >= source.epochs:
                return
            if self._order[0] != epoch:
                self._order = epoch, source.order(epoch)
            position = number * source.batch_size + np.arange(source.batch_size)
            places = self._order[1][position % len(source.folder)]
            weight = (position < len(source.folder)).astype(np.float32)
            x = np.empty((source.batch_size, *source.size, 3), np.uint8)
            rows = [self._pool.submit(self._decode, x, row, int(place)) for row, place in enumerate(places)]
            self._ahead.append(_Pending(Batch(x, source.folder.labels[places], weight), rows))
            self._next += 1

    def _decode(self, x: np.ndarray, row: int, place: int) -> None:
        x[row] = self._stream.folder.one(place, self._stream.size, fit=self._stream.fit)
