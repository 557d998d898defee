"""gymnax's environments against gymnax itself, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import envs
from jaxmbrl.config import ConfigError
from jaxmbrl.envs import gymnax as adapter
from jaxmbrl.envs import wrappers
from jaxmbrl.types import Box, Discrete

needed = pytest.mark.skipif(not adapter.INSTALLED, reason="needs the extra gymnax")


@needed
def test_lengths_and_specs_are_gymnaxs_own():
    import gymnax

    for name in adapter.NAMES:
        env, params = gymnax.make(name.removeprefix("gymnax/"))
        spec = adapter.make(name).spec
        assert spec.episode_length == adapter.episode_length(name) == params.max_steps_in_episode
        assert spec.name == name and spec.reward is None and spec.termination is None
        if "Continuous" in name or "Pendulum" in name:
            assert isinstance(spec.action, Box) and spec.action.size == 1
            assert spec.action.low[0] == np.ravel(env.action_space(params).low)[0] < spec.action.high[0]
        else:
            assert spec.action == Discrete(env.num_actions)


@needed
@pytest.mark.parametrize("name", ["gymnax/Breakout-MinAtar", "gymnax/CartPole-v1", "gymnax/Pendulum-v1"])
def test_episodes_are_gymnaxs_own(name):
    """The same actions give the same observations, rewards and ends, without gymnax's reset that hides the last one."""
    import gymnax

    env, (theirs, params) = envs.make(name, episode_length=40), gymnax.make(name.removeprefix("gymnax/"))
    keys = jax.random.split(jax.random.key(3), 40)
    high = env.spec.action.num if isinstance(env.spec.action, Discrete) else 2
    actions = np.random.default_rng(0).integers(0, high, 40).astype(np.int32)
    actions = actions if isinstance(env.spec.action, Discrete) else actions[:, None].astype(np.float32)

    def ours(timestep, inputs):
        timestep = env.step(inputs[0], timestep, inputs[1])
        return timestep, timestep

    def other(state, inputs):
        obs, state, reward, terminated, _ = theirs.step_env(inputs[0], state, inputs[1], params)
        return state, (obs, reward, terminated)

    first = jax.jit(env.reset)(keys[0])
    obs, state = theirs.reset_env(keys[0], params)
    np.testing.assert_array_equal(first.obs, obs)
    episode = jax.jit(lambda first: jax.lax.scan(ours, first, (keys, actions))[1])(first)
    state = wrappers.strong_types(state)
    obs, reward, terminated = jax.jit(lambda state: jax.lax.scan(other, state, (keys, actions))[1])(state)
    np.testing.assert_allclose(episode.obs, obs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(episode.reward, np.ravel(reward), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(episode.terminated, terminated)
    assert np.any(terminated) or "Pendulum" in name
    np.testing.assert_array_equal(episode.truncated, (np.arange(40) == 39) & ~np.asarray(terminated))


@needed
def test_nothing_is_weakly_typed_and_parameters_are_options(key):
    env = envs.make("gymnax/Pendulum-v1", g=0.0)
    first = env.reset(key)
    second = env.step(key, first, jnp.zeros(1))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((first, second)))
    assert jax.tree.map(jnp.shape, first) == jax.tree.map(jnp.shape, second)
    np.testing.assert_allclose(second.obs[2], first.obs[2])  # without gravity nothing turns it
    with pytest.raises(ConfigError, match=r"env.gravity: no such option.*gymnax/Pendulum-v1 takes "):
        envs.make("gymnax/Pendulum-v1", gravity=0.0)


def test_without_the_extra_there_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(adapter, "INSTALLED", False)
    monkeypatch.setattr(adapter, "NAMES", ())
    assert not any(name.startswith("gymnax/") for name in envs.names())
    with pytest.raises(
        ConfigError, match=r"env: got 'gymnax/Breakout-MinAtar', which needs pip install 'jaxmbrl\[gymnax\]'"
    ):
        envs.make("gymnax/Breakout-MinAtar")
    with pytest.raises(ConfigError, match=r"env: got 'gymnax/Breakot-MinAtar'.*did you mean gymnax/Breakout-MinAtar"):
        envs.make("gymnax/Breakot-MinAtar")
