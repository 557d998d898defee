"""One run spread over devices: which axes are split, said where they are mapped.

Where a mesh with an axis ``data`` is in force (`jax.set_mesh`), `vmap` and `split` ask XLA to divide an axis among its
devices, and XLA adds what communication that takes; everything else is computed by all of them alike, and the state is
whole on each. Without a mesh they are `jax.vmap` and the identity: a program is the same as if they were not there.

    with jax.set_mesh(sharding.mesh()):
        state, metrics = jax.jit(training.train(loop, epochs))(key)

What is random is a function of key and position, wherever it is computed: numbers are those of one device, but for the
order of sums.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxmbrl.config import ConfigError
from jaxmbrl.types import PyTree

AXIS = "data"
_taken: ContextVar[bool] = ContextVar("taken", default=False)  # an axis outside of this one is split already


def mesh(number: int | None = None) -> Mesh:
    """The first ``number`` of this process' devices in a row, by default all; `ConfigError` where there are fewer."""
    there = jax.local_device_count()
    if number is not None and not 1 <= number <= there:
        raise ConfigError(f"mesh: got {number} devices, needs 1 to {there}, as many as this process has")
    return Mesh(np.array(jax.local_devices()[:number]), (AXIS,), axis_types=(AxisType.Auto,))


def everywhere() -> NamedSharding | None:
    """The place of what each device of the mesh in force has all of; None without a mesh."""
    found = jax.sharding.get_mesh()
    return None if AXIS not in found.axis_names else NamedSharding(found, PartitionSpec())


def split(tree: PyTree, axis: int = 0) -> PyTree:
    """``tree``, leaves [..., N, ...] with N at ``axis``, in shares on the devices of the mesh in force.

    Shares are as equal as they can be; XLA pads the smaller ones. The tree itself where no mesh is in force, where N is
    less than its devices, and within an axis that is split already.
    """
    number = _devices()
    if number == 1 or _taken.get():
        return tree
    unconstrained = PartitionSpec.UNCONSTRAINED

    def place(leaf: jax.Array) -> jax.Array:
        if leaf.shape[axis] < number:
            return leaf
        spec = [AXIS if i == axis else unconstrained for i in range(leaf.ndim)]
        return jax.lax.with_sharding_constraint(leaf, PartitionSpec(*spec))

    return jax.tree.map(place, tree)


def join(tree: PyTree) -> PyTree:
    """``tree``, all of it on each device of the mesh in force: how its maker was split is not how its users are."""
    if _devices() == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, PartitionSpec())


def vmap(function: Callable[..., Any], in_axes: Any = 0) -> Callable[..., Any]:
    """``jax.vmap(function, in_axes)`` with the mapped axis split, where `split` would; then nothing within it is.

    Args:
        function: as for `jax.vmap`.
        in_axes: 0 or None for each argument, or 0 for all of them.
    """
    mapped = jax.vmap(function, in_axes)
    if _devices() == 1 or _taken.get():
        return mapped

    def whole(*arguments: PyTree) -> PyTree:
        axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(arguments)
        leaves = jax.tree.leaves([one for one, axis in zip(arguments, axes, strict=True) if axis == 0])
        if leaves[0].shape[0] < _devices():
            return mapped(*arguments)
        arguments = tuple(split(one) if axis == 0 else one for one, axis in zip(arguments, axes, strict=True))
        before = _taken.set(True)
        try:
            result = mapped(*arguments)
        finally:
            _taken.reset(before)
        return split(result)

    return whole


def _devices() -> int:
    """Of the mesh in force; 1 without one."""
    return jax.sharding.get_abstract_mesh().shape.get(AXIS, 1)
