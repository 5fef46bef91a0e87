"""Processes that step Python environments, and the episodes that they play; for tasks of the kind "host".

What a worker runs needs NumPy and Gymnasium alone. Nothing of an environment is loaded into the calling process, so
that a fault in native code ends a worker and not the search.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import numpy as np

from nnjax.wann.tasks.latents import image, load_latents

Play = Generator[tuple[np.ndarray, np.ndarray], np.ndarray, Any]
"""Yields groups (g,) and observations (g x group, inputs), takes outputs (g x group, outputs), returns a result."""


class MissingPackage(ImportError, ValueError):
    """An environment's package is not installed. A ValueError too: asking for such a task is a mistake of input."""


class Refused(ValueError):
    """A task that does not fit its environment."""


class Recording(NamedTuple):
    """One episode of T steps.

    Attributes:
      frames: (ceil(T / every), height, width, 3) uint8, pictures from before the steps 0, every, 2 every, ...
      observations: (T, inputs) float32, what the policy saw before each step.
      actions: (T, outputs) float32, as the environment got them.
      rewards: (T,) float64.
    """

    frames: np.ndarray
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray


def need_packages(name: str, packages: Sequence[str]) -> None:
    """Make sure that packages can be imported, without importing them.

    Raises:
      MissingPackage: one cannot; the sentence says what to install.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingPackage(f"{name} needs the package {package}: pip install 'nnjax[rl]'", name=package)


class Episode:
    """One episode in an environment of its own.

    An environment that is reset keeps a trace of the episode before (the order of bodies in Box2D's world), enough to
    let the same seed end in another return. Hence a fresh one for each; that costs little beside its first reset.
    """

    def __init__(self, task: Any, seed: int, encode: Any = None, *, render: bool = False) -> None:
        self.task, self.seed, self.encode = task, seed, encode
        self.total, self.steps, self.done = 0.0, 0, False
        self.environment = _make(task, render)
        observation, _ = self._call("reset", seed=seed)
        self.observation = self._observe(observation)

    def step(self, action: np.ndarray) -> float:
        """One step with an action (outputs,) of the environment's own range; returns its reward."""
        self.steps += 1
        if np.isnan(action).any():  # native code may abort on it
            reward, self.done = float("nan"), True
        else:
            shaping = getattr(self.environment, "prev_shaping", 0.0)
            observation, reward, terminated, truncated, _ = self._call("step", action)
            if terminated and not self.task.penalty and reward == -100:
                reward = self._without_penalty(action, shaping)
            self.observation = self._observe(observation)
            self.done = bool(terminated or truncated or self.steps == self.task.steps)
        self.total += float(reward)
        if self.done and not self.environment.render_mode:
            self.environment.close()
        return float(reward)

    def _without_penalty(self, action: np.ndarray, shaping: float) -> float:
        """Progress less torque, as any step of the walker earns; in the last one the penalty stands in its place."""
        torque = sys.modules[type(self.environment).__module__].MOTORS_TORQUE
        return self.environment.prev_shaping - shaping - 0.00035 * torque * np.clip(np.abs(action), 0, 1).sum()

    def _observe(self, observation: np.ndarray) -> np.ndarray:
        if self.task.image:
            observation = image(observation)
            observation = observation if self.encode is None else self.encode(observation)
        flat = np.asarray(observation, np.float32).ravel()
        if flat.size != self.task.inputs:
            raise Refused(f"inputs={self.task.inputs}, but an observation of {self.task.environment} has {flat.size}")
        return flat

    def _call(self, method: str, *values: Any, **named: Any) -> Any:
        try:
            return getattr(self.environment, method)(*values, **named)
        except Exception as error:
            where = f"{self.task.environment}, seed {self.seed}, " + (f"step {self.steps}" if self.steps else "reset")
            raise RuntimeError(f"{where}: {type(error).__name__}: {error}") from error


def _make(task: Any, render: bool) -> Any:
    # Box2D's binding warns when it is first imported and crashes the interpreter where that warning is an error.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import gymnasium

        named = {**dict(task.options), **({"render_mode": "rgb_array"} if render else {})}
        try:
            made = gymnasium.make(task.environment, disable_env_checker=True, **named)
        except Exception as error:
            raise Refused(
                f"environment={task.environment!r} cannot be made: {type(error).__name__}: {error}"
            ) from error
    made = made.unwrapped  # the step limit is ours, and the wrappers take time
    shape = getattr(made.action_space, "shape", None)
    if not isinstance(made.action_space, gymnasium.spaces.Box) or shape != (task.outputs,):
        raise Refused(f"outputs={task.outputs}, but the action space of {task.environment} is {made.action_space}")
    return made


def play(task: Any, seeds: np.ndarray, window: int) -> Play:
    """Episodes of every lane, as many groups of lanes at a time as ``window`` lanes hold, at least one.

    Args:
      task: a `GymTask`.
      seeds: (groups, group) of the environments.
      window: lanes at a time.

    Returns:
      Returns and steps, both of the shape of ``seeds``. Lanes that are done have observations of zeros until the last
      one of their group is; then the next group takes the place.
    """
    encode = load_latents(task.latents).encode if task.latents else None
    returns, steps = np.zeros(seeds.shape), np.zeros(seeds.shape, np.int64)
    ahead, ended = iter(range(len(seeds))), 0
    running: dict[int, list[Episode | None]] = {}
    while True:
        running = {at: lanes for at, lanes in running.items() if any(lanes)}
        while len(running) < max(1, window // seeds.shape[1]) and (new := next(ahead, None)) is not None:
            running[new] = [Episode(task, int(seed), encode) for seed in seeds[new]]
        if not running:
            return returns, steps
        observations = np.zeros((len(running), seeds.shape[1], task.inputs), np.float32)
        for lanes, row in zip(running.values(), observations, strict=True):
            for lane, episode in enumerate(lanes):
                if episode:
                    row[lane] = episode.observation
        outputs = yield np.fromiter(running, np.int64), observations.reshape(-1, task.inputs)
        actions = task.squash(outputs).reshape(*observations.shape[:2], -1)
        for (at, lanes), row in zip(running.items(), actions, strict=True):
            for lane, episode in enumerate(lanes):
                if episode:
                    episode.step(row[lane])
                    if episode.done:
                        returns[at, lane], steps[at, lane] = episode.total, episode.steps
                        lanes[lane], ended = None, ended + 1
        if ended >= window:  # environments are cycles of references
            gc.collect()
            ended = 0


def record(task: Any, seed: int, every: int) -> Play:
    """One episode with pictures from before every ``every``-th step, as a `Recording`."""
    encode = load_latents(task.latents).encode if task.latents else None
    episode = Episode(task, seed, encode, render=True)
    frames, observations, actions, rewards = [], [], [], []
    while not episode.done:
        if episode.steps % every == 0:
            frames.append(episode.environment.render())
        observations.append(episode.observation)
        outputs = yield np.zeros(1, np.int64), episode.observation[None]
        actions.append(task.squash(outputs)[0])
        rewards.append(episode.step(actions[-1]))
    episode.environment.close()
    return Recording(np.stack(frames), np.stack(observations), np.stack(actions), np.asarray(rewards))


PLAYS: dict[str, Callable[..., Play]] = {"play": play, "record": record}


def _answer(plays: list[Play], kind: str, *content: Any) -> tuple:
    """One message answered: ("observe", groups, observations), ("end", result) or ("error", refused, sentence)."""
    try:
        if kind in PLAYS:
            plays[:] = [PLAYS[kind](*content)]
            return "observe", *next(plays[0])
        return "observe", *plays[0].send(*content)
    except StopIteration as end:
        return "end", end.value
    except Exception as error:
        ours = isinstance(error, (Refused, RuntimeError))
        return "error", isinstance(error, ValueError), str(error) if ours else f"{type(error).__name__}: {error}"


def _serve(connection: Connection) -> None:
    """What a worker does until the other end is closed; an error is an answer, and the worker stays."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the calling process, which then closes us
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    from threadpoolctl import threadpool_limits

    plays: list[Play] = []
    gc.disable()  # it takes a sixth of the time, going through thousands of bodies; `play` collects now and then
    with threadpool_limits(1):
        try:
            while True:
                connection.send(_answer(plays, *connection.recv()))
        except (EOFError, OSError):
            return


def _shut(connections: list[Connection], processes: list[BaseProcess]) -> None:
    for connection in connections:
        connection.close()
    for process in processes:
        process.join(2)  # it notices at the end of its step
        if process.is_alive():
            process.terminate()
            process.join(2)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()


class Workers:
    """Processes for environments, open until closed: ``with Workers(2) as workers: ...``; any task, one call at a time.

    They are started by "spawn", so a script that uses them must guard its start by ``if __name__ == "__main__":``. They
    end with the context, also after an error or Ctrl-C, and with the calling process however that ends.

    Args:
      count: how many; by default as many as this process may use cores.

    Raises:
      ValueError: a count that is no positive whole number.
    """

    def __init__(self, count: int | None = None) -> None:
        count = worker_count(count)
        self.connections: list[Connection] = []
        self.processes: list[BaseProcess] = []
        self._owing: set[int] = set()
        self._close = weakref.finalize(self, _shut, self.connections, self.processes)
        try:
            with _interrupts_ignored():
                for number in range(count):
                    self._start(number)
        except BaseException:
            self.close()
            raise

    def _start(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self.connections.append(ours)
        process = context.Process(target=_serve, args=(theirs,), name=f"environments {number}", daemon=True)
        process.start()
        self.processes.append(process)
        theirs.close()

    def __len__(self) -> int:
        return len(self.processes)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes and wait for them; a second time it does nothing."""
        self._close()

    def send(self, worker: int, *message: Any) -> None:
        """Hand a worker its next message.

        Raises:
          RuntimeError: the workers are closed, or this one has died.
        """
        if not self._close.alive:
            raise RuntimeError("the workers are closed")
        while worker in self._owing:  # an answer that nobody waited for, the call before having ended in an error
            self.receive(worker)
        try:
            self.connections[worker].send(message)
        except OSError:
            raise self._died(worker) from None
        self._owing.add(worker)

    def receive(self, worker: int) -> tuple:
        """A worker's answer.

        Raises:
          RuntimeError: it has died; all are closed then.
        """
        try:
            answer = self.connections[worker].recv()
        except (EOFError, OSError):
            raise self._died(worker) from None
        self._owing.discard(worker)
        return answer

    def ready(self, workers: Sequence[int]) -> list[int]:
        """Those of some workers that have answered; waits for the first."""
        by_connection = {self.connections[worker]: worker for worker in workers}
        return sorted(by_connection[found] for found in multiprocessing.connection.wait(list(by_connection)))  # type: ignore[index]

    def _died(self, worker: int) -> RuntimeError:
        self.processes[worker].join(1)
        code = self.processes[worker].exitcode
        self.close()
        hint = "; a script that uses workers must start under if __name__ == '__main__':" if code == 1 else ""
        return RuntimeError(f"worker {worker} for environments ended unexpectedly with exit code {code}{hint}")


def worker_count(count: int | None) -> int:
    """A number of workers; None: as many as this process may use cores.

    Raises:
      ValueError: it is no positive whole number.
    """
    if count is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 1:
        raise ValueError(f"workers={count!r} must be a whole number, at least 1")
    return int(count)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Children started meanwhile inherit that Ctrl-C is not for them; only the main thread can see to that."""
    before = signal.getsignal(signal.SIGINT)
    if before is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
