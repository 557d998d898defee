"""What one-step models predict of a real step, and how likely they found what happened."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm

from jaxmbrl.models.ensemble import Predictors
from jaxmbrl.models.one_step import Params
from jaxmbrl.types import Array, Transition


class Judged(NamedTuple):
    """A step's predicted and real change of the observation, in its own units.

    Attributes:
        mean: [M, O], by each member.
        std: [M, O], zero for a deterministic model.
        change: [O], what happened; angles within half a turn.
    """

    mean: Array
    std: Array
    change: Array


def judge(predictors: Predictors, transition: Transition) -> Judged:
    """What each member said of a transition."""
    base, size = predictors.base, transition.obs.shape[-1]

    def moments(member: Params) -> tuple[Array, Array, Array]:
        stats = member.normaliser
        predicted = base.distribution(member, transition.obs, transition.action)
        target = base.target(member, transition)
        mean, change = (x * stats.target_std + stats.target_mean for x in (predicted.mean(), target))
        return mean, change, jnp.sqrt(predicted.variance()) * stats.target_std

    mean, change, std = jax.vmap(moments)(predictors.members)
    return Judged(mean[:, :size], std[:, :size], change[0, :size])


def log_likelihood(mean: Array, std: Array, value: Array) -> Array:
    r"""Log-density of ``value`` under an equal mixture of diagonal Gaussians.

    :math:`\log \frac1M \sum_m \prod_d \mathcal N(y_d; \mu_{md}, \sigma_{md}^2)`

    Args:
        mean: [M, D].
        std: [M, D], above 0.
        value: [D].

    Returns:
        [], nats.
    """
    return logsumexp(jnp.sum(norm.logpdf(value, mean, std), axis=-1)) - jnp.log(mean.shape[0])


def probability_below(mean: Array, std: Array, value: Array) -> Array:
    """The mixture's cumulative distribution at ``value``, one entry at a time (the probability integral transform).

    Uniform on [0, 1] where the predictions are calibrated. A point mass (``std`` 0) counts half at itself.

    Args:
        mean: [M, D].
        std: [M, D].
        value: [D].

    Returns:
        [D], between 0 and 1.
    """
    step = 0.5 * (jnp.sign(value - mean) + 1.0)
    spread = jnp.where(std > 0, std, 1.0)
    return jnp.mean(jnp.where(std > 0, norm.cdf(value, mean, spread), step), axis=0)
