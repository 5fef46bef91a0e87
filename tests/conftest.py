"""Strict JAX for every test, on two CPU devices; real data only where `NNJAX_DATA` names it."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
from jax.experimental.compilation_cache import compilation_cache

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)


@pytest.fixture(scope="module", autouse=True)
def forget_programs() -> Iterator[None]:
    """Compiled programs go with their module.

    Each holds about ten memory mappings, a process may have 65,530 (Linux, `vm.max_map_count`), and a compiler or
    loader that gets no more of them ends with a segmentation fault. The cache on the disk, which a study run in this
    process turns on, would stay on for all modules after it.
    """
    cache = jax.config.jax_compilation_cache_dir
    yield
    if cache != jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", cache)
        compilation_cache.reset_cache()
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets named by `NNJAX_DATA`; skips, saying so, where it is not set."""
    folder = os.environ.get("NNJAX_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data sets: set NNJAX_DATA to a folder that holds them")
    return Path(folder)


@contextmanager
def _unoptimized() -> Iterator[None]:
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def unoptimized() -> Callable[[], AbstractContextManager[None]]:
    """``with unoptimized():`` what is compiled there is not optimized, for it runs too short to be worth that."""
    return _unoptimized
