"""Classification of images: a random batch an evaluation, and parts held out to choose and to report."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import losses
from nnjax.data import Split, load, stratified_split, take
from nnjax.naming import choose
from nnjax.types import Array, Key
from nnjax.wann.genome import NAMES

_SPLIT_SEED = 0


class Parts(NamedTuple):
    """Examples, `.x` (n, inputs) and `.y` (n,) whole numbers: to search with, to choose a champion by, to report."""

    train: Split
    validation: Split
    test: Split


@dataclasses.dataclass(frozen=True, eq=False)
class Classification:
    """Examples of classes. The reward is the mean log-likelihood of one random batch of training examples, in nats.

    Outputs are logits. The reward is negative; -ln(classes) is what knowing nothing gets. Nets do without the step
    activation, as those of Gaier and Ha (2019). Two of these are equal only if they are the same object.

    Attributes:
      name: of the data.
      params: the examples, a `Parts`.
      outputs: number of classes.
      batch_size: examples of an evaluation, drawn without replacement; None for all training examples in order.

    Raises:
      ValueError: parts whose shapes do not fit, or a batch size out of range.
    """

    name: str
    params: Parts = dataclasses.field(repr=False)
    outputs: int = 10
    batch_size: int | None = None

    activations = tuple(name for name in NAMES if name != "step")

    def __post_init__(self) -> None:
        for part, split in zip(Parts._fields, self.params, strict=True):
            if np.ndim(split.x) != 2 or np.shape(split.y) != np.shape(split.x)[:1]:
                raise ValueError(
                    f"{part} has x {np.shape(split.x)} and y {np.shape(split.y)}; expected (n, inputs) and (n,)"
                )
        most = len(self.params.train.y)
        if self.batch_size is not None and not 1 <= self.batch_size <= most:
            raise ValueError(f"batch_size={self.batch_size} must lie between 1 and {most}, the training examples")

    @property
    def inputs(self) -> int:
        """Numbers of an example."""
        return self.params.train.x.shape[1]

    @property
    def data(self) -> Parts:
        """The same as ``params``."""
        return self.params

    def examples(self, params: Parts, key: Key) -> Split:
        """The batch of one evaluation."""
        train = params.train
        if self.batch_size is None:
            return train
        # Where the largest of as many random numbers as there are examples stand: a permutation takes 30 times as long.
        drawn = jax.lax.top_k(jax.random.uniform(key, (len(train.y),), jnp.float32), self.batch_size)[1]
        return Split(jnp.asarray(train.x)[drawn], jnp.asarray(train.y)[drawn])

    def score(self, outputs: Array, y: Array) -> Array:
        """Mean log-likelihood, (), of logits (n, outputs) and classes (n,)."""
        return -jnp.mean(losses.cross_entropy(outputs, y))

    def evaluate(self, params: Parts, net: Callable[[Array], Array], key: Key) -> Array:
        """Mean log-likelihood of one random batch, ()."""
        batch = self.examples(params, key)
        return self.score(net(batch.x), batch.y)

    def accuracy(self, params: Parts, net: Callable[[Array], Array], part: str = "validation") -> Array:
        """Share of the examples of a part, train, validation or test, of which the largest logit is the class, ().

        Choose by the validation part, report the test part.

        Raises:
          ValueError: an unknown part.
        """
        x, y = getattr(params, choose("part", part, Parts._fields))
        return 1 - jnp.mean(losses.zero_one(net(x), y))


def classification(
    name: str, train: Split, test: Split, *, classes: int, validation: int, batch_size: int | None
) -> Classification:
    """A task of training and test examples; ``validation`` of the training ones are set apart, by class in proportion.

    Args:
      name: of the data.
      train, test: `.x` (n, inputs), `.y` (n,) whole numbers.
      classes: how many there are.
      validation: number of examples.
      batch_size: of an evaluation.

    Raises:
      ValueError: no training example is left, or what `Classification` says.
    """
    rest, apart = stratified_split(train.y, (len(train.y) - validation, validation), seed=_SPLIT_SEED)
    parts = Parts(take(train, np.sort(rest)), take(train, np.sort(apart)), test)
    with jax.ensure_compile_time_eval():  # kept for later calls, so never a tracer
        return Classification(name, jax.tree.map(jnp.asarray, parts), classes, batch_size)


@functools.cache
def digits(*, batch_size: int | None = 500, validation: int = 288) -> Classification:
    """Digits of 8x8 pixels in [0, 1] (Alpaydin and Kaynak, 1998), which come with scikit-learn: 64 inputs.

    Of `nnjax.data.load`'s 1438 training examples, ``validation`` are held out to choose champions by; its 359 test
    examples stay as they are.

    Args:
      batch_size: training examples of an evaluation; None for all.
      validation: number of examples.
    """
    whole = load("digits")
    train, test = (Split(part.x.reshape(len(part.x), -1), part.y) for part in (whole.train, whole.test))
    return classification("digits", train, test, classes=10, validation=validation, batch_size=batch_size)
