"""Brax adapters: one tree for reset and step, Brax's own rewards and terminations reproduced, and silence."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl.config import ConfigError
from jaxmbrl.envs import brax
from jaxmbrl.envs.brax import known

STEPS = 40


def shapes(tree):
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


LIGHT = ("brax/inverted_double_pendulum", "brax/inverted_pendulum", "brax/reacher")  # to trace, a second or less
EVERYTHING = [
    pytest.param(name, backend, marks=[] if name in LIGHT or backend == "mjx" else pytest.mark.slow)
    for name in brax.NAMES
    for backend in brax.BACKENDS
]


@pytest.mark.parametrize(("name", "backend"), EVERYTHING)
def test_reset_and_step_show_the_same_strong_types(name, backend):
    env = brax.make(name, backend=backend)
    assert env.spec.name == name
    key = jax.random.key(0)
    first = jax.eval_shape(env.reset, key)
    action = jax.ShapeDtypeStruct((env.spec.box.size,), jnp.float32)
    second = jax.eval_shape(env.step, key, first, action)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert shapes(first) == shapes(second)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((first, second)))
    assert (first.obs.shape, first.obs.dtype) == (env.spec.observation.shape, env.spec.observation.dtype)


def rollout(env, key):
    """A reset, then STEPS random steps: TimeSteps stacked [STEPS + 1, ...] and the actions [STEPS, A]."""

    def step(timestep, key):
        key_action, key_step = jax.random.split(key)
        action = jax.random.uniform(key_action, (env.spec.box.size,), minval=-1.0, maxval=1.0)
        timestep = env.step(key_step, timestep, action)
        return timestep, (timestep, action)

    key_reset, key_steps = jax.random.split(key)
    first = env.reset(key_reset)
    _, (rest, actions) = jax.lax.scan(step, first, jax.random.split(key_steps, STEPS))
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest), actions


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("inverted_pendulum", "mjx"),
        ("reacher", "spring"),
        ("hopper", "generalized"),
        pytest.param("ant", "generalized", marks=pytest.mark.slow),
        pytest.param("halfcheetah", "mjx", marks=pytest.mark.slow),
        pytest.param("humanoid", "spring", marks=pytest.mark.slow),
        pytest.param("pusher", "mjx", marks=pytest.mark.slow),
        pytest.param("walker2d", "mjx", marks=pytest.mark.slow),
    ],
)
def test_known_reward_and_termination_are_braxs_own(name, backend, key):
    env = brax.make(name, backend=backend)
    assert env.spec.reward is not None
    episode, actions = jax.jit(lambda key: rollout(env, key))(key)
    before, after = episode.obs[:-1], episode.obs[1:]
    reward = jax.vmap(env.spec.reward)(before, actions, after)
    np.testing.assert_allclose(reward, episode.state.reward[1:], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(reward, episode.reward[1:], rtol=1e-5, atol=1e-5)
    done = np.asarray(episode.state.done[1:] != 0)
    assert done.any() or name not in ("inverted_pendulum", "hopper")  # which random actions do bring down
    if env.spec.termination is None:
        assert not done.any()
    else:
        np.testing.assert_array_equal(jax.vmap(env.spec.termination)(before, actions, after), done)
    np.testing.assert_array_equal(episode.terminated[1:], done)
    assert not episode.truncated.any()


def test_options_reach_reward_and_termination():
    ant = brax.make("brax/ant", backend="spring", ctrl_cost_weight=2.0, healthy_z_range=(0.5, 0.6))
    obs = jnp.zeros(28).at[0].set(0.55).at[-1].set(3.0)
    action = jnp.full(8, 0.5)
    assert ant.spec.reward is not None and ant.spec.termination is not None
    np.testing.assert_allclose(ant.spec.reward(obs, action, obs), 3.0 + 1.0 - 2.0 * 8 * 0.25)
    assert not ant.spec.termination(obs, action, obs)
    for height in (0.49, 0.61, jnp.nan):
        assert ant.spec.termination(obs, action, obs.at[0].set(height))


def test_braxs_own_observations_leave_the_reward_to_be_learned():
    plain, ours = (brax.make("hopper", backend="spring", forward_velocity=on) for on in (False, True))
    assert (plain.spec.obs_size, ours.spec.obs_size) == (11, 12)
    assert plain.spec.reward is None and plain.spec.termination is not None
    endless = brax.make("hopper", backend="spring", terminate_when_unhealthy=False)
    assert endless.spec.reward is None and endless.spec.termination is None


def test_distances_have_a_gradient_where_they_vanish():
    gradient = jax.grad(lambda obs: known.reacher_reward(obs, jnp.zeros(2), obs))(jnp.zeros(11))
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(known.reacher_reward(jnp.zeros(11), jnp.zeros(2), jnp.arange(11.0)), -np.sqrt(245.0))


@pytest.fixture
def point():
    """A user's own Brax Env: a point on a line, pushed by the action; reset draws with the key."""
    from brax.envs.base import Env, State

    class Point(Env):
        def reset(self, rng):
            return State(None, jax.random.normal(rng, (1,)), 0.0, 0, {"pushes": 0})

        def step(self, state, action):
            state.metrics.update(pushes=state.metrics["pushes"] + 1)  # in place, as Brax's own do
            obs = state.obs + action
            return state.replace(obs=obs, reward=obs[0], done=jnp.abs(obs[0]) > 5.0)

        observation_size, action_size, backend = 1, 1, "none"

    return Point()


