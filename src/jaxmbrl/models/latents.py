r"""Stochastic latents: Gaussian (PlaNet, Dreamer v1) or groups of classes (Dreamer v2 and v3).

A latent is a distribution over flat vectors [Z], given by a network's raw outputs. Samples are re-parametrised: exactly
for Gaussians, straight through for classes (the gradient of a one-hot sample is that of its probabilities; Bengio et
al. 2013, arXiv:1308.3432).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.types import Array, Key

SMALLEST = 1e-30  # chance whose logarithm is taken: without a share of chance, a class may have none


class Latent(NamedTuple):
    """A family of distributions over latent vectors.

    Attributes:
        size: length of a sample (Z).
        num_outputs: raw outputs that a network must give.
        sample: ``(key, outputs [num_outputs]) -> [Z]``.
        kl: ``(outputs_p, outputs_q) -> []``, KL(p || q) in nats.
    """

    size: int
    num_outputs: int
    sample: Callable[[Key, Array], Array]
    kl: Callable[[Array, Array], Array]


def gaussian(size: int, *, min_std: float = 0.1) -> Latent:
    """Independent Gaussians, std = softplus(raw) + ``min_std`` (Hafner et al. 2019, arXiv:1811.04551)."""
    return Latent(size, 2 * size, partial(_gaussian_sample, min_std), partial(_gaussian_kl, min_std))


def categorical(groups: int, classes: int, *, unimix: float = 0.01) -> Latent:
    """``groups`` one-hot vectors, each mixed with a share ``unimix`` of chance (Hafner et al. 2023, Sec. B)."""
    split = partial(_log_chance, (groups, classes), unimix)
    return Latent(groups * classes, groups * classes, partial(_one_hot_sample, split), partial(_one_hot_kl, split))


def _gaussian_parts(min_std: float, outputs: Array) -> tuple[Array, Array]:
    mean, raw = jnp.split(outputs, 2, axis=-1)
    return mean, jax.nn.softplus(raw) + min_std


def _gaussian_sample(min_std: float, key: Key, outputs: Array) -> Array:
    mean, std = _gaussian_parts(min_std, outputs)
    return mean + std * jax.random.normal(key, mean.shape)


def _gaussian_kl(min_std: float, outputs_p: Array, outputs_q: Array) -> Array:
    mean_p, std_p = _gaussian_parts(min_std, outputs_p)
    mean_q, std_q = _gaussian_parts(min_std, outputs_q)
    ratio = std_p / std_q
    shift = jnp.square((mean_p - mean_q) / std_q)
    return jnp.sum(0.5 * (jnp.square(ratio) + shift - 1.0) - jnp.log(ratio))


def _log_chance(shape: tuple[int, int], unimix: float, outputs: Array) -> Array:
    chance = (1.0 - unimix) * jax.nn.softmax(outputs.reshape(shape)) + unimix / shape[1]
    return jnp.log(jnp.maximum(chance, SMALLEST))


def _one_hot_sample(split: Callable[[Array], Array], key: Key, outputs: Array) -> Array:
    log_chance = split(outputs)
    drawn = jax.nn.one_hot(jax.random.categorical(key, log_chance), log_chance.shape[1])
    chance = jnp.exp(log_chance)
    return (drawn + (chance - jax.lax.stop_gradient(chance))).ravel()


def _one_hot_kl(split: Callable[[Array], Array], outputs_p: Array, outputs_q: Array) -> Array:
    log_p, log_q = split(outputs_p), split(outputs_q)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q))
