r"""Targets for Q from a model's imagination: model-based value expansion (MVE) and its stochastic ensemble (STEVE).

A transition (s, a, r, s') of replayed data is step 0, and H imagined steps follow from s' under the policy. So a row
has H + 1 steps: ``reward`` [H + 1] (the first one real), ``discount`` [H + 1] (gamma times the chance that the episode
goes on after the step; 0 after a real termination) and ``value`` [H + 1], V of the state *after* each step.
:math:`D_h = d_0 \cdots d_{h-1}` is the weight of step h.

What lies beyond a certain end (weight 0) counts as 0, even where the model's prediction there is not finite. For
targets of an imagined state k (the TD-k trick with any of the functions), pass the rows from step k on.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmbrl.types import Array

MIN_VARIANCE = 1e-8  # as in the code that Buckman et al. 2018 released, and so the next
COVARIANCE_RIDGE = 1e-3


class Expanded(NamedTuple):
    """A STEVE target and how it came about.

    Attributes:
        target: [], the weighted mean over horizons.
        weight: [H + 1], sums to 1; ``1 - weight[0]`` is how much the model is used.
        mean: [H + 1], each horizon's mean target, 0 where it is not finite (and then without weight).
    """

    target: Array
    weight: Array
    mean: Array


def reach(discount: Array) -> Array:
    r"""The weight :math:`D_h` of each step, [H + 1] -> [H + 1], starting with 1.

    With gamma left out of ``discount`` it is the probability that step h is reached, which weighs the TD-k losses.

    >>> reach(jnp.array([0.5, 0.5, 0.0, 1.0]))
    Array([1.  , 0.5 , 0.25, 0.  ], dtype=float32)
    """
    chex.assert_rank(discount, 1)
    return jnp.concatenate([jnp.ones(1, discount.dtype), jnp.cumprod(discount)[:-1]])


def mve(reward: Array, discount: Array, value: Array) -> Array:
    r"""MVE targets of the Q of every step (Feinberg et al. 2018, arXiv:1803.00101, Sec. 3.1, Alg. 1).

    .. math:: T_k = \sum_{h=k}^{H} \frac{D_h}{D_k} r_h + \frac{D_{H+1}}{D_k} V(s_{H+1})

    Entry 0 is the target of the replayed (s, a), with H = 0 the TD target. Entry k > 0 belongs to the k-th imagined
    state and action: the TD-k trick trains Q on all of them, each weighted by `reach`.

    >>> mve(jnp.ones(3), jnp.full(3, 0.5), jnp.array(8.0))
    Array([2.75, 3.5 , 5.  ], dtype=float32)

    Args:
        reward: [H + 1].
        discount: [H + 1].
        value: [], V of the last imagined state.

    Returns:
        [H + 1].
    """
    chex.assert_rank([reward, value], [1, 0])
    chex.assert_equal_shape([reward, discount])

    def back(later: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        target = step[0] + jnp.where(step[1] == 0, 0.0, step[1] * later)
        return target, target

    return jax.lax.scan(back, value, (reward, discount), reverse=True)[1]


def horizon_targets(reward: Array, discount: Array, value: Array) -> Array:
    r"""The target of step 0 under every horizon h = 0, ..., H (Buckman et al. 2018, arXiv:1807.01675, Sec. 3).

    .. math:: T_h = \sum_{i=0}^{h} D_i r_i + D_{h+1} V(s_{h+1})

    Args:
        reward: [H + 1].
        discount: [H + 1].
        value: [H + 1].

    Returns:
        [H + 1], from the TD target to `mve`'s.
    """
    chex.assert_rank(reward, 1)
    chex.assert_equal_shape([reward, discount, value])
    weight = reach(discount)
    after = weight * discount
    total = jnp.cumsum(jnp.where(weight == 0, 0.0, weight * reward))
    return total + jnp.where(after == 0, 0.0, after * value)


def candidate_targets(reward: Array, discount: Array, value: Array) -> Array:
    """`horizon_targets` of every combination of ensemble members (Buckman et al. 2018, Sec. 3).

    Args:
        reward: [H + 1, M, L], of each model's rollout by each reward function; its first row is the real reward.
        discount: [H + 1, M], of each model's rollout; its first row is the real step's.
        value: [H + 1, M, K], of each model's rollout by each Q.

    Returns:
        [H + 1, C], where C = M L K.
    """
    chex.assert_rank([reward, discount, value], [3, 2, 3])
    chex.assert_equal_shape_prefix([reward, discount, value], 2)
    each_value = jax.vmap(horizon_targets, in_axes=(None, None, 1), out_axes=1)
    each_reward = jax.vmap(each_value, in_axes=(1, None, None), out_axes=1)
    each_model = jax.vmap(each_reward, in_axes=(1, 1, 1), out_axes=1)
    return each_model(reward, discount, value).reshape(reward.shape[0], -1)


def steve(
    candidates: Array,
    *,
    covariance: bool = False,
    min_variance: float | Array = MIN_VARIANCE,
    ridge: float | Array = COVARIANCE_RIDGE,
) -> Expanded:
    r"""The mean of all horizons' targets, each weighted by its certainty (Buckman et al. 2018, Sec. 3).

    .. math:: \sum_h w_h \mu_h, \qquad w_h \propto \frac{1}{\sigma_h^2 + \epsilon}
        \quad\text{or, with the covariance,}\quad w \propto (S + \rho I)^{-1} 1

    where :math:`\mu_h` and :math:`\sigma_h^2` are the mean and the variance of horizon h's candidates, and S is the sum
    (not the mean) over candidates of the products of their deviations, as in the released code. A horizon whose
    candidates or their variance are not all finite gets no weight. Where no variance exceeds ``min_variance`` by far
    (a single candidate, say), the horizons count equally. With the covariance weights may be negative.

    Args:
        candidates: [H + 1, C], from `candidate_targets`.
        covariance: use the covariance between horizons, rather than take them for independent.
        min_variance: [], epsilon.
        ridge: [], rho.

    Returns:
        Target and weights; not a number where not even one horizon is finite.
    """
    chex.assert_rank(candidates, 2)
    spread = jnp.var(candidates, axis=1)
    finite = jnp.isfinite(spread)  # then so are all the candidates
    known = jnp.where(finite[:, None], candidates, 0.0)
    mean = jnp.mean(known, axis=1)
    if covariance:
        deviation = known - mean[:, None]
        scatter = deviation @ deviation.T + ridge * jnp.eye(len(mean), dtype=mean.dtype)
        certainty = jnp.linalg.solve(scatter, finite.astype(mean.dtype))
    else:
        certainty = jnp.where(finite, 1.0 / (spread + min_variance), 0.0)
    weight = certainty / jnp.sum(certainty)
    return Expanded(jnp.sum(weight * mean), weight, mean)
