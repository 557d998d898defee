"""The seeds of a run spread over devices; on a CPU, over a virtual device for each core.

XLA's CPU backend runs small matrix products on one core, a batch of them as well, so that `vmap` over seeds leaves the
other cores idle. With a device for each core, each has its own share of the seeds, as has each of several accelerators.

    devices.request(seeds)                                    # before JAX starts
    train = devices.over_seeds(training.train(loop, epochs), seeds)
    state, metrics = jax.jit(train)(keys)                     # keys [seeds]
"""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxmbrl.types import PyTree

AXIS = "seeds"


def request(seeds: int | None) -> None:
    """Ask JAX for as many CPU devices as ``seeds`` can use, at most one for each core; for all of these if None.

    Call it before anything touches an array: once JAX has started it has no effect, nor has it where the user has
    chosen (``jax_num_cpu_devices``, ``XLA_FLAGS``). Accelerators are not affected.
    """
    chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if chosen or jax.config.values["jax_num_cpu_devices"] >= 1:
        return
    try:
        jax.config.update("jax_num_cpu_devices", _cores() if seeds is None else largest_divisor(seeds, _cores()))
    except RuntimeError:  # JAX has started
        return


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of ``number`` that is at most ``most``.

    Example:
        >>> largest_divisor(10, 8), largest_divisor(7, 2)
        (5, 1)
    """
    return next(divisor for divisor in range(min(number, most), 0, -1) if number % divisor == 0)


def sharding(seeds: int) -> NamedSharding:
    """Where arrays [seeds, ...] lie: in equal shares, on as many of this process' devices as that allows."""
    used = jax.local_devices()[: largest_divisor(seeds, jax.local_device_count())]
    mesh = Mesh(np.array(used), (AXIS,), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec(AXIS) if len(used) > 1 else PartitionSpec())


def over_seeds(function: Callable[..., Any], seeds: int) -> Callable[..., Any]:
    """``jax.vmap(function)`` over a leading axis of ``seeds``, each device with its own share of them.

    No device waits for another within a call: a loop runs as often as the seeds of its own device need. Numbers are
    those of `jax.vmap` over a share, hence the same to float tolerance on any number of devices.

    Args:
        function: of one seed; all its arguments and results are trees of arrays.
        seeds: length of the axis.
    """
    place = sharding(seeds)
    if place.num_devices == 1:
        return jax.vmap(function)
    # Unchecked, since nothing here is shared by the devices: every value differs from one to the next.
    return jax.shard_map(
        jax.vmap(function), mesh=place.mesh, in_specs=place.spec, out_specs=place.spec, check_vma=False
    )


def placed(template: PyTree, seeds: int, place: NamedSharding | None = None) -> PyTree:
    """``template``, leaves ``jax.ShapeDtypeStruct``, with a place, by default that which `over_seeds` gives them."""
    place = place or sharding(seeds)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), template)


def idle(seeds: int) -> str | None:
    """What stays unused because it does not divide the seeds, in one line; None where nothing does."""
    used, name = sharding(seeds).num_devices, "cores" if jax.default_backend() == "cpu" else "devices"
    there = _cores() if name == "cores" else jax.local_device_count()
    if used == min(seeds, there) or used != largest_divisor(seeds, there):  # the latter was the user's choice
        return None
    return f"{seeds} seeds run on {used} of {there} {name}: a multiple of {there} would use them all"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
