r"""Scalar heads: how a network's raw outputs stand for a number, and how they learn one.

``symexp_twohot`` (Hafner et al. 2023, arXiv:2301.04104, Eq. 9 to 11) classifies among bins that lie exponentially far
apart, so that gradients do not depend on the size of what is learned.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.types import Array

LARGEST = 20.0  # bins reach from -symexp(20) to symexp(20)


class Head(NamedTuple):
    """A scalar head.

    Attributes:
        num_outputs: raw outputs that a network must give.
        mean: ``(outputs [num_outputs]) -> []``.
        loss: ``(outputs, target []) -> []``, a negative log-likelihood.
    """

    num_outputs: int
    mean: Callable[[Array], Array]
    loss: Callable[[Array, Array], Array]


def symlog(x: Array) -> Array:
    """sign(x) log(1 + |x|): as x near 0, as its logarithm far from it."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: Array) -> Array:
    """The inverse of `symlog`."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


def two_hot(x: Array, bins: Array) -> Array:
    """Weights [K] on the two bins next to ``x`` [] whose mean is x; all on the last bin where x lies beyond it.

    Args:
        x: [].
        bins: [K], increasing.
    """
    inside = jnp.clip(x, bins[0], bins[-1])
    above = jnp.clip(jnp.searchsorted(bins, inside, side="right"), 1, len(bins) - 1)
    low, high = bins[above - 1], bins[above]
    share = (inside - low) / (high - low)
    place = jnp.arange(len(bins))
    return jnp.where(place == above - 1, 1.0 - share, 0.0) + jnp.where(place == above, share, 0.0)


NORMAL = Head(1, lambda outputs: outputs[0], lambda outputs, target: 0.5 * jnp.square(outputs[0] - target))
"""A Gaussian of variance 1, without its constant: half the squared error (PlaNet, Dreamer v1)."""


def symexp_twohot(num: int = 255) -> Head:
    """A mixture of ``num`` bins (odd, so that one is 0), with the cross-entropy to the target's two bins."""
    half = symexp(jnp.linspace(-LARGEST, 0.0, (num + 1) // 2))
    bins = jnp.concatenate([half, -half[:-1][::-1]])  # exactly symmetric: equal chances mean exactly 0

    def mean(outputs: Array) -> Array:
        chance = jax.nn.softmax(outputs)
        middle = num // 2  # opposite bins first, so that large numbers cancel before small ones are added
        pairs = (chance[middle + 1 :] - chance[:middle][::-1]) * bins[middle + 1 :]
        return jnp.sum(pairs)

    def loss(outputs: Array, target: Array) -> Array:
        return -jnp.sum(two_hot(target, bins) * jax.nn.log_softmax(outputs))

    return Head(num, mean, loss)


HEADS: dict[str, Callable[[], Head]] = {"normal": lambda: NORMAL, "symexp_twohot": symexp_twohot}
