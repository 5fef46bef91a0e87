"""Acrobot: two hanging links, of which only the joint between them is driven; the equations of Acrobot-v1."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

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
      mass_1, mass_2: of the links, kg.
      length_1: of the first link, m; that of the second plays no part.
      center_1, center_2: from a link's joint to its center of mass, m.
      inertia_1, inertia_2: about the centers of mass, kg m^2.
      torque: at an action of 1, N m.
      dt: length of a step, s.
      max_speed_1, max_speed_2: of the joints, rad/s.
      height: what -cos theta_1 - cos(theta_1 + theta_2) has to exceed, of 2 at most.
      spread: the start is uniform within +- this, rad and rad/s.
    """

    gravity: ArrayLike = 9.8
    mass_1: ArrayLike = 1.0
    mass_2: ArrayLike = 1.0
    length_1: ArrayLike = 1.0
    center_1: ArrayLike = 0.5
    center_2: ArrayLike = 0.5
    inertia_1: ArrayLike = 1.0
    inertia_2: ArrayLike = 1.0
    torque: ArrayLike = 1.0
    dt: ArrayLike = 0.2
    max_speed_1: ArrayLike = 4 * math.pi
    max_speed_2: ArrayLike = 9 * math.pi
    height: ArrayLike = 1.0
    spread: ArrayLike = 0.1


PARAMS = Params()
"""The constants of Gymnasium."""


class State(NamedTuple):
    """An episode; all (): angles within half a turn, 0 hanging, the second against the first, rad; rad/s; cos, sin."""

    theta_1: Array
    theta_2: Array
    dot_1: Array
    dot_2: Array
    cos_1: Array
    sin_1: Array
    cos_2: Array
    sin_2: Array


@dataclasses.dataclass(frozen=True)
class Acrobot:
    """Swing the tip above a height: Acrobot-v1 of Gymnasium (Sutton, 1996; Sutton and Barto, 1998).

    One step of Runge and Kutta's fourth order, then angles are wrapped and velocities clipped. The reward is -1 a step
    and 0 for the one that ends above the height. Inputs are cos and sin of theta_1, of theta_2, and the velocities.
    By default the torque is one output clipped to [-1, 1], which is more than Gymnasium allows and includes it.

    Attributes:
      steps: most steps of an episode.
      discrete: the torque is -1, 0 or 1, whichever of three outputs is largest, exactly as in Gymnasium.
      params: a `Params`.
    """

    steps: int = 500
    discrete: bool = False
    params: Params = PARAMS

    inputs = 6

    @property
    def outputs(self) -> int:
        """Outputs of a net: 3 if discrete, else 1."""
        return 3 if self.discrete else 1

    def reset(self, params: Params, key: Key) -> State:
        """Hanging at rest, each of the four off by up to ``spread``, uniform."""
        dtype = jnp.result_type(float, *params)
        draws = jnp.asarray(params.spread, dtype) * jax.random.uniform(key, (4,), dtype, -1, 1)
        return _state(*draws)

    def observe(self, params: Params, state: State) -> Array:
        """cos theta_1, sin theta_1, cos theta_2, sin theta_2, theta_1', theta_2': (6,)."""
        del params
        return jnp.stack([state.cos_1, state.sin_1, state.cos_2, state.sin_2, state.dot_1, state.dot_2])

    def step(self, params: Params, state: State, action: Array) -> tuple[State, Array, Array]:
        """One step of ``dt``; action (outputs,). Returns the state, its reward and whether the tip is high enough."""
        p = like(params, state.theta_1)
        torque = p.torque * self._share(action.astype(state.theta_1.dtype))
        now = state[:4]
        k1 = _derivative(p, torque, state)
        k2 = _derivative(p, torque, _state(*_moved(now, k1, p.dt / 2)))
        k3 = _derivative(p, torque, _state(*_moved(now, k2, p.dt / 2)))
        k4 = _derivative(p, torque, _state(*_moved(now, k3, p.dt)))
        mean = tuple((a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(k1, k2, k3, k4, strict=True))
        theta_1, theta_2, dot_1, dot_2 = _moved(now, mean, p.dt)
        after = _state(
            _wrapped(theta_1),
            _wrapped(theta_2),
            jnp.clip(dot_1, -p.max_speed_1, p.max_speed_1),
            jnp.clip(dot_2, -p.max_speed_2, p.max_speed_2),
        )
        tip = -after.cos_1 - (after.cos_1 * after.cos_2 - after.sin_1 * after.sin_2)
        done = tip > p.height
        # Not a constant: a state that is not a number must not pass for an ordinary step.
        return after, jnp.where(done, 0, -1 + 0 * tip), done

    def _share(self, action: Array) -> Array:
        """The torque in units of its largest, ()."""
        if not self.discrete:
            return jnp.clip(action[0], -1, 1)
        back, rest, forth = action[0], action[1], action[2]  # a tie goes to the first, as argmax has it
        least = jnp.maximum(back, rest)
        choice = jnp.where(forth > least, 1, jnp.where(rest > back, 0, -1)).astype(action.dtype)
        return jnp.where(jnp.isnan(least) | jnp.isnan(forth), jnp.nan, choice)


def _state(theta_1: Array, theta_2: Array, dot_1: Array, dot_2: Array) -> State:
    sin_1, cos_1 = sin_cos(theta_1)
    sin_2, cos_2 = sin_cos(theta_2)
    return State(theta_1, theta_2, dot_1, dot_2, cos_1, sin_1, cos_2, sin_2)


def _moved(now: tuple[Array, ...], slope: tuple[Array, ...], time: Array) -> tuple[Array, ...]:
    return tuple(x + time * rate for x, rate in zip(now, slope, strict=True))


def _wrapped(angle: Array) -> Array:
    return angle - 2 * jnp.pi * jnp.round(angle * (0.5 / jnp.pi))


def _derivative(p: Params, torque: Array, state: State) -> tuple[Array, Array, Array, Array]:
    """Velocities and accelerations of the two joints; the equations of the book, not of the paper of 1996."""
    _, _, dot_1, dot_2, _, sin_1, cos_2, sin_2 = state
    arm = p.mass_2 * p.length_1 * p.center_2
    own = p.mass_2 * p.center_2**2 + p.inertia_2
    d1 = p.mass_1 * p.center_1**2 + p.inertia_1 + p.mass_2 * p.length_1**2 + own + 2 * arm * cos_2
    d2 = own + arm * cos_2
    sin_both = sin_1 * cos_2 + state.cos_1 * sin_2
    phi_2 = p.mass_2 * p.center_2 * p.gravity * sin_both
    phi_1 = phi_2 + (p.mass_1 * p.center_1 + p.mass_2 * p.length_1) * p.gravity * sin_1
    phi_1 = phi_1 - arm * sin_2 * dot_2 * (dot_2 + 2 * dot_1)
    ratio = d2 / d1
    turn_2 = (torque + ratio * phi_1 - arm * dot_1 * dot_1 * sin_2 - phi_2) / (own - d2 * ratio)
    turn_1 = -(d2 * turn_2 + phi_1) / d1
    return dot_1, dot_2, turn_1, turn_2
