"""Do predictive intervals hold what they promise? (Kuleshov et al. 2018, arXiv:1807.00263)."""

import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmbrl.types import Array

NOMINAL = tuple(level / 20 for level in range(1, 20))  # coverages that are asked for


def rank_of(particles: Array, value: Array) -> Array:
    """The share of particles below ``value``, ties by half: the particles' cumulative distribution at it.

    Args:
        particles: [P, ...], draws of a prediction.
        value: [...], what happened.

    Returns:
        [...], between 0 and 1.
    """
    return jnp.mean((particles < value) + 0.5 * (particles == value), axis=0)


def coverage(below: ArrayLike, nominal: ArrayLike, weight: ArrayLike = 1.0) -> Array:
    r"""How often central intervals held what happened.

    The central interval of coverage c holds a value whose cumulative probability u has :math:`|2u - 1| \le c`.

    Args:
        below: any shape, cumulative probabilities u of what happened, as `predictive.probability_below` and `rank_of`.
        nominal: [L], coverages that the intervals promise.
        weight: broadcasts to ``below``, how much each counts.

    Returns:
        [L], the shares that were found.
    """
    below = jnp.asarray(below)
    weight = jnp.broadcast_to(jnp.asarray(weight, below.dtype), below.shape)
    inside = jnp.abs(2.0 * below - 1.0)[..., None] <= jnp.asarray(nominal)
    share = weight / jnp.maximum(jnp.sum(weight), 1e-9)
    return jnp.sum(inside * share[..., None], axis=tuple(range(below.ndim)))


def calibration_error(nominal: ArrayLike, found: ArrayLike) -> Array:
    """Expected calibration error: mean absolute difference of nominal and found coverage [L], a number []."""
    return jnp.mean(jnp.abs(jnp.asarray(nominal) - jnp.asarray(found)))
