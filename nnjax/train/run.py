"""One training run as one pure function: ``train(key, hparams, data) -> Result``.

`make_train` closes over what is static (network, loss, optimizer rule, `Config`) and returns a `Train`. Called,
it is a whole run, one compiled scan: jit it, `jax.vmap` it over keys and hyper-parameters, or hand it to
`nnjax.sweep.sweep`. Taken apart (``start``, ``advance``, ``finish``) it runs in segments, so that `fit` can
show progress, checkpoint, and stop between them; the numbers are the same.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnjax.batches import in_batches, permutation
from nnjax.data.splits import check_labels
from nnjax.types import Array, Key, PyTree

__all__ = [
    "Augment", "Best", "Config", "Network", "PerExample", "Result", "State", "Train", "balanced_class_weights",
    "log_spaced_steps", "make_train", "order_key", "predict",
]  # fmt: skip

_Split = TypeVar("_Split")

PerExample = Callable[[Array, Array], Array]
"""``(prediction, target) -> (n,)``."""

Augment = Callable[[Key, Array, Any], Array]
"""``(key, x, hparams) -> x``, x (n, ...)."""


class Network(NamedTuple):
    """A network as two pure functions; `nnjax.models.network` makes one of any Flax Linen module.

    Attributes:
      init: ``(key, x) -> (params, stats)``, x (n, ...).
      apply: ``(params, stats, x, *, key, train) -> (y, stats)``; ``key`` drives dropout, ``train`` is static.
    """

    init: Callable[[Key, Array], tuple[PyTree, PyTree]]
    apply: Callable[..., tuple[Array, PyTree]]


@dataclass(frozen=True)
class Config:
    """What is static in a training run.

    Attributes:
      epochs: passes over the training data; give this or ``steps``.
      steps: updates; give this or ``epochs``.
      batch_size: examples an update; None is full batch, 1 is online.
      shuffle: a new order every epoch (without replacement); False keeps the given order.
      remainder: what becomes of an epoch's last, smaller batch: ``keep`` (an update of its own; batch
        normalization sees it filled up with repeated examples, which carry no loss) or ``drop``.
      evaluate_every: evaluate every so many steps, and at the end; default once an epoch.
      evaluate_at: evaluate after these steps instead (0 is the start), ascending; see `log_spaced_steps`.
      evaluate: names of the splits that are evaluated; None is all of them. A large training split whose scores nobody
        reads is better left out.
      evaluation_batch: examples at once in evaluation; None is a whole split.
      accumulate: split every batch into so many parts and add their gradients: the update of the whole
        batch in the memory of a part. Must divide the batch size.
      select: name of a metric, such as ``validation_loss``: the parameters of the evaluation where it was least are
        the ones returned (early stopping).
      patience: stop after so many evaluations without a new least ``select``; None goes on to the end. Inside one
        compiled run stopping freezes the state; `fit` also stops computing.
      class_weights: weight of each class's examples in the loss (integer labels); the loss is the weighted mean.
    """

    epochs: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    shuffle: bool = True
    remainder: str = "keep"
    evaluate_every: int | None = None
    evaluate_at: tuple[int, ...] | None = None
    evaluate: tuple[str, ...] | None = None
    evaluation_batch: int | None = None
    accumulate: int = 1
    select: str | None = None
    patience: int | None = None
    class_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"give either epochs or steps, not epochs={self.epochs} and steps={self.steps}")
        for name in ("epochs", "steps", "batch_size", "evaluate_every", "evaluation_batch", "accumulate", "patience"):
            value = getattr(self, name)
            if value is None:
                continue
            if not hasattr(value, "__index__") or operator.index(value) < 1:
                raise ValueError(f"{name}={value!r} must be a positive integer")
            object.__setattr__(self, name, operator.index(value))
        if self.remainder not in ("keep", "drop"):
            raise ValueError(f"remainder={self.remainder!r} must be 'keep' or 'drop'")
        if self.patience is not None and self.select is None:
            raise ValueError(f"patience={self.patience} needs select, the metric to watch")
        if self.evaluate_at is not None:
            if self.evaluate_every is not None:
                raise ValueError("give either evaluate_every or evaluate_at, not both")
            if list(self.evaluate_at) != sorted(set(self.evaluate_at)) or max(self.evaluate_at, default=0) < 1:
                raise ValueError(f"evaluate_at={self.evaluate_at} must be ascending steps, each once, one at least > 0")


class State(NamedTuple):
    """What the loop carries.

    Attributes:
      clock: updates that the schedule has come to, (); an early stop does not stop it.
      step: updates done, ().
      params, stats, optimizer: pytrees.
      key: the run's key, ().
      order: this epoch's order of the examples, (n,); None for full batch.
      history: metric name -> (evaluations,), NaN where not yet evaluated.
      evaluation: evaluations done, ().
      seen: sums of loss and weight over the updates since the last evaluation, (2,).
      best: `Best`, or None where nothing is selected.
    """

    clock: Array
    step: Array
    params: PyTree
    stats: PyTree
    optimizer: PyTree
    key: Key
    order: Array | None
    history: dict[str, Array]
    evaluation: Array
    seen: Array
    best: Best | None


class Best(NamedTuple):
    """The best evaluation so far: its parameters, score (), step (), and evaluations since then ()."""

    params: PyTree
    stats: PyTree
    score: Array
    step: Array
    since: Array


class Result(NamedTuple):
    """What a run returns.

    Attributes:
      params, stats: of the selected evaluation, or of the last step where nothing is selected.
      history: ``{split}_{metric}`` -> (evaluations,), ``running_loss`` (mean training loss over the updates since
        the evaluation before, with dropout) and ``step`` (updates done at each evaluation). After an early stop, NaN.
      step: updates behind ``params``, ().
      last: updates done in all, ().
      diverged: whether a parameter, or a metric of an evaluation that was done, is not finite, ().
    """

    params: PyTree
    stats: PyTree
    history: dict[str, Array]
    step: Array
    last: Array
    diverged: Array


def log_spaced_steps(steps: int, count: int, *, first: int = 1) -> tuple[int, ...]:
    """About ``count`` distinct steps from ``first`` to ``steps``, evenly spaced in the logarithm, 0 in front."""
    if not 1 <= first <= steps or count < 2:
        raise ValueError(f"first={first}, steps={steps}, count={count}: need 1 <= first <= steps and count >= 2")
    spaced = np.unique(np.round(np.geomspace(first, steps, count)).astype(int))
    return (0, *(int(step) for step in spaced))


class Schedule(NamedTuple):
    """Sizes of a run that follow from config and data, all static.

    Attributes:
      n, batch, batches, steps: training examples; those of a batch; batches an epoch; updates.
      stops: steps after which is evaluated, 0 apart.
      tick: every stop is a multiple of it.
      at_start: whether step 0 is evaluated too.
    """

    n: int
    batch: int
    batches: int
    steps: int
    stops: tuple[int, ...]
    tick: int
    at_start: bool

    @property
    def evaluations(self) -> tuple[int, ...]:
        """All steps after which is evaluated."""
        return ((0,) if self.at_start else ()) + self.stops


def check_lengths(data: Mapping[str, tuple]) -> None:
    """Refuse a split whose arrays differ in their number of examples: ValueError."""
    for split, arrays in data.items():
        if len({len(array) for array in arrays}) != 1:
            raise ValueError(f"split {split!r} has arrays of different lengths {[len(a) for a in arrays]}")


def schedule_of(config: Config, n: int) -> Schedule:
    """The sizes of a run over n training examples. Raises ValueError where they do not fit the configuration."""
    batch = n if config.batch_size is None else config.batch_size
    if batch > n:
        raise ValueError(f"batch_size={batch} is more than the {n} training examples")
    if batch % config.accumulate:
        raise ValueError(f"accumulate={config.accumulate} must divide the batch of {batch}")
    batches = n // batch if config.remainder == "drop" else math.ceil(n / batch)
    steps = config.steps if config.steps is not None else (config.epochs or 0) * batches
    if config.evaluate_at is not None:
        if config.evaluate_at[0] < 0 or config.evaluate_at[-1] > steps:
            raise ValueError(f"evaluate_at={config.evaluate_at} must lie between 0 and the last step, {steps}")
        stops = tuple(step for step in config.evaluate_at if step > 0)
        at_start = config.evaluate_at[0] == 0
    else:
        every = min(config.evaluate_every or batches, steps)
        stops, at_start = tuple(sorted({*range(every, steps + 1, every), steps})), False
    return Schedule(n, batch, batches, steps, stops, math.gcd(*stops, steps), at_start)


@dataclass(frozen=True, eq=False)
class Train:
    """A run made by `make_train`: call it, or take it step by step with ``start``, ``advance``, ``finish``.

    ``data`` is a dict of splits, each ``(x, y)`` or ``(x, y, weight)`` with x (n, ...), y (n, ...), weight (n,);
    ``train`` is trained on, and all splits are evaluated if the configuration names none. ``hparams`` is any pytree
    that optimizer rule and penalty read.
    """

    network: Network
    loss: PerExample
    optimizer: Callable[[Any], optax.GradientTransformation]
    config: Config
    metrics: Mapping[str, PerExample]
    penalty: Callable[[PyTree, Any], Array] | None
    augment: Augment | None = None

    def __call__(self, key: Key, hparams: Any, data: Mapping[str, tuple]) -> Result:
        """A whole run; pure, so it can be jitted, vmapped and swept."""
        state = self.start(key, hparams, data)
        return self.finish(self.advance(state, hparams, data), data)

    def ticks(self, data: Mapping[str, tuple]) -> int:
        """Number of equal pieces a run consists of; `advance` may do any number of them at a time."""
        schedule = self._schedule(data)
        return schedule.steps // schedule.tick

    def evaluations(self, data: Mapping[str, tuple]) -> tuple[int, ...]:
        """The steps after which the run is evaluated (0 is the start)."""
        return self._schedule(data).evaluations

    def start(self, key: Key, hparams: Any, data: Mapping[str, tuple]) -> State:
        """The state before the first update."""
        schedule, data = self._schedule(data), jax.tree.map(jnp.asarray, data)
        order = None if schedule.batch == schedule.n else jnp.arange(schedule.n, dtype=jnp.int32)
        state = self._begin(key, hparams, data["train"][0][:1], self._evaluated(data), schedule)._replace(order=order)
        return self._evaluate(state, data) if schedule.at_start else state

    def _begin(self, key: Key, hparams: Any, x: Array, splits: Iterable[str], schedule: Schedule) -> State:
        """The state before anything, for examples like x (1, ...) and the named splits to be evaluated."""
        init_key, run_key = jax.random.split(key)
        params, stats = self.network.init(init_key, x)
        names = [*(f"{split}_{metric}" for split in splits for metric in self.metrics), "running_loss"]
        count = len(schedule.stops) + schedule.at_start
        if self.config.select is not None and self.config.select not in names:
            raise ValueError(f"select={self.config.select!r} must be one of {', '.join(names)}")
        nothing = jnp.asarray(0, jnp.int32)
        return State(
            clock=nothing,
            step=nothing,
            params=params,
            stats=stats,
            optimizer=self.optimizer(hparams).init(params),
            key=run_key,
            order=None,
            history={name: jnp.full(count, jnp.nan) for name in names},
            evaluation=nothing,
            seen=jnp.zeros(2),
            best=Best(params, stats, jnp.asarray(jnp.inf), nothing, nothing) if self.config.select else None,
        )

    def advance(self, state: State, hparams: Any, data: Mapping[str, tuple], ticks: int | None = None) -> State:
        """``ticks`` more pieces (default: all). Pure; ``ticks`` is static."""
        schedule, data = self._schedule(data), jax.tree.map(jnp.asarray, data)
        stops = jnp.asarray(schedule.stops, jnp.int32)
        every_tick = len(schedule.stops) == schedule.steps // schedule.tick

        def tick(state: State) -> State:
            state, _ = jax.lax.scan(
                lambda s, _: (self._update(s, hparams, data, schedule), None), state, length=schedule.tick
            )
            if every_tick:
                return self._evaluate(state, data)
            due = jnp.any(state.clock == stops)
            return jax.lax.cond(due, lambda s: self._evaluate(s, data), lambda s: s, state)

        def unless_stopped(state: State, _: None) -> tuple[State, None]:
            if self.config.patience is None:
                return tick(state), None
            assert state.best is not None
            stopped = state.best.since >= self.config.patience
            new = tick(state)
            # A stopped run is kept as it was, but for the clock. A branch would save its time and under vmap, where
            # lanes stop one by one, cost far more: all that it holds would be computed at every step.
            kept = state._replace(clock=new.clock, key=None)  # type: ignore[arg-type]
            rest = jax.tree.map(lambda a, b: jnp.where(stopped, a, b), kept, new._replace(key=None))  # type: ignore[arg-type]
            return rest._replace(clock=new.clock, key=state.key), None

        length = schedule.steps // schedule.tick if ticks is None else ticks
        return jax.lax.scan(unless_stopped, state, length=length)[0]

    def finish(self, state: State, data: Mapping[str, tuple]) -> Result:
        """The result of a state after its last piece."""
        return self._finished(state, self._schedule(data))

    def _finished(self, state: State, schedule: Schedule) -> Result:
        history = {**state.history, "step": jnp.asarray(schedule.evaluations, jnp.int32)}
        done = jnp.arange(len(history["step"])) < state.evaluation
        seen = [jnp.ones_like(done)]  # a streamed run may have nothing evaluated
        seen += [jnp.isfinite(line) | ~done for name, line in state.history.items() if name != "running_loss"]
        sound = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(state.params)]
        diverged = ~(jnp.all(jnp.stack(seen)) & jnp.all(jnp.stack(sound)))
        if state.best is None:
            return Result(state.params, state.stats, history, state.step, state.step, diverged)
        return Result(state.best.params, state.best.stats, history, state.best.step, state.step, diverged)

    def stopped(self, state: State) -> bool:
        """Whether ``patience`` has ended a run (on the host)."""
        return self.config.patience is not None and bool(state.best and state.best.since >= self.config.patience)

    def _schedule(self, data: Mapping[str, tuple]) -> Schedule:
        if "train" not in data:
            raise ValueError(f"data must have a split named 'train', not only {sorted(data)}")
        check_lengths(data)
        return schedule_of(self.config, len(data["train"][0]))

    # One update

    def _update(self, state: State, hparams: Any, data: Mapping[str, tuple], schedule: Schedule) -> State:
        order, batch = self._batch(state, data["train"], schedule)
        return self._step(state, hparams, batch)._replace(order=order)

    def _step(self, state: State, hparams: Any, batch: tuple) -> State:
        """One update on a batch (x, y, weight)."""
        key = jax.random.fold_in(jax.random.fold_in(state.key, 0), state.clock)
        if self.augment is not None:
            x, *rest = batch
            # A stream of keys of its own: what the network draws is the same with and without.
            drawn = jax.random.fold_in(jax.random.fold_in(state.key, 2), state.clock)
            changed = self.augment(drawn, x, hparams)
            if len(changed) != len(x):
                raise ValueError(
                    f"augment made {len(changed)} examples of {len(x)}; it must keep their number and order"
                )
            batch = (changed, *rest)
        (loss, weight, stats), grads = self._gradient(state, hparams, batch, key)
        rule = optax.with_extra_args_support(self.optimizer(hparams))
        updates, optimizer = rule.update(
            grads, state.optimizer, state.params, value=loss, history=state.history, evaluation=state.evaluation
        )
        return state._replace(
            clock=state.clock + 1,
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            stats=stats,
            optimizer=optimizer,
            seen=state.seen + jnp.stack([loss * weight, weight]).astype(state.seen.dtype),
        )

    def _batch(self, state: State, train: tuple, schedule: Schedule) -> tuple[Array | None, tuple]:
        """This step's examples and their weights (0 where a last batch is filled up)."""
        x, y, *weights = train
        weight = weights[0] * 1.0 if weights else jnp.ones(schedule.n)
        if state.order is None:
            return None, (x, y, weight)
        place = state.clock % schedule.batches
        order = state.order
        if self.config.shuffle:
            epoch = jax.random.fold_in(jax.random.fold_in(state.key, 1), state.clock // schedule.batches)
            # The condition depends on the clock alone, so under vmap it stays a branch: one sort an epoch.
            order = jax.lax.cond(place == 0, lambda: permutation(epoch, schedule.n), lambda: state.order)
        position = place * schedule.batch + jnp.arange(schedule.batch)
        index = order[position % schedule.n]
        real = (position < schedule.n).astype(weight.dtype)
        return order, (x[index], y[index], weight[index] * real)

    def _gradient(self, state: State, hparams: Any, batch: tuple, key: Key) -> tuple[tuple, PyTree]:
        """Weighted mean loss, total weight, new statistics, and the gradient, over the batch's parts."""
        x, y, weight = batch
        # A stream's weights are of single precision; the sums over the parts are carried in that of the loss.
        floats = [a for a in (x, y, *jax.tree.leaves(state.params)) if jnp.issubdtype(a.dtype, jnp.floating)]
        weight = weight.astype(jnp.result_type(weight, *floats))
        if self.config.class_weights is not None:
            table = jnp.asarray(self.config.class_weights, weight.dtype)
            # A class without a weight must be seen, not given the last one's.
            weight = weight * table.at[y].get(mode="fill", fill_value=jnp.nan)
        total = jnp.maximum(jnp.sum(weight), jnp.finfo(weight.dtype).tiny)

        def part_loss(params: PyTree, stats: PyTree, part: tuple, key: Key) -> tuple[Array, PyTree]:
            x, y, weight = part
            prediction, stats = self.network.apply(params, stats, x, key=key, train=True)
            return jnp.sum(self.loss(prediction, y) * weight) / total, stats

        gradient = jax.value_and_grad(part_loss, has_aux=True)
        parts = self.config.accumulate
        if parts == 1:
            (loss, stats), grads = gradient(state.params, state.stats, (x, y, weight), key)
        else:
            split = jax.tree.map(lambda a: a.reshape(parts, -1, *a.shape[1:]), (x, y, weight))

            def add(carry: tuple, part: tuple) -> tuple[tuple, None]:
                loss, stats, grads, number = carry
                (more, stats), extra = gradient(state.params, stats, part, jax.random.fold_in(key, number))
                return (loss + more, stats, jax.tree.map(jnp.add, grads, extra), number + 1), None

            zero = (jnp.zeros_like(total), state.stats, jax.tree.map(jnp.zeros_like, state.params), 0)
            (loss, stats, grads, _), _ = jax.lax.scan(add, zero, split)
        if self.penalty is not None:
            cost, extra = jax.value_and_grad(self.penalty)(state.params, hparams)
            loss, grads = loss + cost, jax.tree.map(jnp.add, grads, extra)
        return (loss, total, stats), grads

    # Evaluation

    def _evaluated(self, data: Mapping[str, _Split]) -> dict[str, _Split]:
        """Those of the splits that are evaluated."""
        names = self.config.evaluate if self.config.evaluate is not None else data
        if missing := [name for name in names if name not in data]:
            raise ValueError(f"evaluate={self.config.evaluate} names {missing[0]!r}; the splits are {', '.join(data)}")
        return {name: data[name] for name in names}

    def _evaluate(self, state: State, data: Mapping[str, tuple]) -> State:
        scores: dict[str, Array] = {}
        for split, arrays in self._evaluated(data).items():
            values = self._metrics(state.params, state.stats, arrays)
            scores |= {f"{split}_{metric}": value for metric, value in values.items()}
        return self._recorded(state, scores)

    def _recorded(self, state: State, scores: dict[str, Array]) -> State:
        """The state after an evaluation with these scores, one for each split and metric."""
        scores = {"running_loss": state.seen[0] / state.seen[1], **scores}
        history: dict[str, Array] = {
            name: jnp.asarray(line).at[state.evaluation].set(scores[name].astype(line.dtype))
            for name, line in state.history.items()
        }
        state = state._replace(history=history, evaluation=state.evaluation + 1, seen=jnp.zeros_like(state.seen))
        if state.best is None or self.config.select is None:
            return state
        score = scores[self.config.select].astype(state.best.score.dtype)
        better = score < state.best.score
        now = Best(state.params, state.stats, score, state.step, jnp.zeros_like(state.step))
        old = state.best._replace(since=state.best.since + 1)
        return state._replace(best=jax.tree.map(lambda a, b: jnp.where(better, a, b), now, old))

    def _metrics(self, params: PyTree, stats: PyTree, arrays: tuple) -> dict[str, Array]:
        x, y, *weights = arrays
        weight = weights[0] * 1.0 if weights else jnp.ones(len(x))

        def sums(part: tuple) -> dict[str, Array]:
            return self._sums(params, stats, part)

        size = self.config.evaluation_batch
        if size is None or size >= len(x):
            totals = sums((x, y, weight))
        else:
            extra = jnp.zeros(-len(x) % size, weight.dtype)
            filled = jnp.concatenate([weight, extra]).reshape(-1, size)
            parts = (*in_batches((x, y), size), filled)
            totals = jax.tree.map(lambda a: jnp.sum(a, axis=0), jax.lax.map(sums, parts))
        return {name: total / jnp.sum(weight) for name, total in totals.items()}

    def _sums(self, params: PyTree, stats: PyTree, part: tuple) -> dict[str, Array]:
        """Every metric's weighted sum over x, y, weight."""
        x, y, weight = part
        prediction, _ = self.network.apply(params, stats, x, key=None, train=False)
        return {name: jnp.sum(metric(prediction, y) * weight) for name, metric in self.metrics.items()}


def make_train(
    network: Network,
    loss: PerExample,
    optimizer: Callable[[Any], optax.GradientTransformation],
    config: Config,
    *,
    metrics: Mapping[str, PerExample] | None = None,
    penalty: Callable[[PyTree, Any], Array] | None = None,
    augment: Augment | None = None,
) -> Train:
    """A training run as a pure function of key, hyper-parameters and data.

    Args:
      network: pure ``init`` and ``apply``; see `nnjax.models.network`.
      loss: per example, ``(prediction, target) -> (n,)``; its weighted mean is minimised.
      optimizer: ``hparams -> optax.GradientTransformation``, e.g. ``lambda h: optax.adam(h["learning_rate"])``;
        hyper-parameters may be traced. Rules that take more get the loss as ``value``, and what was evaluated so far
        as ``history`` and ``evaluation``, as in `State` (see `nnjax.schedules.plateau`).
      config: what is static.
      metrics: per-example functions averaged over every split at each evaluation; default ``{"loss": loss}``.
      penalty: ``(params, hparams) -> ()`` added to the loss.
      augment: ``(key, x, hparams) -> x``, a random change of the examples of every update, inside the compiled step and
        never in evaluation; see `nnjax.data.augment`.

    Example:
      >>> train = make_train(network, cross_entropy, lambda h: optax.adam(h["lr"]), Config(epochs=10, batch_size=32))
      >>> result = jax.jit(train)(jax.random.key(0), {"lr": 1e-3}, {"train": (x, y), "test": (x_test, y_test)})
      >>> result.history["test_loss"]  # (10,)
    """
    return Train(network, loss, optimizer, config, dict(metrics or {"loss": loss}), penalty, augment)


def order_key(key: Key) -> Key:
    """The key that decides in what order a run begun with ``key`` sees its examples.

    Given as the seed of a `nnjax.data.stream`, `fit_stream` shows the pictures in the order in which `fit` would.
    """
    return jax.random.fold_in(jax.random.split(key)[1], 1)


def predict(network: Network, params: PyTree, stats: PyTree, x: Array, *, batch_size: int = 256) -> Array:
    """Outputs for x (n, ...) in batches of bounded memory: (n, ...). Works under jit."""
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be a positive integer")
    if len(x) == 0:
        raise ValueError("x has no examples")

    def apply(part: Array) -> Array:
        return network.apply(params, stats, part, key=None, train=False)[0]

    if len(x) <= batch_size:
        return apply(jnp.asarray(x))
    outputs = jax.lax.map(apply, in_batches(jnp.asarray(x), batch_size))
    return outputs.reshape(-1, *outputs.shape[2:])[: len(x)]


def balanced_class_weights(y: Array, classes: int) -> tuple[float, ...]:
    """Weights n / (classes * count) that make every class count the same; 0 for a class without examples.

    Raises:
      ValueError: a label in y (n,) that is no whole number from 0 to classes - 1.
    """
    counts = np.bincount(check_labels(y, classes), minlength=classes)
    return tuple(float(len(y) / (classes * c)) if c else 0.0 for c in counts)
