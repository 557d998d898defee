"""A diagonal Gaussian policy with a standard deviation of its own, squashed by tanh into the bounds of the actions.

The network sees the encoded observation (angles as sine and cosine), centred and scaled. Log-probabilities, divergences
and entropies are those of the Gaussian *before* the squashing u -> tanh(u): divergences and ratios of probabilities
are the same on either side, since its Jacobian cancels.

Differs from the papers, whose Gaussians are cut off at the bounds by the environment: an action that is stored is then
not the one whose probability counts.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.models.angles import encode
from jaxmbrl.models.networks import MLP
from jaxmbrl.types import Array, Box, Key, PyTree, Spec

EDGE = 1.0 - 1e-6  # float32 cannot tell a tanh beyond from 1; the Gaussian is then read as +-7.25


class Params(NamedTuple):
    """What is learned: the network of the mean, and log_std [A] (natural logarithm)."""

    network: PyTree
    log_std: Array


class Gaussian(NamedTuple):
    """mean [A] and log_std [A] of u, the action before it is squashed."""

    mean: Array
    log_std: Array


class Scale(NamedTuple):
    """Running statistics of encoded observations [I]: num [], mean [I], var [I]."""

    num: Array
    mean: Array
    var: Array


def input_size(spec: Spec) -> int:
    """Length of the encoded observation (I)."""
    return spec.obs_size + len(spec.angles)


def init_scale(spec: Spec) -> Scale:
    """Nothing seen: inputs are taken as they are."""
    size = input_size(spec)
    return Scale(jnp.zeros(()), jnp.zeros(size), jnp.ones(size))


def update_scale(scale: Scale, obs: Array, angles: tuple[int, ...]) -> Scale:
    """Join the statistics of observations [N, O] to ``scale`` (Chan et al. 1979: exact, not a moving average)."""
    inputs = jax.vmap(partial(encode, angles=angles))(obs)
    total = scale.num + len(obs)
    share = len(obs) / total
    mean, var = jnp.mean(inputs, axis=0), jnp.var(inputs, axis=0)
    between = share * (1.0 - share) * jnp.square(mean - scale.mean)
    return Scale(total, scale.mean + share * (mean - scale.mean), (1.0 - share) * scale.var + share * var + between)


def inputs(scale: Scale, obs: Array, angles: tuple[int, ...]) -> Array:
    """What a network sees of an observation [O]: [I], within +-10 standard deviations."""
    centred = (encode(obs, angles) - scale.mean) / jnp.sqrt(scale.var + 1e-6)
    return jnp.clip(centred, -10.0, 10.0)


def init(network: MLP, key: Key, spec: Spec, *, log_std: float | Array) -> Params:
    """A policy whose mean is near the middle of the bounds: the output layer starts at a hundredth."""
    params = jax.tree.map(jnp.asarray, network.init(key, jnp.zeros(input_size(spec))))
    last = f"layer_{len(network.hidden)}"
    params = {"params": dict(params["params"])}
    params["params"][last] = jax.tree.map(lambda leaf: 0.01 * leaf, params["params"][last])
    return Params(params, jnp.full(spec.box.size, log_std, jnp.float32))


def distribution(network: MLP, params: Params, seen: Array) -> Gaussian:
    """Of u, at a network's input [I]."""
    return Gaussian(jnp.asarray(network.apply(params.network, seen)), params.log_std)


def squash(box: Box, raw: Array) -> Array:
    """Action [A] within the bounds, of u [A]."""
    return jnp.asarray(box.low) + 0.5 * (box.high - box.low) * (jnp.tanh(raw) + 1.0)


def unsquash(box: Box, action: Array) -> Array:
    """The inverse of `squash`, action [A] -> u [A], up to what float32 can tell."""
    unit = 2.0 * (action - box.low) / (box.high - box.low) - 1.0
    return jnp.arctanh(jnp.clip(unit, -EDGE, EDGE))


def sample(gaussian: Gaussian, key: Key) -> Array:
    """Draw a u [A]."""
    return gaussian.mean + jnp.exp(gaussian.log_std) * jax.random.normal(key, gaussian.mean.shape)


def log_prob(gaussian: Gaussian, raw: Array) -> Array:
    """Log-density of u [A], []."""
    error = (raw - gaussian.mean) * jnp.exp(-gaussian.log_std)
    return -jnp.sum(0.5 * jnp.square(error) + gaussian.log_std + 0.5 * math.log(2.0 * math.pi))


def entropy(gaussian: Gaussian) -> Array:
    """Differential entropy of u, [] in nats."""
    return jnp.sum(gaussian.log_std + 0.5 * math.log(2.0 * math.pi * math.e))


def kl(old: Gaussian, new: Gaussian) -> Array:
    """KL(old || new), [] in nats."""
    var_ratio = jnp.exp(2.0 * (old.log_std - new.log_std))
    shift = jnp.square((old.mean - new.mean) * jnp.exp(-new.log_std))
    return 0.5 * jnp.sum(var_ratio + shift - 1.0 - 2.0 * (old.log_std - new.log_std))
