"""The learned value against closed forms: its target, its loss, and what it converges to on a corridor."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import replay as replays
from jaxmbrl.types import Box, Spec, Transition
from jaxmbrl.values import state_value

LENGTH, GAMMA = 5, 0.8
SPEC = Spec(
    name="corridor",
    observation=jax.ShapeDtypeStruct((1,), jnp.float32),
    action=Box(np.array([-1.0], np.float32), np.array([1.0], np.float32)),
    episode_length=LENGTH,
)
FIT = state_value.Config(
    hidden=(32,), discount=GAMMA, batch_size=32, steps=4000, learning_rate=3e-3, expectile=0.5, target_rate=0.05
)


def corridor(*, ends, stumble=False):
    """Cells 0, 1, ..., 4, a reward of 1 a step to the right; beyond the last cell a termination or a time limit.

    With ``stumble`` every cell has a second transition, which terminates at once.
    """
    cell = np.arange(LENGTH, dtype=np.float32)
    if stumble:
        cell = np.concatenate([cell, cell])
    fell = np.arange(len(cell)) >= LENGTH
    last = (cell == LENGTH - 1) & ~fell
    # A time limit in the last cell leads back to it: its own value lies beyond.
    next_cell = np.where(last & (ends == "truncated"), cell, cell + 1)
    rows = Transition(
        obs=cell[:, None],
        action=np.zeros((len(cell), 1), np.float32),
        reward=np.ones(len(cell), np.float32),
        next_obs=next_cell[:, None],
        terminated=(last & (ends == "terminated")) | fell,
        truncated=last & (ends == "truncated"),
    )
    return replays.from_rows(jax.tree.map(lambda leaf: leaf[:, None], rows), cursor=0, size=len(cell))


@functools.cache
def fitted(ends, stumble, expectile):
    """Values [2, LENGTH] of the cells, fitted from two seeds."""
    value = state_value.make(SPEC, state_value.Config(**(vars(FIT) | {"expectile": expectile})))
    store = corridor(ends=ends, stumble=stumble)

    def run(key):
        key_init, key_fit = jax.random.split(key)
        state, metrics = value.fit(value.init(key_init), key_fit, store)
        return value.value(state, jnp.arange(LENGTH, dtype=jnp.float32)[:, None]), metrics

    return jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(3), 2))


@pytest.mark.parametrize("ends", ["terminated", "truncated"])
def test_converges_to_the_closed_form(ends):
    """Geometric sums: nothing beyond a termination, all that lies beyond a time limit.

    Fails with the discount left out of the target, and with a time limit treated as a termination.
    """
    steps = LENGTH - np.arange(LENGTH) if ends == "terminated" else np.full(LENGTH, np.inf)
    wanted = (1 - GAMMA**steps) / (1 - GAMMA)
    values, metrics = fitted(ends, False, 0.5)
    np.testing.assert_allclose(values, np.broadcast_to(wanted, (2, LENGTH)), rtol=0.06)
    assert np.all(metrics["value_loss"] < 0.01)


def test_a_high_expectile_values_the_better_of_two_ways():
    """Where half of the steps end the episode, the mean is worth little; the 0.95-expectile solves its own equation."""
    mean, best = fitted("terminated", True, 0.5)[0], fitted("terminated", True, 0.95)[0]
    assert np.all(best[:, 0] > mean[:, 0] + 0.5)
    for values, tau in ((mean, 0.5), (best, 0.95)):
        wanted = np.ones(LENGTH + 1)  # (1 - tau) (v - 1) = tau (1 + gamma v' - v); the last cell ends either way
        for cell in reversed(range(LENGTH - 1)):
            wanted[cell] = (1 - tau) + tau * (1 + GAMMA * wanted[cell + 1])
        np.testing.assert_allclose(values, np.broadcast_to(wanted[:LENGTH], (2, LENGTH)), rtol=0.2)


def test_target_and_loss_say_what_the_docstrings_say():
    config = state_value.Config(discount=0.9)
    np.testing.assert_allclose(state_value.td_target(config, jnp.array(2.0), jnp.array(1.0), jnp.array(0.5)), 0.65)
    np.testing.assert_allclose(state_value.td_target(config, jnp.array(2.0), jnp.array(0.0), jnp.array(9.0)), 0.2)
    np.testing.assert_allclose(state_value.expectile_loss(jnp.array([-2.0, 3.0]), 0.5), [4.0, 9.0])
    np.testing.assert_allclose(state_value.expectile_loss(jnp.array([-2.0, 3.0]), 0.9), [0.8, 16.2], rtol=1e-6)


def test_values_stay_within_what_rewards_allow(key):
    """Far from all data the network extrapolates; a discounted sum of rewards in [0, 1] cannot."""
    value = state_value.make(SPEC, FIT)
    state, _ = jax.jit(value.fit)(value.init(key), key, corridor(ends="terminated"))
    far = value.value(state, jnp.array([[-1e3], [1e3], [2.0]]))
    assert far.shape == (3,) and np.all((far >= 0) & (far <= 1 / (1 - GAMMA) + 1e-5))
