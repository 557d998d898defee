"""Returns of a sequence that another policy gathered: Retrace and V-trace. See the package for the arguments.

``log_ratio`` [T] is log pi(a_t | s_t) - log mu(a_t | s_t): of the policy that is judged, to the one that acted.
"""

from typing import NamedTuple

import chex
import jax.numpy as jnp

from jaxmbrl.types import Array
from jaxmbrl.values.returns import backward_sum


class VTrace(NamedTuple):
    """What V-trace gives.

    Attributes:
        target: [T], for V(s_t).
        advantage: [T], for the policy gradient at (s_t, a_t), its importance weight included.
    """

    target: Array
    advantage: Array


def retrace(
    reward: Array,
    discount: Array,
    action_value: Array,
    value_tp1: Array,
    log_ratio: Array,
    ended: Array,
    *,
    lambda_: float | Array = 1.0,
) -> Array:
    r"""Retrace targets of Q(s_t, a_t) (Munos et al. 2016, arXiv:1606.02647, Eq. 3).

    .. math:: G_t = r_t + d_t \left[V_{t+1} + c_{t+1} (G_{t+1} - Q_{t+1})\right]

    with :math:`c_t = \lambda \min(1, \pi / \mu)`, where :math:`V_{t+1}` is the expectation of Q under the policy that
    is judged. At the end of an episode and of the row nothing follows: :math:`G_t = r_t + d_t V_{t+1}`.

    Args:
        reward: [T].
        discount: [T].
        action_value: [T], Q(s_t, a_t).
        value_tp1: [T].
        log_ratio: [T].
        ended: bool [T].
        lambda_: [].

    Returns:
        [T].
    """
    chex.assert_rank(reward, 1)
    chex.assert_equal_shape([reward, discount, action_value, value_tp1, log_ratio, ended])
    cut = lambda_ * jnp.exp(jnp.minimum(log_ratio, 0.0))
    next_cut = jnp.where(ended, 0.0, jnp.roll(cut, -1).at[-1].set(0.0))
    # The corrections G_t - Q_t obey a recursion without the neighbour's Q.
    error = reward + discount * value_tp1 - action_value
    return action_value + backward_sum(error, discount * next_cut)


def vtrace(
    reward: Array,
    discount: Array,
    value_t: Array,
    value_tp1: Array,
    log_ratio: Array,
    ended: Array,
    *,
    lambda_: float | Array = 1.0,
    max_ratio: float | Array = 1.0,
    max_trace: float | Array = 1.0,
    max_gradient_ratio: float | Array = 1.0,
) -> VTrace:
    r"""V-trace targets of V(s_t), and advantages (Espeholt et al. 2018, arXiv:1802.01561, Sec. 4).

    .. math:: v_t = V_t + \rho_t (r_t + d_t V_{t+1} - V_t) + d_t c_t (v_{t+1} - V_{t+1})

    with :math:`\rho_t = \min(\bar\rho, \pi/\mu)` and :math:`c_t = \lambda \min(\bar c, \pi/\mu)`. The advantage is
    :math:`\rho'_t (r_t + d_t v_{t+1} - V_t)`. At the end of an episode and of the row :math:`v_{t+1} = V_{t+1}`.

    Args:
        reward: [T].
        discount: [T].
        value_t: [T], V of the observation before the step.
        value_tp1: [T].
        log_ratio: [T].
        ended: bool [T].
        lambda_: [].
        max_ratio: [], the bound of rho: it decides what the targets converge to.
        max_trace: [], the bound of c: it decides how fast.
        max_gradient_ratio: [], the bound of the advantage's own importance weight.

    Returns:
        Targets and advantages.
    """
    chex.assert_rank(reward, 1)
    chex.assert_equal_shape([reward, discount, value_t, value_tp1, log_ratio, ended])
    ratio = jnp.exp(log_ratio)
    error = jnp.minimum(max_ratio, ratio) * (reward + discount * value_tp1 - value_t)
    trace = jnp.where(ended, 0.0, lambda_ * jnp.minimum(max_trace, ratio))
    target = value_t + backward_sum(error, discount * trace)
    next_target = jnp.where(ended.at[-1].set(True), value_tp1, jnp.roll(target, -1))
    advantage = jnp.minimum(max_gradient_ratio, ratio) * (reward + discount * next_target - value_t)
    return VTrace(target, advantage)
