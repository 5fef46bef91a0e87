"""Pendulum swing-up by a torque at its hinge too weak to lift it: the equations of Gymnasium's Pendulum-v1."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from nnjax.types import Array, Key
from nnjax.wann.tasks.task import like
from nnjax.wann.tasks.trigonometry import sin_cos


class Params(NamedTuple):
    """Constants in SI units; numbers or traced.

    Attributes:
      gravity: m/s^2.
      mass: kg.
      length: m.
      dt: length of a step, s.
      max_speed: rad/s.
      max_torque: N m.
    """

    gravity: ArrayLike = 10.0
    mass: ArrayLike = 1.0
    length: ArrayLike = 1.0
    dt: ArrayLike = 0.05
    max_speed: ArrayLike = 8.0
    max_torque: ArrayLike = 2.0


PARAMS = Params()
"""The constants of Gymnasium."""


class State(NamedTuple):
    """An episode; all (): angle, 0 upright, rad, not wrapped; rad/s; cosine and sine of the angle."""

    theta: Array
    theta_dot: Array
    cos: Array
    sin: Array


@dataclasses.dataclass(frozen=True)
class Pendulum:
    """A rod swings up and stays there: Pendulum-v1 of Gymnasium (Towers et al., 2024).

    With u the output clipped to +-max_torque,

        theta'' = 3 g/(2 l) sin theta + 3 u/(m l^2),

    the velocity moves first and is clipped to +-max_speed, the angle moves with the new one. The reward of a step is
    -(theta^2 + theta'^2/10 + u^2/1000) of the state it starts from, theta within half a turn: at most 0, at least
    -16.28. Episodes end after ``steps`` steps only. Inputs are cos theta, sin theta, theta'.

    Attributes:
      steps: steps of an episode.
      params: a `Params`.
    """

    steps: int = 200
    params: Params = PARAMS

    inputs: ClassVar[int] = 3
    outputs: ClassVar[int] = 1

    def reset(self, params: Params, key: Key) -> State:
        """Any angle, and a velocity within 1 rad/s, uniform."""
        dtype = jnp.result_type(float, *params)
        draws = jax.random.uniform(key, (2,), dtype, -1, 1)
        theta = jnp.asarray(jnp.pi, dtype) * draws[0]
        sin, cos = sin_cos(theta)
        return State(theta, draws[1], cos, sin)

    def observe(self, params: Params, state: State) -> Array:
        """cos theta, sin theta, theta': (3,)."""
        del params
        return jnp.stack([state.cos, state.sin, state.theta_dot])

    def step(self, params: Params, state: State, action: Array) -> tuple[State, Array, Array]:
        """One step of ``dt``; action (1,). Returns the state, the reward and False: it is never done."""
        theta, theta_dot, _, s = state
        p = like(params, theta)
        torque = jnp.clip(action[0].astype(theta.dtype), -p.max_torque, p.max_torque)
        angle = theta - 2 * jnp.pi * jnp.round(theta * (0.5 / jnp.pi))
        reward = -(angle * angle + 0.1 * theta_dot * theta_dot + 0.001 * torque * torque)
        turn = 1.5 * p.gravity / p.length * s + 3 / (p.mass * p.length**2) * torque
        theta_dot = jnp.clip(theta_dot + p.dt * turn, -p.max_speed, p.max_speed)
        theta = theta + p.dt * theta_dot
        s, c = sin_cos(theta)
        return State(theta, theta_dot, c, s), reward, jnp.zeros_like(theta, bool)
