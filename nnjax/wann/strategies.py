"""An evolution strategy with an adapted covariance matrix, the CMA-ES, as pure functions (Hansen, 2016).

`ask` draws candidates from a normal distribution, `tell` moves and reshapes it by the order of their values, which are
maximized. All three functions run under jit and vmap. Numbers of variables and of candidates are read off the shapes:

```python
state = init(jnp.zeros(10), 0.5)
for key in jax.random.split(jax.random.key(0), 200):
    candidates = ask(state, key, 12)
    state = tell(state, candidates, -jnp.sum(candidates**2, 1))
```
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnjax.types import Array, Key, floating

FULL = 300
"""Most variables for which `init` keeps a full covariance matrix unless it is told to."""


class State(NamedTuple):
    """The distribution that candidates come from, d variables.

    Attributes:
      mean: (d,).
      sigma: (), the step size.
      path_sigma: (d,) evolution path that sets the step size.
      path_c: (d,) evolution path that the covariance learns from.
      covariance: (d, d), or (d,) the diagonal of one that has nothing else.
      basis: (d, d) eigenvectors of the covariance in columns, as they were when last computed; None for a diagonal.
      scales: (d,) square roots of the eigenvalues.
      used: (d,) bool; the other variables stay as they are and count for nothing.
      generation: () int32.
    """

    mean: Array
    sigma: Array
    path_sigma: Array
    path_c: Array
    covariance: Array
    basis: Array | None
    scales: Array
    used: Array
    generation: Array


class Constants(NamedTuple):
    """What table 1 of Hansen (2016) sets for n variables and so many candidates.

    Attributes:
      weights: (candidates,), best first; the positive ones add up to 1.
      mu_eff: effective number of parents.
      c_sigma, d_sigma: rate of the step size's path, and damping.
      c_c: rate of the covariance's path.
      c_1, c_mu: rates at which the covariance learns from the path and from the candidates.
      expected: mean length of a standard normal vector.
    """

    weights: Array
    mu_eff: Array
    c_sigma: Array
    d_sigma: Array
    c_c: Array
    c_1: Array
    c_mu: Array
    expected: Array


def default_population(variables: int) -> int:
    """Candidates of a generation where evaluations are dear and without noise, 4 + floor(3 ln d); more are safer."""
    return 4 + int(3 * math.log(variables))


def constants(n: ArrayLike, population: int, *, active: bool = True, diagonal: bool = False) -> Constants:
    """The strategy's constants.

    Args:
      n: number of variables; may be traced.
      population: number of candidates, at least 2.
      active: the worse half of the candidates has negative weights, and shrinks the covariance where they lie
        (Jastrebski and Arnold, 2006); else they have none.
      diagonal: the covariance is diagonal, and learned (n + 2)/3 times faster (Ros and Hansen, 2008).

    Raises:
      ValueError: fewer than 2 candidates.
    """
    if population < 2:
        raise ValueError(f"population={population} must be at least 2")
    n = floating(n)
    raw = np.log((population + 1) / 2) - np.log(np.arange(1, population + 1))
    parents = population // 2
    best, rest = raw[:parents], raw[parents:]
    mu_eff, mu_minus = best.sum() ** 2 / (best**2).sum(), rest.sum() ** 2 / (rest**2).sum()
    faster = (n + 2) / 3 if diagonal else 1.0
    c_1 = jnp.minimum(1, faster * 2 / ((n + 1.3) ** 2 + mu_eff))
    c_mu = faster * 2 * (0.25 + mu_eff + 1 / mu_eff - 2) / ((n + 2) ** 2 + mu_eff)
    c_mu = jnp.minimum(1 - c_1, c_mu)
    # The last of the three keeps the covariance positive definite.
    least = jnp.minimum(1 + c_1 / c_mu, 1 + 2 * mu_minus / (mu_eff + 2))
    least = jnp.minimum(least, (1 - c_1 - c_mu) / (n * c_mu)) * (1.0 if active else 0.0)
    below = np.minimum(raw, 0)
    weights = jnp.asarray(np.maximum(raw, 0) / best.sum(), n.dtype) + least * jnp.asarray(below / -below.sum(), n.dtype)
    c_sigma = (mu_eff + 2) / (n + mu_eff + 5)
    return Constants(
        weights=weights,
        mu_eff=jnp.asarray(mu_eff, n.dtype),
        c_sigma=c_sigma,
        d_sigma=1 + 2 * jnp.maximum(0, jnp.sqrt((mu_eff - 1) / (n + 1)) - 1) + c_sigma,
        c_c=(4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n),
        c_1=c_1,
        c_mu=c_mu,
        expected=jnp.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2)),
    )


def init(mean: ArrayLike, sigma: ArrayLike, *, diagonal: bool | None = None, used: ArrayLike | None = None) -> State:
    """A round distribution about a first guess.

    Args:
      mean: (d,) the guess.
      sigma: (), the standard deviation of every variable; about a third of the distance to where the best is sought.
      diagonal: only variances are learned, no covariances; by default above `FULL` variables.
      used: (d,) bool, which of the variables there are: problems of several sizes then share a program. All by default.

    Raises:
      ValueError: ``mean`` or ``used`` of another shape, or a known ``sigma`` that is not positive.
    """
    mean = floating(mean)
    if mean.ndim != 1 or not len(mean):
        raise ValueError(f"mean of shape {mean.shape} must be (d,), at least one variable")
    if not isinstance(sigma, jax.core.Tracer) and not np.all(np.asarray(sigma) > 0):
        raise ValueError(f"sigma={sigma} must be positive")
    used = jnp.ones(len(mean), bool) if used is None else jnp.asarray(used, bool)
    if used.shape != mean.shape:
        raise ValueError(f"used of shape {used.shape} must be {mean.shape}, as mean")
    diagonal = len(mean) > FULL if diagonal is None else diagonal
    zeros, ones = jnp.zeros_like(mean), jnp.ones_like(mean)
    eye = jnp.eye(len(mean), dtype=mean.dtype)
    covariance, basis = (ones, None) if diagonal else (eye, eye)
    return State(mean, jnp.asarray(sigma, mean.dtype), zeros, zeros, covariance, basis, ones, used, jnp.int32(0))


def ask(state: State, key: Key, population: int) -> Array:
    """Candidates, (population, d)."""
    normal = jax.random.normal(key, (population, len(state.mean)), state.mean.dtype) * state.scales[None]
    steps = normal if state.basis is None else normal @ state.basis.T
    return state.mean[None] + jnp.where(state.used[None], state.sigma * steps, 0)


def tell(state: State, candidates: ArrayLike, values: ArrayLike, *, active: bool = True) -> State:
    """The distribution after its candidates have been evaluated.

    Args:
      state: that they were drawn from.
      candidates: (population, d), as `ask` gave them.
      values: (population,), the higher the better, by their order alone; what is not finite is worst.
      active: as in `constants`.

    Raises:
      ValueError: shapes that do not go together.
    """
    x, values = jnp.asarray(candidates, state.mean.dtype), jnp.asarray(values)
    if x.ndim != 2 or x.shape[1:] != state.mean.shape or values.shape != x.shape[:1]:
        raise ValueError(f"candidates of shape {x.shape} and values of shape {values.shape} must be (n, "
                         f"{len(state.mean)}) and (n,)")  # fmt: skip
    c = constants(state.used.sum().astype(x.dtype), len(x), active=active, diagonal=state.basis is None)
    n = state.used.sum().astype(x.dtype)
    order = jnp.argsort(-jnp.where(jnp.isfinite(values), values, -jnp.inf))
    steps = jnp.where(state.used[None], (x[order] - state.mean[None]) / state.sigma, 0)
    mean_step = jnp.maximum(c.weights, 0) @ steps

    generation = state.generation + 1
    path_sigma = (1 - c.c_sigma) * state.path_sigma
    path_sigma += jnp.sqrt(c.c_sigma * (2 - c.c_sigma) * c.mu_eff) * _whiten(state, mean_step[None])[0]
    length = jnp.linalg.norm(path_sigma)
    sigma = state.sigma * jnp.exp(c.c_sigma / c.d_sigma * (length / c.expected - 1))
    # Where the step size is far too small, the covariance must not grow in its place.
    started = jnp.sqrt(1 - (1 - c.c_sigma) ** (2 * generation.astype(x.dtype)))
    calm = (length / started < (1.4 + 2 / (n + 1)) * c.expected).astype(x.dtype)
    path_c = (1 - c.c_c) * state.path_c + calm * jnp.sqrt(c.c_c * (2 - c.c_c) * c.mu_eff) * mean_step

    distances = jnp.sum(_whiten(state, steps) ** 2, 1)
    shares = c.weights * jnp.where(c.weights < 0, n / jnp.maximum(distances, jnp.finfo(x.dtype).tiny), 1)
    kept = 1 + c.c_1 * (1 - calm) * c.c_c * (2 - c.c_c) - c.c_1 - c.c_mu * c.weights.sum()
    state = state._replace(mean=state.mean + state.sigma * mean_step, sigma=sigma, path_sigma=path_sigma,
                           path_c=path_c, generation=generation)  # fmt: skip
    if state.basis is None:
        learned = c.c_1 * path_c**2 + c.c_mu * shares @ steps**2
        return _decomposed(state._replace(covariance=kept * state.covariance + learned))
    learned = c.c_1 * jnp.outer(path_c, path_c) + c.c_mu * (steps * shares[:, None]).T @ steps
    state = state._replace(covariance=kept * state.covariance + learned)
    # Eigenvectors take more time than all else here, and change little in a generation.
    every = jnp.maximum(1, jnp.floor(1 / (10 * n * (c.c_1 + c.c_mu)))).astype(jnp.int32)
    return jax.lax.cond(generation % every == 0, _decomposed, lambda state: state, state)


def deviation(state: State) -> Array:
    """Root mean square of the standard deviations of the variables, ()."""
    variances = state.covariance if state.basis is None else jnp.diagonal(state.covariance)
    return state.sigma * jnp.sqrt(jnp.where(state.used, variances, 0).sum() / state.used.sum())


def _whiten(state: State, steps: Array) -> Array:
    """Steps (n, d) times the inverse square root of the covariance."""
    if state.basis is None:
        return steps / state.scales[None]
    return ((steps @ state.basis) / state.scales[None]) @ state.basis.T


def _decomposed(state: State) -> State:
    """Basis and scales of the covariance; no eigenvalue is below what the dtype tells from 0.

    Step size and covariance may drift apart without end, one up and one down. What they share is moved to the step
    size, by powers of two, so that nothing is rounded.
    """
    covariance, used = state.covariance, state.used
    n, eps = used.sum().astype(state.mean.dtype), jnp.finfo(state.mean.dtype).eps
    variances = covariance if state.basis is None else jnp.diagonal(covariance)
    size = jnp.exp2(jnp.round(0.5 * jnp.log2(jnp.where(used, variances, 0).sum() / n)))
    covariance = covariance / size**2
    if state.basis is None:
        variances, basis = jnp.where(used, covariance, 1), None
        covariance = variances
    else:
        both = used[:, None] & used[None, :]
        covariance = jnp.where(both, 0.5 * (covariance + covariance.T), jnp.eye(len(used), dtype=covariance.dtype))
        variances, basis = jnp.linalg.eigh(covariance)
    scales = jnp.sqrt(jnp.maximum(variances, eps * variances.max()))
    return state._replace(sigma=state.sigma * size, path_c=state.path_c / size, covariance=covariance, basis=basis,
                          scales=scales)  # fmt: skip
