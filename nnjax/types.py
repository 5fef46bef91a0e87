"""Names for the things every signature speaks of, and the one way to make numbers floats."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

Array = jax.Array | np.ndarray
"""A JAX or NumPy array of any shape and dtype."""

Key = jax.Array
"""A typed random key, `jax.random.key(seed)`; its shape is ()."""

PyTree = Any
"""Any nesting of dicts, lists, tuples and NamedTuples with arrays at the leaves."""


def floating(x: ArrayLike) -> jax.Array:
    """x as a JAX array that keeps its floating dtype; integers and booleans get the default one."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))
