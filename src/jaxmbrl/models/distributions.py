"""Likelihood families: how a network's raw outputs become a distribution over a target vector [D].

A family's distributions are distrax ones, so every family offers log_prob, sample, mean and variance.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import distrax
import jax
import jax.numpy as jnp

from jaxmbrl.types import Array, PyTree

MAX_LOG_VAR_INIT = 0.5  # Chua et al. 2018, released code
MIN_LOG_VAR_INIT = -10.0


class Family(NamedTuple):
    """A likelihood family over vectors of size D.

    Attributes:
        num_outputs: ``(D) -> int``, the raw outputs that a network must give.
        init: ``(D) -> params``, the family's own learned parameters (a tree, may be empty).
        distribution: ``(params, outputs [..., num_outputs]) -> distrax.Distribution`` over [..., D].
        loss: ``(params, outputs [num_outputs], target [D]) -> []``, to minimise, a mean over D.
        penalty: ``(params) -> []``, a regulariser of the family's own parameters.
    """

    num_outputs: Callable[[int], int]
    init: Callable[[int], PyTree]
    distribution: Callable[[PyTree, Array], distrax.Distribution]
    loss: Callable[[PyTree, Array, Array], Array]
    penalty: Callable[[PyTree], Array]


def bounded_var(raw: Array, low: Array, high: Array) -> Array:
    r"""The variance whose logarithm is ``raw`` squashed softly between ``low`` and ``high``.

    Chua et al. 2018 (App. A.1) bound a log-variance by :math:`upper = high - softplus(high - raw)` and then by
    :math:`low + softplus(upper - low)`. The exponential of that is :math:`e^{low} + e^{high} \sigma(raw - high)`,
    within :math:`(e^{low}, e^{low} + e^{high})`. It needs no logarithm: on a CPU those cost more than the matrix
    products of a small network.
    """
    return jnp.exp(low) + jnp.exp(high) * jax.nn.sigmoid(raw - high)


def _gaussian_init(size: int) -> PyTree:
    return {
        "max_log_var": jnp.full((size,), MAX_LOG_VAR_INIT, jnp.float32),
        "min_log_var": jnp.full((size,), MIN_LOG_VAR_INIT, jnp.float32),
    }


def _gaussian_distribution(params: PyTree, outputs: Array) -> distrax.Distribution:
    mean, raw = jnp.split(outputs, 2, axis=-1)
    var = bounded_var(raw, params["min_log_var"], params["max_log_var"])
    return distrax.MultivariateNormalDiag(mean, jnp.sqrt(var))


def _gaussian_loss(params: PyTree, outputs: Array, target: Array) -> Array:
    # Twice the negative log-likelihood without its constant: the scale for which PETS' weight decays are given.
    log_prob = jnp.asarray(_gaussian_distribution(params, outputs).log_prob(target))
    return -2.0 * log_prob / target.shape[-1] - math.log(2.0 * math.pi)


def _gaussian_penalty(params: PyTree) -> Array:
    return jnp.sum(params["max_log_var"]) - jnp.sum(params["min_log_var"])


GAUSSIAN = Family(lambda size: 2 * size, _gaussian_init, _gaussian_distribution, _gaussian_loss, _gaussian_penalty)
"""Diagonal Gaussian whose log-variance lies between learned bounds (Chua et al. 2018, arXiv:1805.12114)."""

DETERMINISTIC = Family(
    num_outputs=lambda size: size,
    init=lambda size: {},
    distribution=lambda params, outputs: distrax.Independent(distrax.Deterministic(outputs), 1),
    loss=lambda params, outputs, target: jnp.mean(jnp.square(outputs - target)),
    penalty=lambda params: jnp.zeros(()),
)
"""A point mass, learned by least squares: a sample is the mean, and the variance is zero."""

FAMILIES: dict[str, Family] = {"gaussian": GAUSSIAN, "deterministic": DETERMINISTIC}
