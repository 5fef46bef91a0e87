"""Names for the three things every signature speaks of."""

from typing import Any

import jax
import numpy as np

Array = jax.Array | np.ndarray
"""A JAX or NumPy array of any shape and dtype."""

Key = jax.Array
"""A typed random key, `jax.random.key(seed)`; its shape is ()."""

PyTree = Any
"""Any nesting of dicts, lists, tuples and NamedTuples with arrays at the leaves."""
