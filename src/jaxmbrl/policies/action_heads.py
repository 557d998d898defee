"""Action heads: how an actor's raw outputs become a distribution over actions.

Continuous actions are *unit* actions, within or about [-1, 1]; discrete ones are numbers of classes.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.config import ConfigError
from jaxmbrl.policies import gaussian, squashed
from jaxmbrl.policies.gaussian import Gaussian
from jaxmbrl.types import Array, Discrete, Key, Spec

FREE_STD, REACH = 5.0, 5.0  # Hafner et al. 2020, released code: std at first, and bound of the mean before its tanh
LEAST_STD, MOST_STD = 0.1, 1.0  # Hafner et al. 2023, released code
UNIMIX = 0.01  # Hafner et al. 2023: share of chance in a policy over classes


class ActionHead(NamedTuple):
    """A family of distributions over actions.

    Attributes:
        num_outputs: raw outputs that an actor must give.
        sample: ``(key, outputs) -> action``, re-parametrised where actions are continuous.
        mode: ``(outputs) -> action``.
        log_prob: ``(outputs, action) -> []``.
        entropy: ``(key, outputs) -> []`` in nats, in closed form or from one re-parametrised sample.
    """

    num_outputs: int
    sample: Callable[[Key, Array], Array]
    mode: Callable[[Array], Array]
    log_prob: Callable[[Array, Array], Array]
    entropy: Callable[[Key, Array], Array]


def make(spec: Spec, name: str) -> ActionHead:
    """The head called ``name`` (one of `CONTINUOUS`) for continuous actions, `categorical` for discrete ones."""
    if isinstance(spec.action, Discrete):
        return categorical(spec.action.num)
    if name not in CONTINUOUS:
        raise ConfigError(f"distribution: got {name!r}, needs one of {', '.join(CONTINUOUS)}")
    return CONTINUOUS[name](spec.box.size)


def categorical(num: int, *, unimix: float = UNIMIX) -> ActionHead:
    """One of ``num`` classes, each with a share of chance."""

    def log_chance(outputs: Array) -> Array:
        return jnp.log((1.0 - unimix) * jax.nn.softmax(outputs) + unimix / num)

    return ActionHead(
        num,
        lambda key, outputs: jax.random.categorical(key, log_chance(outputs)).astype(jnp.int32),
        lambda outputs: jnp.argmax(outputs).astype(jnp.int32),
        lambda outputs, action: log_chance(outputs)[action],
        lambda key, outputs: -jnp.sum(jnp.exp(log_chance(outputs)) * log_chance(outputs)),
    )


def tanh_normal(size: int) -> ActionHead:
    """A squashed Gaussian that begins wide, its mean within +-5 before the tanh (Dreamer v1, released code)."""
    shift = math.log(math.expm1(FREE_STD))

    def parts(outputs: Array) -> tuple[Array, Array]:
        mean, raw = jnp.split(outputs, 2)
        return REACH * jnp.tanh(mean / REACH), jnp.log(jax.nn.softplus(raw + shift) + 1e-4)

    def log_prob(outputs: Array, action: Array) -> Array:
        mean, log_std = parts(outputs)
        return squashed.act(mean, log_std, squashed.infer_noise(mean, log_std, action))[1]

    def sample(key: Key, outputs: Array) -> tuple[Array, Array]:
        return squashed.act(*parts(outputs), jax.random.normal(key, (size,)))

    return ActionHead(
        2 * size,
        lambda key, outputs: sample(key, outputs)[0],
        lambda outputs: jnp.tanh(parts(outputs)[0]),
        log_prob,
        lambda key, outputs: -sample(key, outputs)[1],
    )


def normal(size: int) -> ActionHead:
    """A Gaussian whose mean lies within the bounds, and its standard deviation within 0.1 and 1 (Dreamer v3)."""

    def parts(outputs: Array) -> Gaussian:
        mean, raw = jnp.split(outputs, 2)
        std = LEAST_STD + (MOST_STD - LEAST_STD) * jax.nn.sigmoid(raw + 2.0)
        return Gaussian(jnp.tanh(mean), jnp.log(std))

    return ActionHead(
        2 * size,
        lambda key, outputs: gaussian.sample(parts(outputs), key),
        lambda outputs: parts(outputs).mean,
        lambda outputs, action: gaussian.log_prob(parts(outputs), action),
        lambda key, outputs: gaussian.entropy(parts(outputs)),
    )


CONTINUOUS: dict[str, Callable[[int], ActionHead]] = {"normal": normal, "tanh_normal": tanh_normal}
