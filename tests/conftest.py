"""Strict JAX flags, quick compilation, and a persistent compilation cache for the whole suite.

Most of the suite's time is XLA's. Without its costlier optimisations the suite takes two thirds of it; numbers are the
same but for their rounding, with one exception so far (gradients that XLA made infinite; `test_value_gradients.matches`
does not compile them). Tests that hold two programs to the same rounding are marked ``optimised``.
"""

import itertools
import os
from pathlib import Path

import jax
import pytest

MOST_MAPS = 30_000  # Linux allows a process 65,530; a compiled program takes ten or more
CHECK_EVERY = 4  # tests: counting so many maps takes 30 ms
CACHE = Path(__file__).parent.parent / ".cache" / "jax"

# Loops fused the plain way compile in two thirds of the time; and two workers leave no core to compile parts on.
QUICK = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
if jax.__version_info__ < (0, 11):  # later ones end a process for a flag that they do not know any more
    os.environ["XLA_FLAGS"] = f"{QUICK} {os.environ.get('XLA_FLAGS', '')}"  # read with the first program
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
jax.config.update("jax_debug_nans", True)
jax.config.update("jax_disable_most_optimizations", True)
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # for the processes that tests start


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(autouse=True)
def _optimised(request):
    """Compile what a test marked ``optimised`` runs as users do."""
    if request.node.get_closest_marker("optimised") is None:
        yield
        return
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


finished = itertools.count(1)


@pytest.fixture(autouse=True)
def _within_memory_maps():
    """Forget compiled programs before a worker runs out of memory maps, which would crash it."""
    yield
    maps = Path("/proc/self/maps")
    if next(finished) % CHECK_EVERY == 0 and maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
