"""On-policy returns of one sequence: n-step, lambda, and generalised advantages. See the package for the arguments."""

import chex
import jax
import jax.numpy as jnp

from jaxmbrl.types import Array


def n_step_returns(reward: Array, discount: Array, value_tp1: Array, ended: Array, *, n: int) -> Array:
    r"""n-step returns of every step.

    .. math:: G^{(1)}_t = r_t + d_t V_{t+1}, \qquad G^{(n)}_t = r_t + d_t G^{(n-1)}_{t+1}

    A return that meets the end of its episode, or of the row, bootstraps there: it has fewer than n steps.

    >>> n_step_returns(jnp.ones(3), jnp.full(3, 0.5), jnp.full(3, 8.0), jnp.zeros(3, bool), n=2)
    Array([3.5, 3.5, 5. ], dtype=float32)

    Args:
        reward: [T].
        discount: [T].
        value_tp1: [T].
        ended: bool [T].
        n: at least 1.

    Returns:
        [T]; the cost is O(n T).
    """
    _check_row(reward, discount, value_tp1, ended)
    if n < 1:
        raise ValueError(f"n: got {n}, needs at least 1")
    last = ended.at[-1].set(True)

    def lengthen(_: int, returns: Array) -> Array:
        return reward + discount * jnp.where(last, value_tp1, jnp.roll(returns, -1))

    return jax.lax.fori_loop(0, n - 1, lengthen, reward + discount * value_tp1)


def lambda_returns(
    reward: Array, discount: Array, value_tp1: Array, ended: Array, *, lambda_: float | Array = 1.0
) -> Array:
    r"""Lambda-returns of every step (Sutton and Barto 2018, Sec. 12.1).

    .. math:: G_t = r_t + d_t \left[(1 - \lambda) V_{t+1} + \lambda G_{t+1}\right]

    with :math:`G_{t+1} = V_{t+1}` at the end of an episode and of the row. 0 is TD(0); 1 is Monte Carlo up to there.

    >>> lambda_returns(jnp.ones(3), jnp.full(3, 0.5), jnp.full(3, 8.0), jnp.zeros(3, bool), lambda_=1.0)
    Array([2.75, 3.5 , 5.  ], dtype=float32)

    Args:
        reward: [T].
        discount: [T].
        value_tp1: [T].
        ended: bool [T].
        lambda_: [] or [T], how much of the return after step t is used.

    Returns:
        [T].
    """
    _check_row(reward, discount, value_tp1, ended)
    keep = jnp.where(ended, 0.0, lambda_)

    def back(later: Array, step: tuple[Array, ...]) -> tuple[Array, Array]:
        reward, discount, value, keep = step
        target = reward + discount * ((1.0 - keep) * value + keep * later)
        return target, target

    return jax.lax.scan(back, value_tp1[-1], (reward, discount, value_tp1, keep), reverse=True)[1]


def gae(
    reward: Array, discount: Array, value_t: Array, value_tp1: Array, ended: Array, *, lambda_: float | Array = 0.95
) -> Array:
    r"""Generalised advantage estimates (Schulman et al. 2016, arXiv:1506.02438, Eq. 16).

    .. math:: A_t = \delta_t + d_t \lambda A_{t+1}, \qquad \delta_t = r_t + d_t V_{t+1} - V_t

    with :math:`A_{t+1} = 0` at the end of an episode and of the row. Where :math:`V_{t+1}` is the next entry of
    ``value_t``, it is the lambda-return less :math:`V_t`.

    Args:
        reward: [T].
        discount: [T].
        value_t: [T], V of the observation before the step.
        value_tp1: [T].
        ended: bool [T].
        lambda_: [] or [T].

    Returns:
        [T].
    """
    _check_row(reward, discount, value_tp1, ended)
    chex.assert_equal_shape([reward, value_t])
    error = reward + discount * value_tp1 - value_t
    return backward_sum(error, jnp.where(ended, 0.0, discount * lambda_))


def backward_sum(term: Array, weight: Array) -> Array:
    """``S_t = term_t + weight_t S_{t+1}``, all [T], with nothing beyond the row."""

    def back(later: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        total = step[0] + step[1] * later
        return total, total

    return jax.lax.scan(back, jnp.zeros((), term.dtype), (term, weight), reverse=True)[1]


def _check_row(reward: Array, discount: Array, value_tp1: Array, ended: Array) -> None:
    chex.assert_rank(reward, 1)
    chex.assert_equal_shape([reward, discount, value_tp1, ended])
