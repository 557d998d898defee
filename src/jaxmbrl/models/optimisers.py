"""Optimisers of world models and imagined actor-critics."""

from functools import partial

import jax
import jax.numpy as jnp
import optax

from jaxmbrl.config import configurable, option
from jaxmbrl.types import Array

LEAST_NORM = 1e-3  # that weights count with, so that those that begin at 0 move (Hafner et al. 2023, released code)


@configurable
class Config:
    """Adam on gradients of bounded norm (v1, v2), or LaProp with adaptive clipping (Dreamer v3)."""

    kind: str = option("adam", "rule", choices=("adam", "laprop"))
    learning_rate: float = option(1e-3, "step size", above=0.0)
    epsilon: float = option(1e-5, "added to the root of the second moment", above=0.0)
    max_norm: float = option(100.0, "adam: gradients are scaled down to this norm", above=0.0)
    max_ratio: float = option(0.3, "laprop: gradients are scaled down to this share of the weights' norm", above=0.0)
    warmup: int = option(0, "steps over which the step size rises from 0", low=0)


def make(config: Config) -> optax.GradientTransformation:
    """The optimiser.

    LaProp (Ziyin et al. 2020, arXiv:2002.04839) divides a gradient by its own root mean square before it smooths it;
    adaptive clipping (Brock et al. 2021, arXiv:2102.06171) bounds it, as Dreamer v3 does, array by array rather than
    unit by unit. beta is (0.9, 0.999) for both rules.
    """
    rate = config.learning_rate
    if config.warmup:
        rate = optax.linear_schedule(0.0, config.learning_rate, config.warmup)
    if config.kind == "adam":
        return optax.chain(optax.clip_by_global_norm(config.max_norm), optax.adam(rate, eps=config.epsilon))
    return optax.chain(
        optax.stateless(lambda gradient, params: jax.tree.map(partial(_clip, config.max_ratio), gradient, params)),
        optax.scale_by_rms(decay=0.999, eps=config.epsilon, eps_in_sqrt=False, bias_correction=True),
        optax.ema(decay=0.9, debias=True),
        optax.scale_by_learning_rate(rate),
    )


def _clip(max_ratio: float | Array, gradient: Array, weights: Array) -> Array:
    """A gradient whose norm is at most that share of the weights' norm."""
    most = max_ratio * jnp.maximum(jnp.linalg.norm(weights.ravel()), LEAST_NORM)
    return gradient / jnp.maximum(1.0, jnp.linalg.norm(gradient.ravel()) / most)
