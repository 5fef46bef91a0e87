"""Strict JAX for every test, on two CPU devices; real data only where `NNJAX_DATA` names it."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets named by `NNJAX_DATA`; skips, saying so, where it is not set."""
    folder = os.environ.get("NNJAX_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data sets: set NNJAX_DATA to a folder that holds them")
    return Path(folder)
