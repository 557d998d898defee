"""Strict JAX flags and a persistent compilation cache for the whole suite."""

from pathlib import Path

import jax
import pytest

CACHE = Path(__file__).parent.parent / ".cache" / "jax"

jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
jax.config.update("jax_debug_nans", True)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """A worker that kept every program of the suite would run out of memory maps, and crash."""
    yield
    jax.clear_caches()
