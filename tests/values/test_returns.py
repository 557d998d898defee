"""Returns against sums written out in float64, over rows that hold terminations and time limits."""

import doctest
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from episode_rows import GAMMA, Steps, T, assert_close, episode_end, episodes, float32, n_step

from jaxmbrl import values
from jaxmbrl.values import expansion, off_policy, returns


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_n_step_returns_are_sums_within_an_episode(n):
    steps = episodes()
    row = float32(steps.reward, steps.discount, steps.value_tp1, steps.ended)
    expected = [n_step(steps, t, n) for t in range(T)]
    assert_close(jax.jit(functools.partial(values.n_step_returns, n=n))(*row), expected)


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.95, 1.0])
def test_lambda_returns_mix_n_step_returns(lambda_):
    """(1 - lambda) sum over n of lambda^(n - 1) G^(n), with the rest of the weight on the longest."""
    steps, expected = episodes(1), []
    for t in range(T):
        longest = episode_end(steps, t) - t
        mix = sum((1 - lambda_) * lambda_ ** (n - 1) * n_step(steps, t, n) for n in range(1, longest))
        expected.append(mix + lambda_ ** (longest - 1) * n_step(steps, t, longest))
    row = float32(steps.reward, steps.discount, steps.value_tp1, steps.ended)
    assert_close(jax.jit(values.lambda_returns)(*row, lambda_=lambda_), expected)


def test_lambda_0_is_td_and_lambda_1_is_monte_carlo():
    steps = episodes(2)
    row = float32(steps.reward, steps.discount, steps.value_tp1, steps.ended)
    td = np.asarray(row[0] + row[1] * row[2])
    assert_close(values.lambda_returns(*row, lambda_=0.0), td)
    assert_close(values.n_step_returns(*row, n=1), td)
    assert_close(values.lambda_returns(*row, lambda_=1.0), values.n_step_returns(*row, n=T))
    discounts = GAMMA ** np.arange(4)  # the first episode terminates: nothing is bootstrapped
    assert_close(values.lambda_returns(*row, lambda_=1.0)[0], discounts @ steps.reward[:4])


@pytest.mark.parametrize("lambda_", [0.0, 0.7, 1.0])
def test_gae_is_the_discounted_sum_of_errors(lambda_):
    steps, expected = episodes(3), []
    error = steps.reward + steps.discount * steps.value_tp1 - steps.value_t
    for t in range(T):
        end = episode_end(steps, t)
        weights = np.concatenate([[1.0], np.cumprod(lambda_ * steps.discount[t : end - 1])])
        expected.append(weights @ error[t:end])
    row = float32(steps.reward, steps.discount, steps.value_t, steps.value_tp1, steps.ended)
    advantage = jax.jit(values.gae)(*row, lambda_=lambda_)
    assert_close(advantage, expected)
    target = values.lambda_returns(row[0], row[1], row[3], row[4], lambda_=lambda_)
    assert_close(advantage, target - row[2])


def test_a_time_limit_bootstraps_and_a_termination_does_not():
    """The probe: reward 1 a step and V = 7 beyond. Taking the one for the other is wrong by gamma^2 7."""
    ones, sevens, ended = jnp.ones(2), jnp.full(2, 7.0), jnp.array([False, True])
    limit = values.lambda_returns(ones, jnp.full(2, 0.5), sevens, ended)
    end = values.lambda_returns(ones, jnp.array([0.5, 0.0]), sevens, ended)
    assert_close(limit, [1.5 + 0.25 * 7, 1 + 0.5 * 7])
    assert_close(end, [1.5, 1.0])


ROWS = {
    "n_step": lambda s: values.n_step_returns(s.reward, s.discount, s.value_tp1, s.ended, n=5),
    "lambda": lambda s: values.lambda_returns(s.reward, s.discount, s.value_tp1, s.ended, lambda_=0.9),
    "gae": lambda s: values.gae(s.reward, s.discount, s.value_t, s.value_tp1, s.ended),
    "retrace": lambda s: values.retrace(s.reward, s.discount, s.value_t, s.value_tp1, s.log_ratio, s.ended),
    "vtrace": lambda s: values.vtrace(s.reward, s.discount, s.value_t, s.value_tp1, s.log_ratio, s.ended),
}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_nothing_leaks_across_the_end_of_an_episode(name):
    """The gradient of the first two episodes' results by what lies after them is zero, to the last bit."""
    steps = Steps(*float32(*episodes(4)))

    def before(numbers):
        return sum(jnp.sum(leaf[:9]) for leaf in jax.tree.leaves(ROWS[name](numbers._replace(ended=steps.ended))))

    gradient = jax.grad(before)(steps._replace(ended=jnp.zeros(())))
    for field in ("reward", "discount", "value_t", "value_tp1", "log_ratio"):
        np.testing.assert_array_equal(getattr(gradient, field)[9:], 0.0)
    assert np.all(gradient.reward[:9] != 0) and gradient.value_tp1[8] != 0 and gradient.value_tp1[3] == 0


@pytest.mark.parametrize("module", [returns, off_policy, expansion])
def test_examples_are_true(module):
    assert doctest.testmod(module).failed == 0


def test_shapes_and_n_are_checked():
    row = jnp.ones(3), jnp.ones(3), jnp.ones(3), jnp.zeros(3, bool)
    with pytest.raises(ValueError, match="n: got 0"):
        values.n_step_returns(*row, n=0)
    with pytest.raises(AssertionError):
        values.lambda_returns(jnp.ones(2), *row[1:])
    with pytest.raises(AssertionError):
        values.lambda_returns(*[jnp.stack([x, x]) for x in row])  # a batch: vmap is the caller's
