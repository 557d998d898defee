r"""The tanh-Gaussian policy, re-parametrised: :math:`u = \tanh(\mu + \sigma \epsilon)`, within (-1, 1).

Learners see *unit actions* u; `from_unit` maps them to the bounds that an environment wants. Densities are those of u.
"""

import math

import jax
import jax.numpy as jnp

from jaxmbrl.models.actions import from_unit as from_unit
from jaxmbrl.models.actions import to_unit as to_unit
from jaxmbrl.types import Array

MIN_LOG_STD, MAX_LOG_STD = -20.0, 2.0  # Haarnoja et al. 2018, released code
SATURATED = 1.0 - 1e-6  # the nearest to 1 that an inverse tanh is taken of, in float32
LOG_SQRT_2_PI = 0.5 * math.log(2.0 * math.pi)


def split(outputs: Array) -> tuple[Array, Array]:
    """A network's outputs [2 A] as the mean [A] and the bounded logarithm of the standard deviation [A]."""
    mean, log_std = jnp.split(outputs, 2, axis=-1)
    return mean, jnp.clip(log_std, MIN_LOG_STD, MAX_LOG_STD)


def act(mean: Array, log_std: Array, noise: Array) -> tuple[Array, Array]:
    r"""The unit action that standard normal noise stands for, and its log-density.

    :math:`\log \pi(u) = \sum_i \log N(x_i; \mu_i, \sigma_i) - \log(1 - \tanh^2 x_i)` with x = mu + sigma noise
    (Haarnoja et al. 2018, App. C, arXiv:1801.01290), the second term as 2 (log 2 - x - softplus(-2 x)), which does not
    lose its digits where tanh is near 1.

    Args:
        mean: [A], before the tanh.
        log_std: [A].
        noise: [A].

    Returns:
        The unit action [A] and log pi [].
    """
    x = mean + jnp.exp(log_std) * noise
    gaussian = -0.5 * jnp.square(noise) - log_std - LOG_SQRT_2_PI
    squash = 2.0 * (math.log(2.0) - x - jax.nn.softplus(-2.0 * x))
    return jnp.tanh(x), jnp.sum(gaussian - squash)


def infer_noise(mean: Array, log_std: Array, unit: Array) -> Array:
    """The noise [A] with which `act` gives a unit action [A], as near as its saturation allows."""
    x = jnp.arctanh(jnp.clip(unit, -SATURATED, SATURATED))
    return (x - mean) * jnp.exp(-log_std)