def test_a_users_env(point, key):
    env = brax.from_brax(point, name="point", episode_length=7)
    assert (env.spec.name, env.spec.episode_length, env.spec.obs_size) == ("point", 7, 1)
    first = env.reset(key)
    second = env.step(key, first, jnp.array([10.0]))
    np.testing.assert_allclose(second.reward, first.obs[0] + 10.0)
    assert second.terminated and not first.terminated
    assert (first.state.metrics["pushes"], second.state.metrics["pushes"]) == (0, 1)  # the input is left alone
    assert shapes(first) == shapes(second)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((first, second)))


def test_given_functions_are_the_one_source_of_truth(point, key):
    env = brax.from_brax(
        point,
        reward=lambda obs, action, next_obs: -action[0],
        termination=lambda obs, action, next_obs: next_obs[0] > 1e3,
    )
    step = env.step(key, env.reset(key), jnp.array([10.0]))
    assert step.reward == -10.0 and not step.terminated


def test_mistakes_get_one_line(point):
    from brax.envs.wrappers.training import EpisodeWrapper

    cases = [
        (lambda: brax.make("swimmer"), "swimmer.*does not run on current jax"),
        (lambda: brax.make("halfcheeta"), "did you mean halfcheetah"),
        (lambda: brax.make("ant", backend="mujoco"), "env.backend: got 'mujoco', needs one of generalized"),
        (
            lambda: brax.make("ant", control_cost_weight=1.0),
            "env.control_cost_weight: no such option.*ctrl_cost_weight",
        ),
        (lambda: brax.make("ant", exclude_current_positions_from_observation=False), "needs True"),
        (lambda: brax.make("ant", episode_length=0), "env.episode_length: got 0"),
        (lambda: brax.from_brax(EpisodeWrapper(point, 10, 1)), "EpisodeWrapper, needs the Env inside"),
    ]
    for mistake, message in cases:
        with pytest.raises(ConfigError, match=message) as caught:
            mistake()
        assert "\n" not in str(caught.value)


def test_options_are_what_make_takes():
    assert brax.options("brax/hopper")["ctrl_cost_weight"] == 1e-3
    assert brax.episode_length("brax/reacher") == 50
    for name in brax.NAMES:
        brax.simulator(name, **{k: v for k, v in brax.options(name).items() if k != "forward_velocity"})


def test_nothing_is_imported_early_and_nothing_is_printed(tmp_path):
    code = """if True:
        import sys
        from jaxmbrl.envs import brax
        assert "brax" not in sys.modules, "brax is imported early"
        import jax
        for backend in ("mjx", "spring"):
            env = brax.make("inverted_pendulum", backend=backend)
            first = jax.eval_shape(env.reset, jax.random.key(0))
            jax.eval_shape(env.step, jax.random.key(0), first, env.spec.box.low)
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
