"""Retrace and V-trace against sums over products of importance weights in float64, and what they reduce to."""

import jax
import numpy as np
import pytest
from episode_rows import T, assert_close, episode_end, episodes, float32

from jaxmbrl import values


def off_policy_sum(start, end, weight_of_step, trace, discount):
    """Sum over k of (product of d and c on the way) times the step's weighted error."""
    total, weight = 0.0, 1.0
    for k in range(start, end):
        total += weight * weight_of_step[k]
        if k + 1 < end:
            weight *= discount[k] * trace(k)
    return total


@pytest.mark.parametrize("lambda_", [0.0, 0.6, 1.0])
def test_retrace_is_its_sum(lambda_):
    steps = episodes(5)
    action_value = np.random.default_rng(6).normal(size=T)
    error = steps.reward + steps.discount * steps.value_tp1 - action_value
    cut = lambda_ * np.minimum(1.0, np.exp(steps.log_ratio))
    assert np.any(cut < lambda_) or lambda_ == 0
    expected = [
        action_value[t] + off_policy_sum(t, episode_end(steps, t), error, lambda k: cut[k + 1], steps.discount)
        for t in range(T)
    ]
    row = float32(steps.reward, steps.discount, action_value, steps.value_tp1, steps.log_ratio, steps.ended)
    assert_close(jax.jit(values.retrace)(*row, lambda_=lambda_), expected)


def test_retrace_on_policy_is_the_n_step_return():
    """A deterministic policy that acted itself: V of the next state is Q of its action there, and the cuts are 1."""
    steps = episodes(7)
    row = float32(steps.reward, steps.discount, steps.value_t, steps.value_tp1, np.zeros(T), steps.ended)
    expected = values.n_step_returns(row[0], row[1], row[3], row[5], n=T)
    assert_close(values.retrace(*row, lambda_=1.0), expected)
    assert_close(values.retrace(*row, lambda_=0.0), row[0] + row[1] * row[3])


@pytest.mark.parametrize(("max_ratio", "max_trace", "lambda_"), [(1.0, 1.0, 1.0), (2.0, 0.7, 0.9)])
def test_vtrace_is_its_sum(max_ratio, max_trace, lambda_):
    steps = episodes(8)
    ratio = np.exp(steps.log_ratio)
    error = np.minimum(max_ratio, ratio) * (steps.reward + steps.discount * steps.value_tp1 - steps.value_t)
    trace = lambda_ * np.minimum(max_trace, ratio)
    target = np.array(
        [
            steps.value_t[t] + off_policy_sum(t, episode_end(steps, t), error, lambda k: trace[k], steps.discount)
            for t in range(T)
        ]
    )
    row = float32(steps.reward, steps.discount, steps.value_t, steps.value_tp1, steps.log_ratio, steps.ended)
    result = jax.jit(values.vtrace)(*row, lambda_=lambda_, max_ratio=max_ratio, max_trace=max_trace)
    assert_close(result.target, target)
    borders = steps.ended | (np.arange(T) == T - 1)
    after = np.where(borders, steps.value_tp1, np.roll(target, -1))
    advantage = np.minimum(1.0, ratio) * (steps.reward + steps.discount * after - steps.value_t)
    assert_close(result.advantage, advantage)


def test_vtrace_on_policy_is_the_n_step_return():
    steps = episodes(9)
    row = float32(steps.reward, steps.discount, steps.value_t, steps.value_tp1, np.zeros(T), steps.ended)
    result = values.vtrace(*row)
    expected = values.n_step_returns(row[0], row[1], row[3], row[5], n=T)
    assert_close(result.target, expected)
    assert_close(result.advantage, expected - row[2])
