"""Open loop: how far a model's imagination drifts from the truth, step by step, and whether it knows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.models import ensemble
from jaxmbrl.models.ensemble import Predictors
from jaxmbrl.types import Array, Key


class Forecast(NamedTuple):
    """What P particles of each of M members imagine of H steps.

    Attributes:
        obs: [M, P, H, O], after each step.
        reward: [M, P, H].
        discount: [M, P, H], the chance that the episode goes on after the step.
    """

    obs: Array
    reward: Array
    discount: Array


class Drift(NamedTuple):
    """How far imagined observations are from the real ones, in units of ``scale``.

    Attributes:
        square_error: [H], of the particles' mean, averaged over the entries of the observation.
        var: [H], of the particles, likewise: what the model itself expects the square error to be.
        standstill: [H], square error of predicting that nothing changes.
    """

    square_error: Array
    var: Array
    standstill: Array


def forecast(predictors: Predictors, key: Key, obs: Array, actions: Array, particles: int) -> Forecast:
    """Imagine ``actions`` [H, A] from ``obs`` [O], each particle with a member that it keeps (TS-infinity)."""
    members = jax.tree.leaves(predictors.members)[0].shape[0]

    def step(cloud: Array, step: tuple[Key, Array]) -> tuple[Array, Forecast]:
        cloud, prediction = ensemble.step_tsinf(predictors.base, predictors.members, step[0], cloud, step[1])
        return cloud, Forecast(cloud, prediction.reward, prediction.discount)

    start = jnp.broadcast_to(obs, (members, particles, *obs.shape))
    _, steps = jax.lax.scan(step, start, (jax.random.split(key, len(actions)), actions))
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 2), steps)


def drift(residual: Array, change: Array, scale: Array) -> Drift:
    """Compare particles with the truth.

    Args:
        residual: [P, H, O], imagined minus real observation (angles within half a turn).
        change: [H, O], real observation minus that before the first step.
        scale: [O], the unit of each entry.
    """
    residual, change = residual / scale, change / scale
    return Drift(
        square_error=jnp.mean(jnp.square(jnp.mean(residual, axis=0)), axis=-1),
        var=jnp.mean(jnp.var(residual, axis=0), axis=-1),
        standstill=jnp.mean(jnp.square(change), axis=-1),
    )


def imagined_return(reward: Array, discount: Array, gamma: float | Array = 1.0) -> Array:
    r"""Mean over particles of :math:`\sum_t \gamma^t (\prod_{k<t} d_k) r_t`; reward and discount are [..., H]."""
    before = jnp.cumprod(jnp.concatenate([jnp.ones_like(discount[..., :1]), gamma * discount[..., :-1]], -1), -1)
    return jnp.mean(jnp.sum(before * jnp.where(before == 0, 0.0, reward), axis=-1))  # whatever lies beyond an end
