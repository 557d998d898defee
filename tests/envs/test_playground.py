"""MuJoCo Playground's tasks against Playground itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import envs
from jaxmbrl.config import ConfigError
from jaxmbrl.envs import playground as adapter

needed = pytest.mark.skipif(not adapter.INSTALLED, reason="needs the extra playground")


@needed
def test_every_task_of_the_suite_is_listed():
    from mujoco_playground import dm_control_suite

    assert {name.removeprefix("playground/") for name in adapter.ALL} == set(dm_control_suite.ALL_ENVS)
    assert all(dm_control_suite.get_default_config(name).episode_length == 1000 for name in dm_control_suite.ALL_ENVS)


@needed
@pytest.mark.parametrize(
    "name", ["CartpoleSwingup", "ReacherEasy", "CheetahRun", "FingerSpin", "BallInCup", "WalkerWalk"]
)
def test_episodes_are_playgrounds_own(name, key):
    """The same actions give the same numbers; a carry keeps its types, and no leaf's is weak."""
    name = f"playground/{name}"
    env, theirs = envs.make(name, episode_length=5), adapter.simulator(name)
    actions = jnp.linspace(-1, 1, 5)[:, None] * jnp.linspace(1.0, 0.2, env.spec.box.size)  # no two alike

    def ours(timestep, action):
        timestep = env.step(key, timestep, action)
        return timestep, timestep

    def other(state, action):
        state = theirs.step(state, action)
        return state, (state.obs, state.reward, state.done)

    first = jax.jit(env.reset)(key)
    assert first.obs.shape == env.spec.observation.shape and env.spec.reward is None
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(jax.eval_shape(env.reset, key)))
    episode = jax.jit(lambda first: jax.lax.scan(ours, first, actions)[1])(first)
    obs, reward, done = jax.jit(lambda state: jax.lax.scan(other, state, actions)[1])(first.state.inner)
    np.testing.assert_allclose(episode.obs, obs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(episode.reward, reward, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(episode.terminated, done != 0)
    np.testing.assert_array_equal(episode.truncated, np.arange(5) == 4)
    np.testing.assert_array_equal(env.spec.box.low, -1.0)


@needed
def test_pictures_of_playground():
    env = envs.make("pixels/playground/CartpoleSwingup", size=32, action_repeat=30)

    def run(key):
        first = env.reset(key)
        return first.obs, env.step(key, first, jnp.ones(1)).obs  # after 0.3 s at full force

    before, after = jax.jit(run)(jax.random.key(0))
    assert before.shape == (32, 32, 3) and np.abs(np.asarray(before, int) - np.asarray(after, int)).max() > 20


def test_without_the_extra_there_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(adapter, "INSTALLED", False)
    monkeypatch.setattr(adapter, "NAMES", ())
    with pytest.raises(ConfigError, match=r"which needs pip install 'jaxmbrl\[playground\]'"):
        envs.make("playground/CheetahRun")
    with pytest.raises(ConfigError, match=r"got 'playground/CheetaRun'.*did you mean playground/CheetahRun"):
        envs.make("playground/CheetaRun")
