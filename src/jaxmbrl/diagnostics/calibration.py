"""Do predictive intervals hold what they promise? (Kuleshov et al. 2018, arXiv:1807.00263)."""

import jax.numpy as jnp

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


def coverage(below: Array, nominal: Array, weight: Array | None = None) -> Array:
    r"""How often central intervals held what happened.

    The central interval of coverage c holds a value whose cumulative probability u has :math:`|2u - 1| \le c`.

    Args:
        below: any shape, cumulative probabilities u of what happened, as `predictive.probability_below` and `rank_of`.
        nominal: [L], coverages that the intervals promise.
        weight: like ``below``, how much each counts; all alike where None.

    Returns:
        [L], the shares that were found.
    """
    weight = jnp.ones_like(below) if weight is None else weight
    inside = jnp.abs(2.0 * below - 1.0)[..., None] <= nominal
    share = jnp.broadcast_to(weight, below.shape) / jnp.maximum(jnp.sum(jnp.broadcast_to(weight, below.shape)), 1e-9)
    return jnp.sum(inside * share[..., None], axis=tuple(range(below.ndim)))


def calibration_error(nominal: Array, found: Array) -> Array:
    """Expected calibration error: mean absolute difference of nominal and found coverage [L], a number []."""
    return jnp.mean(jnp.abs(nominal - found))
