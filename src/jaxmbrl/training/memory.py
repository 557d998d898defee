"""Does a run fit into memory? Asked before anything is compiled."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

import jax

from jaxmbrl.config import ConfigError
from jaxmbrl.types import PyTree

# Where a container reads how much it may take (cgroups, versions 2 and 1).
CONTAINER = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def num_bytes(template: PyTree) -> int:
    """Memory of a tree of arrays or ``jax.ShapeDtypeStruct``."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(template))


@contextlib.contextmanager
def within_memory() -> Iterator[None]:
    """Turn what an allocation raises into `ConfigError`."""
    try:
        yield
    except (MemoryError, OverflowError) as error:
        raise ConfigError(f"memory: some size is too large: {error}") from error
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise ConfigError(f"memory: some size is too large: {error}") from error


def capacity(num_devices: int | None = None) -> int:
    """Bytes that so many of this process' devices hold, or all of them; those of a CPU share its memory."""
    device = jax.local_devices()[0]
    each = (device.memory_stats() or {}).get("bytes_limit")
    if each:
        return each * (num_devices or jax.local_device_count())
    return int(min(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *map(_allowed, CONTAINER)))


def _allowed(file: Path) -> float:
    """Bytes that a container may take, as it is told; infinity where it is told nothing."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # "max"
        return math.inf


def check(template: PyTree) -> None:
    """Raise `ConfigError` where the state alone is more than its devices hold."""
    leaf = jax.tree.leaves(template)[0]
    limit = capacity(leaf.sharding.num_devices if leaf.sharding else 1)
    if num_bytes(template) > limit:
        path, leaf = max(jax.tree_util.tree_flatten_with_path(template)[0], key=lambda item: num_bytes(item[1]))
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        raise ConfigError(
            f"memory: the state takes {num_bytes(template) / 2**30:,.1f} GiB, needs at most {limit / 2**30:,.1f} GiB;"
            f" the largest part is {name}, {leaf.dtype.name}{list(leaf.shape)}"
        )
