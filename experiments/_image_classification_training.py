"""One panel of the image-classification study: its pictures, its net, training with checkpoints, what is measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnjax import losses, metrics, models, schedules
from nnjax.attribution import feature_maps, filters
from nnjax.data import augment as change
from nnjax.data import cache, load, random_crop_and_flip, stratified_split
from nnjax.train import Config as TrainConfig
from nnjax.train import Network, State, Train, make_train, of_bytes, predict
from nnjax.types import Array, Key, PyTree
from nnjax.wann.checkpoints import Checkpoints

if TYPE_CHECKING:
    from nnjax.monitor import Monitor
    from nnjax.sweep import Store

SHOWN_WRONG = 24
"""Misclassified pictures that are kept, the surest first."""
SHOWN_LAYERS, SHOWN_MAPS = 4, 12
"""Convolutions, and channels of each, whose feature maps are kept."""
KEPT_STATES = 20
"""About so many times a run keeps its state, after an epoch: what a kill can lose is the work between two of them."""
EVALUATION_BATCH = 500


class Panel(NamedTuple):
    """A data set, the net for it and how that is trained.

    Attributes:
      name: of the results' group.
      data: name for `nnjax.data.load`.
      model: a Linen module.
      seeds, epochs, batch: runs, passes over the training pictures, pictures an update.
      rate, decay: largest learning rate (Nesterov momentum 0.9, warm-up and cosine) and L2 decay of the kernels.
      first: path of the first convolution.
      augment: ``(key, x, hparams) -> x``, with x in [0, 1].
    """

    name: str
    data: str
    model: nn.Module
    seeds: int
    epochs: int
    batch: int
    rate: float
    decay: float
    first: str
    augment: Callable[[Key, Array, Any], Array]


# Pictures


class Pictures(NamedTuple):
    """Training, validation and test pictures (n, h, w, c), bytes where the files have bytes, and labels (n,).

    Attributes:
      splits: by name, ``(x, y)``.
      mean, std: of the training pictures' channels, as parts of 1, (c,).
      class_names: of the labels.
      source: name of the data set as it was found.
    """

    splits: dict[str, tuple[np.ndarray, np.ndarray]]
    mean: np.ndarray
    std: np.ndarray
    class_names: tuple[str, ...]
    source: str


def source_of(name: str) -> str:
    """The name to load: the JPEG copy of CIFAR-10 where that is there and the official archive is not."""
    if name != "cifar10":
        return name
    official, copy = (
        (cache.folder() / "cifar-10" / file).exists()
        for file in ("cifar-10-binary.tar.gz", "cifar-10-images-jpeg.tar.xz")
    )
    return "cifar10_jpeg" if copy and not official else "cifar10"


def pictures(name: str, train_n: int, test_n: int, validation_share: float, seed: int) -> Pictures:
    """At most so many pictures of a data set, split with the classes' proportions."""
    source = source_of(name)
    whole = load(source)
    count = min(train_n, len(whole.train.y))
    held_out = max(1, round(validation_share * count))
    train, validation = stratified_split(whole.train.y, [count - held_out, held_out], seed=seed)
    (test,) = stratified_split(whole.test.y, [min(test_n, len(whole.test.y))], seed=seed)

    def kept(split: Any, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = split.x[np.sort(index)]
        # Files of bytes are kept as such, in a quarter of the memory.
        return (x if source == "digits" else np.round(255 * x).astype(np.uint8)), split.y[np.sort(index)]

    parts = {"train": kept(whole.train, train), "validation": kept(whole.train, validation)}
    parts["test"] = kept(whole.test, test)
    unit = 1.0 if source == "digits" else 255.0
    flat = parts["train"][0].reshape(-1, whole.train.x.shape[-1])
    middle, spread = flat.mean(0, dtype=np.float64) / unit, flat.std(0, dtype=np.float64) / unit
    return Pictures(parts, middle.astype(np.float32), spread.astype(np.float32), whole.class_names, source)


# Augmentation


def crop(padding: int) -> Callable[[Key, Array, Any], Array]:
    """Shifts up to ``padding`` pixels and mirror images, in bytes or parts of 1."""
    return lambda key, x, _: random_crop_and_flip(key, x, padding=padding)


def warp(shift: float, degrees: float, zoom: float) -> Callable[[Key, Array, Any], Array]:
    """Shifts, turns and sizes for digits, which have no mirror images."""

    def augment(key: Key, x: Array, _: Any) -> Array:
        x = jnp.asarray(x, jnp.float32) / 255 if x.dtype == jnp.uint8 else x
        return change.affine(key, x, shift=shift, rotate=degrees, zoom=zoom, fill="zeros")

    return augment


# Training


def network_of(panel: Panel, found: Pictures) -> Network:
    """The panel's net behind bytes made parts of 1 and channels centered and scaled as the training pictures'."""
    inner = models.network(panel.model)
    mean, std = (np.reshape(each, (1, 1, 1, -1)) for each in (found.mean, found.std))

    def scaled(x: Array) -> Array:
        return (jnp.asarray(x, jnp.float32) - mean) / std

    def apply(params: PyTree, stats: PyTree, x: Array, *, key: Key | None, train: bool) -> tuple[Array, PyTree]:
        return inner.apply(params, stats, scaled(x), key=key, train=train)

    return of_bytes(Network(lambda key, x: inner.init(key, scaled(x)), apply))


def trainer(panel: Panel, found: Pictures) -> Train:
    """A run in pieces of an epoch; the training pictures are evaluated after the first and the last alone."""
    batches = -(-len(found.splits["train"][1]) // panel.batch)
    steps = panel.epochs * batches
    config = TrainConfig(
        epochs=panel.epochs, batch_size=panel.batch, evaluate_at=tuple(sorted({batches, steps})),
        evaluation_batch=EVALUATION_BATCH,
    )  # fmt: skip
    rate = schedules.by_name("warmup_cosine", panel.rate, steps, warmup_steps=max(1, steps // 10))

    def rule(_: Any) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(panel.decay, lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)),
            optax.sgd(rate, momentum=0.9, nesterov=True),
        )

    scores = {"loss": losses.cross_entropy, "error": losses.zero_one}
    return make_train(
        network_of(panel, found), losses.cross_entropy, rule, config, metrics=scores, augment=panel.augment
    )


class Course(NamedTuple):
    """Curves of a run, (epochs,) each, NaN where it has not come; kept with the state.

    Attributes:
      train_loss, train_error: on as many training pictures, not augmented, as there are for validation.
      validation_loss, validation_error: on the validation pictures.
    """

    train_loss: np.ndarray
    train_error: np.ndarray
    validation_loss: np.ndarray
    validation_error: np.ndarray


class Clock:
    """Wall seconds of every epoch, by run; beside the states, for times are no results: no two runs have the same."""

    def __init__(self, store: Store | None):
        self._store = store
        self._seconds: dict[str, np.ndarray] = dict((store.load("clock") if store is not None else None) or {})

    def of(self, name: str, epochs: int) -> np.ndarray:
        """Seconds of a run's epochs, (epochs,), NaN where unknown; written to as epochs are done."""
        if name not in self._seconds or self._seconds[name].shape != (epochs,):
            self._seconds[name] = np.full(epochs, np.nan)
        return self._seconds[name]

    def keep(self) -> None:
        """Save what there is."""
        if self._store is not None:
            total = float(np.nansum([np.nansum(each) for each in self._seconds.values()]))
            self._store.save("clock", self._seconds, {"seconds": total})


class Programs:
    """The compiled parts of a panel's runs, made when they are first needed and shared by all seeds."""

    def __init__(self, panel: Panel, found: Pictures, monitor: Monitor):
        self.train = trainer(panel, found)
        self._network = self.train.network
        self._data = {"train": jax.tree.map(jnp.asarray, found.splits["train"])}
        self._held_out = jax.tree.map(jnp.asarray, found.splits["validation"])
        self._fitted = jax.tree.map(lambda leaf: leaf[: len(self._held_out[1])], self._data["train"])
        self._monitor = monitor
        self._start, self._score = jax.jit(self.train.start), jax.jit(self._scores)
        self._epoch: Any = None
        self.predict = jax.jit(partial(predict, self._network, batch_size=EVALUATION_BATCH))

    def start(self, key: Key) -> State:
        """The state before the first update."""
        return self._start(key, None, self._data)

    def epoch(self, state: State) -> State:
        """The state an epoch later; the memory of the one before is used again."""
        if self._epoch is None:
            begun = time.perf_counter()
            advance = jax.jit(self.train.advance, static_argnames="ticks", donate_argnums=0)
            self._epoch = advance.lower(state, None, self._data, ticks=1).compile()
            self._monitor.spend("compile", time.perf_counter() - begun)
        return self._epoch(state, None, self._data)

    def scores(self, state: State) -> tuple[Array, ...]:
        """Loss and error on training pictures, then on validation pictures, () each."""
        return (*self._score(state, *self._fitted), *self._score(state, *self._held_out))

    def _scores(self, state: State, x: Array, y: Array) -> tuple[Array, Array]:
        logits = predict(self._network, state.params, state.stats, x, batch_size=EVALUATION_BATCH)
        return losses.cross_entropy(logits, y).mean(), losses.zero_one(logits, y).mean()


def trained(
    programs: Programs, epochs: int, key: Key, name: str, store: Store | None, clock: Clock, monitor: Monitor
) -> tuple[State, Course]:
    """A run to its end, from its latest state in the store where there is one; the state and its curves."""
    course = Course(*(np.full(epochs, np.nan) for _ in Course._fields))
    begun = programs.start(key), course, np.asarray(0)
    checkpoints = Checkpoints(store, name)
    state, course, before = checkpoints.restore(begun) or begun
    seconds, done = clock.of(name, epochs), int(before)
    while done < epochs:
        compiling = monitor.seconds["compile"]
        start = time.perf_counter()
        state = programs.epoch(state)
        values = jax.device_get(programs.scores(state))
        spent = time.perf_counter() - start - (monitor.seconds["compile"] - compiling)
        for curve, value in zip(course, values, strict=True):
            curve[done] = value
        seconds[done] = spent
        monitor.spend("run", spent)
        monitor.advance(spent)
        done += 1
        # Not by the clock: what a folder holds in the end does not hang on how fast it was filled.
        if done == epochs or done % max(1, epochs // KEPT_STATES) == 0:
            checkpoints.keep((state, course, np.asarray(done)), done)
            clock.keep()
    return state, course


# What is measured


def measured(programs: Programs, found: Pictures, state: State, course: Course) -> dict[str, np.ndarray]:
    """All that is reported of a finished run, the test pictures being seen here for the only time."""
    x, y = found.splits["test"]
    logits = programs.predict(state.params, state.stats, jnp.asarray(x))
    chances = np.asarray(jax.nn.softmax(logits))
    said = chances.argmax(1)
    wrong = np.flatnonzero(said != y)
    surest = wrong[np.argsort(-chances[wrong, said[wrong]], kind="stable")][:SHOWN_WRONG]
    shown = np.full(SHOWN_WRONG, -1)
    shown[: len(surest)] = surest
    finite = all(bool(np.isfinite(np.asarray(leaf)).all()) for leaf in jax.tree.leaves(state.params))
    return {
        **course._asdict(),
        "whole_train_error": np.asarray(state.history["train_error"][-1]),
        "test_loss": np.asarray(losses.cross_entropy(logits, jnp.asarray(y)).mean()),
        "test_error": np.asarray((said != y).mean(), np.float32),
        "test_wrong": said != y,
        "confusion": np.asarray(metrics.confusion_matrix(y, said, classes=len(found.class_names))),
        "wrong": shown, "wrong_said": said[shown], "wrong_chance": chances.max(1)[shown],
        "diverged": np.asarray(not finite or not np.isfinite(chances).all()),
    }  # fmt: skip


def drawn(panel: Panel, found: Pictures, state: State) -> dict[str, np.ndarray]:
    """What is drawn of a run: first filters, and feature maps of a test picture, as "maps 0 (path)" and so on."""
    x = found.splits["test"][0][:1]
    unit = 255.0 if x.dtype == np.uint8 else 1.0
    scaled = (np.asarray(x, np.float32) / unit - found.mean) / found.std
    maps = feature_maps(panel.model, state.params, state.stats, scaled, activation="relu")
    pictured = {path: value for path, value in maps.items() if value.ndim == 4 and value.shape[1] > 1}
    places = np.unique(np.linspace(0, len(pictured) - 1, SHOWN_LAYERS).round().astype(int))
    some = [list(pictured.items())[place] for place in places]
    kept = {f"maps {path.replace('/', ' ')}": np.asarray(value[0, :, :, :SHOWN_MAPS]) for path, value in some}
    return {"filters": np.asarray(filters(state.params, panel.first)), "seen": x[0], **kept}
