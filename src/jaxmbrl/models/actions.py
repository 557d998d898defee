"""Actions as networks see them: within [-1, 1], or one-hot."""

import jax
import jax.numpy as jnp

from jaxmbrl.types import Array, Box, Discrete


def to_unit(action: Array, box: Box) -> Array:
    """An action [A] within its bounds, as a unit action within [-1, 1]."""
    low, high = jnp.asarray(box.low), jnp.asarray(box.high)
    return (action - low) / (high - low) * 2.0 - 1.0


def from_unit(unit: Array, box: Box) -> Array:
    """The inverse of `to_unit`."""
    low, high = jnp.asarray(box.low), jnp.asarray(box.high)
    return low + (unit + 1.0) * 0.5 * (high - low)


def encode(action: Array, kind: Box | Discrete) -> Array:
    """An action as a vector: a unit action [A], or one-hot [num]."""
    return to_unit(action, kind) if isinstance(kind, Box) else jax.nn.one_hot(action, kind.num)


def size(kind: Box | Discrete) -> int:
    """Length of an encoded action."""
    return kind.size if isinstance(kind, Box) else kind.num


def none(kind: Box | Discrete) -> Array:
    """A placeholder where there was no action: zeros [A], or 0."""
    return jnp.zeros(kind.size) if isinstance(kind, Box) else jnp.zeros((), jnp.int32)
