"""Environments of Gymnasium as tasks: the Box2D walker and the racer, or any other with a box of actions.

They are Python and native code, so they step in worker processes on the host, many episodes each, while the policy of
all lanes is one program in JAX. A lane is one episode: individual x weight x repetition in a search. Needs the extra
``rl``: ``pip install 'nnjax[rl]'``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnjax.types import Array, Key
from nnjax.wann.edges import EdgeGenome
from nnjax.wann.genome import NAMES, Genome, Space, check
from nnjax.wann.phenotype import Programs, programs, run_instruction, shortened
from nnjax.wann.tasks.lanes import LanePolicy, Policy, checked_seeds, converse, of_all_lanes, opened
from nnjax.wann.tasks.latents import PIXELS, Latents, load_latents, principal_components
from nnjax.wann.tasks.workers import Recording, Workers, need_packages

WINDOW = 256
"""Episodes that a worker has at a time, with those just ended 200 MB of walkers; `IMAGE_WINDOW` with images."""

IMAGE_WINDOW = 16
"""Episodes with images that a worker has at a time."""

Bounds = tuple[tuple[float, float], ...]


class Episodes(NamedTuple):
    """What lanes earned.

    Attributes:
      returns: (lanes,) float64, sums of rewards; NaN where an output was NaN.
      steps: (lanes,) int64, steps until the end.
    """

    returns: np.ndarray
    steps: np.ndarray


@dataclasses.dataclass(frozen=True)
class GymTask:
    """An environment of Gymnasium whose actions are a box of numbers.

    Attributes:
      environment: its name for ``gymnasium.make``, with ``module:`` before it if that has to be imported.
      inputs: numbers in an observation, (inputs,).
      outputs: numbers in an action, (outputs,).
      steps: most steps of an episode.
      clip: range, for each output, that outputs of a net are clipped to.
      actions: range of each action that ``clip`` is then mapped to, linearly; by default the same.
      penalty: False takes away the walker's reward of -100 for falling, in whose place its last step earns what any
        other does, as in the search of Gaier and Ha (2019); True is the official reward. Other environments: True only.
      image: observations are the racer's frames, of which the net sees latents (or, without ``latents``, the pixels).
      latents: file of `save_latents` with the encoder of the images. Checkpoints of a search belong to what it holds,
        wherever it lies.
      options: further arguments of ``gymnasium.make``, pairs of name and value.
      activations: by default, what hidden nodes may have.

    Raises:
      ValueError: a size below 1, a range that is none, or an option that does not fit the environment.
    """

    host: ClassVar[bool] = True
    params: ClassVar[tuple] = ()
    environment: str
    inputs: int
    outputs: int
    steps: int
    clip: Bounds
    actions: Bounds | None = None
    penalty: bool = True
    image: bool = False
    latents: str | None = dataclasses.field(default=None, metadata={"read": load_latents})
    options: tuple[tuple[str, Any], ...] = ()
    activations: tuple[str, ...] = NAMES

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs", "steps"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number, at least 1")
        for name in ("clip", "actions"):
            value = getattr(self, name)
            if value is not None and (
                np.shape(value) != (self.outputs, 2) or not all(np.isfinite(v).all() and v[0] < v[1] for v in value)
            ):
                raise ValueError(f"{name}={value!r} must be {self.outputs} pairs (low, high) of numbers, one an output")
        if not self.penalty and not self.environment.startswith("BipedalWalker"):
            raise ValueError(f"penalty=False is for the BipedalWalker, not for {self.environment}")
        if self.latents and not self.image:
            raise ValueError(f"latents={self.latents!r} are of images; set image=True")

    def squash(self, outputs: ArrayLike) -> np.ndarray:
        """Actions for the raw outputs of nets, (..., outputs), both float32; NaN stays NaN."""
        low, high = np.asarray(self.clip, np.float32).T
        actions = np.clip(np.asarray(outputs, np.float32), low, high)
        if self.actions is None or self.actions == self.clip:
            return actions
        first, last = np.asarray(self.actions, np.float32).T
        return np.clip(first + (actions - low) * ((last - first) / (high - low)), first, last)

    def evaluate_lanes(
        self, policy: Policy, seeds: ArrayLike, *, workers: int | Workers | None = None, window: int | None = None
    ) -> Episodes:
        """One episode a lane, lane l in an environment with the seed seeds[l].

        A plain function is called with the observations of all lanes, (lanes, inputs) float32, and gives their raw
        outputs, (lanes, outputs). A lane that is not at it (done, or not yet started) has stale numbers there, and what
        the function says of it is not used. A `LanePolicy` is called with the lanes alone that are at it: each worker
        asks for its own, up to ``window`` of them, full until no lane is left to start; then its batch shrinks in four
        sizes (1, 1/2, 1/4 and 1/8 of the window), filled up with lane 0, so that a jitted policy compiles four times at
        most. While the policy works for one worker the others step.

        The same seeds and policy give the same returns with any number of workers and any window, as far as what the
        policy says of a lane does not depend, by rounding, on the size of its batch. With the same number and window
        they are the same to the bit.

        Args:
          policy: see above.
          seeds: (lanes,) whole numbers, 0 to 2^32 - 1.
          workers: number of processes, started and ended by this call, by default one a core; or open `Workers`.
          window: lanes that a worker has at a time, at least one group; by default `WINDOW` or `IMAGE_WINDOW`.

        Returns:
          `Episodes`.

        Raises:
          ValueError: seeds, a window, workers or outputs of the policy that are wrong, or a task that does not fit its
            environment or lacks its file of latents.
          ImportError: gymnasium or Box2D is not installed.
          RuntimeError: the environment failed, or a worker died; the sentence says where.
        """
        seeds = checked_seeds(seeds)
        window = _checked_window(self, window)
        self._check_ready()
        lanes = policy if isinstance(policy, LanePolicy) else of_all_lanes(policy, len(seeds), self)
        if len(seeds) % lanes.group:
            raise ValueError(f"{len(seeds)} seeds cannot be split into groups of {lanes.group} lanes")
        groups = seeds.reshape(-1, lanes.group)
        found = Episodes(np.zeros(groups.shape), np.zeros(groups.shape, np.int64))
        with opened(workers, len(groups)) as (pool, count):
            mine = [np.arange(worker, len(groups), count) for worker in range(count)]
            for worker, rows in enumerate(mine):
                pool.send(worker, "play", self, groups[rows], window)
            for worker, (returns, steps) in converse(pool, count, self, lanes, mine, window):
                found.returns[mine[worker]], found.steps[mine[worker]] = returns, steps
        return Episodes(found.returns.ravel(), found.steps.ravel())

    def record(self, policy: Policy, seed: int, *, every: int = 4, workers: Workers | None = None) -> Recording:
        """One episode with its pictures, for an animation.

        Args:
          policy: as for `evaluate_lanes`, of a single lane.
          seed: of the environment.
          every: a picture before each so many steps (walker and racer make 50 steps a second); one of the walker takes
            0.7 MB.
          workers: open `Workers`, of which one is used; by default one is started and ended.

        Returns:
          A `Recording`.

        Raises:
          As `evaluate_lanes`.
        """
        seeds = checked_seeds(np.asarray([seed]))
        if not isinstance(every, int | np.integer) or every < 1:
            raise ValueError(f"every={every!r} must be a whole number, at least 1")
        self._check_ready("pygame")
        lanes = policy if isinstance(policy, LanePolicy) else of_all_lanes(policy, 1, self)
        if lanes.group != 1:
            raise ValueError(
                f"a policy with groups of {lanes.group} lanes cannot be recorded; record takes a single lane"
            )
        with opened(1 if workers is None else workers, 1) as (pool, _):
            pool.send(0, "record", self, int(seeds[0]), int(every))
            ((_, recording),) = converse(pool, 1, self, lanes, [np.zeros(1, np.int64)], 1)
        return recording

    def _check_ready(self, *more: str) -> None:
        box2d = ("Box2D",) if self.environment.startswith(("BipedalWalker", "CarRacing", "LunarLander")) else ()
        need_packages(self.environment, ("gymnasium", *box2d, *(("pygame",) if self.image else ()), *more))
        if self.latents:
            count = len(load_latents(self.latents).explained)
            if count != self.inputs:
                raise ValueError(f"latents={self.latents!r} gives {count} numbers an image, not inputs={self.inputs}")
        elif self.image and self.inputs != PIXELS:
            raise ValueError(
                f"{self.environment} with {self.inputs} latents needs latents='FILE', an encoder that "
                "nnjax.wann.tasks.gym.fit_latents makes and save_latents writes"
            )


def biped(*, hardcore: bool = False, penalty: bool = False, steps: int = 1600) -> GymTask:
    """The walker of Box2D, BipedalWalker-v3: 24 inputs, four torques, clipped to +-1 as in Gaier and Ha (2019).

    Args:
      hardcore: with stumps, stairs and pits.
      penalty: as in `GymTask`; the search goes without, official returns are with it.
      steps: most steps of an episode.
    """
    options = (("hardcore", True),) if hardcore else ()
    return GymTask("BipedalWalker-v3", 24, 4, steps, ((-1.0, 1.0),) * 4, penalty=penalty, options=options)


def racer(*, latents: str | None = None, inputs: int = 16, steps: int = 1000) -> GymTask:
    """The racer of Box2D, CarRacing-v3: latents of its image, three actions.

    The outputs are steering, clipped to +-1, gas, clipped to +-1 and mapped to [0, 1], and brake, clipped to [0, 1],
    as in Gaier and Ha (2019). Their latents are means of a variational autoencoder trained on 64 x 64 images. Here they
    are principal components of such images, scaled to variance 1 (`fit_latents`): linear, and fitted in a minute.

    Args:
      latents: file of the encoder, from `save_latents`; needed before the first episode.
      inputs: how many latents it gives.
      steps: most steps of an episode.
    """
    clip = ((-1.0, 1.0), (-1.0, 1.0), (0.0, 1.0))
    actions = ((-1.0, 1.0), (0.0, 1.0), (0.0, 1.0))
    return GymTask("CarRacing-v3", inputs, 3, steps, clip, actions, image=True, latents=latents)


def fit_latents(
    key: Key,
    *,
    components: int = 16,
    episodes: int = 16,
    steps: int = 200,
    every: int = 4,
    hold: int = 10,
    workers: int | Workers | None = None,
) -> Latents:
    """An encoder for `racer`: principal components of what a random driver sees.

    The driver holds each random action for ``hold`` steps: steering uniform in +-1, gas in [0, 1], the brake untouched.

    Args:
      key: draws tracks and actions.
      components: number of latents.
      episodes: tracks, each with a driver of its own.
      steps: most steps on each.
      every: one image of so many steps is taken.
      hold: steps for which an action is held.
      workers: as for `GymTask.evaluate_lanes`.

    Raises:
      ValueError: too few images for so many components; else as `GymTask.evaluate_lanes`.
    """
    task = dataclasses.replace(racer(steps=steps), inputs=PIXELS)
    of_tracks, of_drivers = jax.random.split(key)
    shape = (episodes, -(-steps // hold), 3)
    drawn = np.array(jax.random.uniform(of_drivers, shape, minval=-1, maxval=1))
    drawn[..., 2] = 0
    images: dict[tuple[int, int], np.ndarray] = {}
    ages = np.zeros(episodes, np.int64)

    def drive(observations: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        here = dict(zip(lanes.tolist(), observations, strict=True))  # a lane that fills up a batch is there twice
        for lane, seen in here.items():
            if ages[lane] % every == 0:
                images[lane, int(ages[lane])] = seen
        actions = drawn[lanes, ages[lanes] // hold]
        ages[list(here)] += 1
        return actions

    task.evaluate_lanes(LanePolicy(drive), environment_seeds(of_tracks, episodes), workers=workers)
    return principal_components(np.stack([images[at] for at in sorted(images)]), components)


def environment_seeds(key: Key, count: int) -> np.ndarray:
    """Seeds for ``count`` environments, (count,) int64 below 2^31: seed r is drawn from split(key, count)[r]."""
    drawn = jax.vmap(lambda key: jax.random.bits(key, (), jnp.uint32))(jax.random.split(key, count))
    return np.asarray(drawn).astype(np.int64) >> 1


def policy_of(population: Genome, space: Space, shared_weights: ArrayLike, repetitions: int = 1) -> LanePolicy:
    """All nets of a population under all weights: lane (individual x W + weight) x repetitions + repetition.

    Args:
      population: genomes with one leading axis.
      space: their sizes and activations.
      shared_weights: (W,).
      repetitions: lanes for each individual and weight.

    Returns:
      A `LanePolicy` whose groups are the individuals.
    """
    weights = jnp.atleast_1d(jnp.asarray(shared_weights, jnp.float32))

    prepared = shortened(_programs(population, space), space)

    def call(observations: np.ndarray, individuals: np.ndarray) -> Array:
        return _outputs(prepared, weights, jnp.asarray(observations), jnp.asarray(individuals), space)

    return LanePolicy(call, group=len(weights) * repetitions)


_programs = jax.jit(programs, static_argnames="space")


@functools.partial(jax.jit, static_argnames="space")
def _outputs(prepared: Programs, weights: Array, x: Array, individuals: Array, space: Space) -> Array:
    nets = jax.tree.map(lambda leaf: leaf[..., individuals], prepared)
    x = x.reshape(len(individuals), -1, space.inputs)
    lanes = x.shape[1]
    values = jnp.zeros((2 + space.inputs + len(nets.codes), len(individuals), lanes), x.dtype)
    values = values.at[0].set(1).at[1 : 1 + space.inputs].set(x.transpose(2, 0, 1))
    scale = jnp.repeat(weights, lanes // len(weights))[None]
    values = jax.lax.fori_loop(
        0, nets.length.max(), lambda t, values: run_instruction(t, values, nets, scale, space), values
    )
    return values[nets.outputs, jnp.arange(len(individuals))[None]].transpose(1, 2, 0).reshape(-1, space.outputs)


def evaluate_host(
    population: Any,
    space: Space,
    task: GymTask,
    shared_weights: ArrayLike,
    key: Key,
    *,
    repetitions: int = 1,
    workers: int | Workers | None = None,
    window: int | None = None,
    policy_of: Callable[..., LanePolicy] = policy_of,
) -> Array:
    """Mean return of every individual under every weight.

    Args:
      population: genomes with one leading axis, P.
      space: their sizes and activations.
      task: what they do.
      shared_weights: (W,).
      key: gives one seed a repetition, which all individuals and weights share.
      repetitions: episodes for each individual and weight.
      workers: as for `GymTask.evaluate_lanes`; open `Workers` spare the start of processes in each generation.
      window: as for `GymTask.evaluate_lanes`.
      policy_of: makes the policy of (population, space, shared_weights, repetitions); its groups are the individuals.

    Returns:
      (P, W) float32; NaN where an output was NaN.

    Raises:
      ValueError: a space of other sizes than the task, or nets of another space; else as `GymTask.evaluate_lanes`.
    """
    if (space.inputs, space.outputs) != (task.inputs, task.outputs):
        raise ValueError(
            f"the space has {space.inputs} inputs and {space.outputs} outputs; {task.environment} has {task.inputs} "
            f"and {task.outputs}"
        )
    if isinstance(population, Genome | EdgeGenome):  # a ``policy_of`` of one's own may take something else
        check(population, space)
    return play_population(population, space, task, shared_weights, key, repetitions=repetitions, workers=workers,
                           window=window, policy_of=policy_of)[0]  # fmt: skip


def play_population(
    population: Any, space: Space, task: GymTask, shared_weights: ArrayLike, key: Key, *, repetitions: int,
    workers: int | Workers | None, window: int | None = None, policy_of: Callable[..., LanePolicy] = policy_of,
) -> tuple[Array, int]:  # fmt: skip
    """What `evaluate_host` returns, and the number of steps that all environments made."""
    weights = np.atleast_1d(np.asarray(shared_weights, np.float32))
    individuals = jax.tree.leaves(population)[0].shape[0]
    seeds = np.tile(environment_seeds(key, repetitions), individuals * len(weights))
    policy = policy_of(population, space, weights, repetitions)
    found = task.evaluate_lanes(policy, seeds, workers=workers, window=window)
    returns = found.returns.reshape(individuals, len(weights), repetitions).mean(-1)
    return jnp.asarray(returns, jnp.float32), int(found.steps.sum())


def _checked_window(task: GymTask, window: int | None) -> int:
    window = (IMAGE_WINDOW if task.image else WINDOW) if window is None else window
    if not isinstance(window, int | np.integer) or isinstance(window, bool) or window < 1:
        raise ValueError(f"window={window!r} must be a whole number, at least 1")
    return int(window)
