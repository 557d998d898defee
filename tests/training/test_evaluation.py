"""Episodes for evaluation, on a walk whose length its first state decides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import training
from jaxmbrl.types import Agent, Box, Environment, Spec, TimeStep

LENGTH = 6


def walk():
    """The state counts down from 1 to 9; the episode terminates at 0, else is truncated after 6 steps. Reward 1 - a."""
    spec = Spec("walk", jax.ShapeDtypeStruct((1,), jnp.float32), Box(np.zeros(1), np.ones(1)), LENGTH)

    def reset(key):
        left = jax.random.randint(key, (), 1, 10)
        state = jnp.stack([left, 0])
        return TimeStep(state, left[None].astype(jnp.float32), jnp.zeros(()), jnp.zeros((), bool), jnp.zeros((), bool))

    def step(key, timestep, action):
        left, taken = timestep.state + jnp.array([-1, 1])
        obs, terminated = left[None].astype(jnp.float32), left == 0
        return TimeStep(jnp.stack([left, taken]), obs, 1.0 - action[0], terminated, (taken == LENGTH) & ~terminated)

    return Environment(spec, reset, step)


def act(state, key, memory, timestep, *, explore):
    assert explore is False
    return (state * memory)[None], memory / 2, ()


AGENT = Agent(
    init=lambda key: jnp.float32(0.5),
    memory=lambda state, key: jnp.float32(1.0),
    act=act,
    fit=lambda state, key, store: (state, {}),
    improve=lambda state, key, store: (state, {}),
)


@pytest.fixture(scope="module")
def episodes():
    run = jax.jit(jax.vmap(training.rollout(walk(), AGENT), in_axes=(None, 0)))
    return jax.device_get(run(jnp.float32(0.5), jax.random.split(jax.random.key(3), 30)))


def expected_rewards(first):
    """Actions halve from 0.5; an episode of n steps has the rewards 1/2, 3/4, 7/8, ..."""
    return [1 - 0.5**t for t in range(1, min(first, LENGTH) + 1)]


def test_episodes_end_where_they_end(episodes):
    timesteps, actions = episodes
    assert timesteps.obs.shape == (30, LENGTH + 1, 1) and actions.shape == (30, LENGTH, 1)
    lengths = set()
    for obs, reward, terminated, truncated in zip(*timesteps[1:], strict=True):
        first = int(obs[0, 0])
        steps = min(first, LENGTH)
        lengths.add(steps)
        np.testing.assert_allclose(reward[1 : steps + 1], expected_rewards(first))
        np.testing.assert_array_equal(reward[steps + 1 :], 0.0)
        np.testing.assert_array_equal(obs[:, 0], np.maximum(first - np.arange(LENGTH + 1), first - steps))
        np.testing.assert_array_equal(terminated, (np.arange(LENGTH + 1) >= steps) & (first <= LENGTH))
        np.testing.assert_array_equal(truncated, (np.arange(LENGTH + 1) >= steps) & (first > LENGTH))
    assert lengths == set(range(1, LENGTH + 1))


def test_returns_are_sums_over_the_episode_alone(episodes, key):
    firsts = set(episodes[0].obs[:, 0, 0].astype(int))
    returns = np.asarray(jax.jit(training.evaluate(walk(), AGENT, 40))(jnp.float32(0.5), key))
    possible = np.array([sum(expected_rewards(first)) for first in sorted(firsts)])
    assert returns.shape == (40,)
    assert np.all(np.abs(returns[:, None] - possible).min(axis=1) < 1e-5)
    assert len(np.unique(returns)) > 3, "episodes are independent"
