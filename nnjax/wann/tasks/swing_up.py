"""Cart-pole swing-up: a cart on a rail swings a hanging pole up and balances it (Gaier and Ha, 2019)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from nnjax.types import Array, Key
from nnjax.wann.tasks.task import like
from nnjax.wann.tasks.trigonometry import cos_pi, sin_cos


class Params(NamedTuple):
    """Constants in SI units; numbers or traced.

    Attributes:
      gravity: m/s^2.
      cart_mass: kg.
      pole_mass: kg.
      pole_length: m.
      friction: of the cart on the rail, kg/s.
      force: at an action of 1, N.
      dt: length of a step, s.
      limit: half the length of the rail, m.
      deviation: standard deviation of each number of the start, m, m/s, rad, rad/s.
    """

    gravity: ArrayLike = 9.82
    cart_mass: ArrayLike = 0.5
    pole_mass: ArrayLike = 0.5
    pole_length: ArrayLike = 0.6
    friction: ArrayLike = 0.1
    force: ArrayLike = 10.0
    dt: ArrayLike = 0.01
    limit: ArrayLike = 2.4
    deviation: ArrayLike = 0.2


PARAMS = Params()
"""The constants of Gaier and Ha (2019)."""


class State(NamedTuple):
    """An episode; all ().

    Attributes:
      x: place of the cart, 0 in the middle, m.
      x_dot: m/s.
      theta: angle of the pole, 0 upright, pi hanging, rad; not wrapped.
      theta_dot: rad/s.
      cos, sin: of theta. They are here because reward, observation and next step want them, and they cost the most.
    """

    x: Array
    x_dot: Array
    theta: Array
    theta_dot: Array
    cos: Array
    sin: Array


@dataclasses.dataclass(frozen=True)
class SwingUp:
    """Cart-pole swing-up with the constants and equations of Gaier and Ha (2019).

    With M the mass of cart and pole, m and l those of the pole, b the friction, u the force and s, c = sin, cos theta,

        x''     = (-2 m l theta'^2 s + 3 m g s c + 4 u - 4 b x') / (4 M - 3 m c^2)
        theta'' = (-3 m l theta'^2 s c + 6 M g s + 6 (u - b x') c) / (4 l M - 3 m l c^2)

    by explicit Euler: places move with the velocities from before the step. The reward of a step is that of the state
    it leads to, (1 + cos theta)/2 cos(pi x/(2 limit)), at most 1; the episode is done where |x| > limit.
    Inputs are x, x', cos theta, sin theta, theta'; the output, clipped to [-1, 1], is the force in units of ``force``.

    Attributes:
      steps: most steps of an episode.
      params: a `Params`.
    """

    steps: int = 1000
    params: Params = PARAMS

    inputs: ClassVar[int] = 5
    outputs: ClassVar[int] = 1

    def reset(self, params: Params, key: Key) -> State:
        """At rest in the middle, the pole hanging, each of the four off by N(0, deviation^2)."""
        dtype = jnp.result_type(float, *params)
        draws = jnp.asarray(params.deviation, dtype) * jax.random.normal(key, (4,), dtype)
        theta = draws[2] + jnp.asarray(jnp.pi, dtype)
        sin, cos = sin_cos(theta)
        return State(draws[0], draws[1], theta, draws[3], cos, sin)

    def observe(self, params: Params, state: State) -> Array:
        """x, x', cos theta, sin theta, theta': (5,)."""
        del params
        return jnp.stack([state.x, state.x_dot, state.cos, state.sin, state.theta_dot])

    def step(self, params: Params, state: State, action: Array) -> tuple[State, Array, Array]:
        """One step of ``dt``; action (1,). Returns the state, its reward and whether it is off the rail."""
        x, x_dot, theta, theta_dot, c, s = state
        p = like(params, x)
        m, total, length = p.pole_mass, p.cart_mass + p.pole_mass, p.pole_length
        force = p.force * jnp.clip(action[0].astype(x.dtype), -1, 1)
        push = force - p.friction * x_dot
        swing = m * length * theta_dot * theta_dot * s
        share = 1 / (4 * total - 3 * m * c * c)
        x_acceleration = (3 * m * p.gravity * s * c - 2 * swing + 4 * push) * share
        turn = (6 * total * p.gravity * s - 3 * swing * c + 6 * push * c) * share * (1 / length)
        x, theta = x + p.dt * x_dot, theta + p.dt * theta_dot
        x_dot, theta_dot = x_dot + p.dt * x_acceleration, theta_dot + p.dt * turn
        s, c = sin_cos(theta)
        reward = (0.5 + 0.5 * c) * cos_pi(x * (0.5 / p.limit))
        return State(x, x_dot, theta, theta_dot, c, s), reward, jnp.abs(x) > p.limit
