"""Rows of experience that hold a termination, a time limit and a cut, in float64, and what they are worth."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

T = 12
GAMMA = 0.9


class Steps(NamedTuple):
    """A row of three episodes: it ends at step 3 (terminated), at step 8 (time limit), and is cut after step 11."""

    reward: np.ndarray
    discount: np.ndarray
    value_t: np.ndarray
    value_tp1: np.ndarray
    log_ratio: np.ndarray
    ended: np.ndarray


def episodes(seed=0, gamma=GAMMA):
    random = np.random.default_rng(seed)
    terminated, truncated = np.zeros(T, bool), np.zeros(T, bool)
    terminated[3] = truncated[8] = True
    value_t = random.normal(size=T)
    ended = terminated | truncated
    # The value of the true next observation is the next entry's, except where an episode or the row ends.
    value_tp1 = np.where(ended | (np.arange(T) == T - 1), random.normal(size=T), np.roll(value_t, -1))
    discount = gamma * (1.0 - terminated)
    return Steps(random.normal(size=T), discount, value_t, value_tp1, random.normal(size=T), ended)


def float32(*arrays):
    return [jnp.asarray(x) if x.dtype == bool else jnp.asarray(x, jnp.float32) for x in arrays]


def episode_end(steps, t):
    """One past the last step of the episode of step t."""
    return next((k + 1 for k in range(t, T) if steps.ended[k]), T)


def n_step(steps, t, n):
    """The n-step return as a sum, never beyond the episode."""
    end = min(t + n, episode_end(steps, t))
    weights = np.concatenate([[1.0], np.cumprod(steps.discount[t:end])])
    return weights[:-1] @ steps.reward[t:end] + weights[-1] * steps.value_tp1[end - 1]


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)
