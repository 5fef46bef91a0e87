"""Loaded once by the process that all forked studies come from: third parties only, and no backend of JAX."""

import importlib
import warnings

# Nothing that has threads is started before the fork, which is what the warning is about.
warnings.filterwarnings("ignore", message=".*os.fork.*")
warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")

for name in (
    "jax", "jax.numpy", "flax.linen", "optax", "xarray", "h5netcdf", "matplotlib.figure",
    "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "rich.progress", "rich.table", "tyro",
    "sklearn.datasets", "scipy.stats", "PIL.Image", "tests.faults.processes",
):  # fmt: skip
    importlib.import_module(name)
