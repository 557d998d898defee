"""Imagination as an environment: on the true simulator it is the environment, and no model's failure leaves it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import envs
from jaxmbrl.config import ConfigError
from jaxmbrl.envs import imagined, wrappers
from jaxmbrl.models import ensemble, one_step, simulator
from jaxmbrl.training.loop import random_action
from jaxmbrl.types import Prediction, WorldModel

LENGTH = 12


def close(tree, other):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), tree, other)


@pytest.mark.parametrize("name", ["cartpole", "pendulum"])
def test_imagining_with_the_true_simulator_is_the_true_environment(name):
    """The same keys, 40 steps with auto-resets, terminations and time limits: all that is seen is equal."""
    env = envs.make(name, episode_length=LENGTH)
    bare = envs.make(name, episode_length=10**6)  # whose own time limit stays out of the way
    dream = imagined.make(env.spec, simulator.make(bare), (), bare.reset, horizon=LENGTH)
    assert dream.spec == env.spec

    @functools.partial(jax.jit, static_argnums=0)
    def walk(real, key):
        environment = env if real else dream

        def step(timestep, key):
            key_action, key_step = jax.random.split(key)
            action = jnp.abs(random_action(key_action, env.spec))  # to one side: the pole falls within the limit
            transition, timestep = wrappers.auto_reset_step(environment, key_step, timestep, action)
            return timestep, (transition, timestep.obs)

        return jax.lax.scan(step, environment.reset(key), jax.random.split(key, 40))[1]

    real, imagination = (walk(flag, jax.random.key(3)) for flag in (True, False))
    close(imagination, real)
    assert np.any(real[0].truncated) and np.any(real[0].terminated) == (name == "cartpole")


def counting_model(shape=()):
    """The state counts steps, [*S, 2]; action 1 ends the episode, 2 is not a number, 3 explodes."""

    def step(params, key, state, action):
        sort = jnp.round(action[..., 0])
        obs = state + 1.0
        obs = jnp.where((sort == 3)[..., None], 1e9, jnp.where((sort == 2)[..., None], jnp.nan, obs))
        discount = jnp.where(sort == 1, 0.2, 0.9)
        return obs, Prediction(jnp.full(shape, 5.0), discount)

    return WorldModel(lambda key: (), lambda *_: None, lambda *_: None, lambda *_: None, step, lambda _, state: state)


SPEC = envs.make("pendulum").spec._replace(observation=jax.ShapeDtypeStruct((2,), jnp.float32))


def test_ends_and_broken_predictions():
    env = imagined.make(SPEC, counting_model(), (), lambda key: jnp.zeros(2), horizon=3)
    first = env.reset(jax.random.key(0))
    with jax.debug_nans(False):
        after = [env.step(jax.random.key(1), first, jnp.full(1, float(sort))) for sort in range(4)]
    assert [bool(step.terminated) for step in after] == [False, True, False, False]
    assert [bool(step.truncated) for step in after] == [False, False, True, True]
    assert [bool(step.state.broken) for step in after] == [False, False, True, True]
    assert [float(step.reward) for step in after] == [5, 5, 0, 0]
    close([step.obs for step in after], [jnp.ones(2), jnp.ones(2), jnp.zeros(2), jnp.zeros(2)])
    close(after[3].state.belief, jnp.zeros(2))
    second = env.step(jax.random.key(1), after[0], jnp.zeros(1))
    third = env.step(jax.random.key(1), second, jnp.zeros(1))
    assert not second.truncated and third.truncated and not third.state.broken
    assert not env.step(jax.random.key(1), second, jnp.ones(1)).truncated, "a termination at the limit is one"


def test_gather_never_crosses_an_end_and_counts_what_broke():
    """Side by side, one rollout goes on to the horizon, one terminates, two break, at every third step."""
    sorts = jnp.array([[0.0, 1.0], [2.0, 3.0]])  # [M, P/M]
    start = jnp.stack([jnp.zeros((2, 2)), sorts], axis=-1)
    model = counting_model((2, 2))
    counting = model.step

    def step(params, key, state, action):
        state, prediction = counting(params, key, state[..., :1], action)
        return jnp.concatenate([state, sorts[..., None]], axis=-1), prediction

    model = model._replace(step=step)
    env = imagined.make(SPEC, model, (), lambda key: start, horizon=4)

    def policy(key, obs):
        return jnp.where(obs[:1] == 2, obs[1:], 0.0)

    with jax.debug_nans(False):
        batch = jax.jit(lambda key: imagined.gather(env, policy, key, 8))(jax.random.key(0))
    assert batch.obs.shape == (4, 8, 2) and batch.reward.shape == (4, 8)
    np.testing.assert_array_equal(batch.obs[0, :, 0], [0, 1, 2, 3, 0, 1, 2, 3])
    np.testing.assert_array_equal(batch.obs[1:, :, 0], [[0, 1, 2, 0, 1, 2, 0, 1]] * 3)
    np.testing.assert_array_equal(batch.terminated.sum(axis=1), [0, 2, 0, 0])
    np.testing.assert_array_equal(batch.truncated.sum(axis=1), [2, 0, 2, 2])
    np.testing.assert_array_equal(batch.extras.sum(axis=1), [0, 0, 2, 2])
    assert np.isfinite(batch.next_obs).all() and np.abs(batch.next_obs).max() < 10


def test_a_cloud_meets_every_member_and_shows_their_predictions():
    """An ensemble under ts1: each rollout's steps are some member's own, and members change along the way."""
    env = envs.make("linear_quadratic", episode_length=5)
    base = one_step.make(env.spec, one_step.Config(hidden=(4,), family="deterministic"))
    model = ensemble.transform(base, size=3, elites=3, particles=6, propagation="ts1")
    params = model.world.init(jax.random.key(0))
    obs = jax.random.normal(jax.random.key(1), (20, env.spec.obs_size))
    dream = imagined.make(env.spec, model.world, params, imagined.replayed(obs, (3, 2)), horizon=4)
    policy = lambda key, obs: obs[: env.spec.box.size]  # noqa: E731
    batch = jax.jit(lambda key: imagined.gather(dream, policy, key, 8))(jax.random.key(2))
    predict = jax.vmap(jax.vmap(base.mean_outcome, in_axes=(None, 0, 0)), in_axes=(0, None, None))
    flat = jax.tree.map(lambda leaf: leaf.reshape((48, *leaf.shape[2:])), batch)
    error = np.abs(predict(params.members, flat.obs, flat.action).next_obs - flat.next_obs).max(axis=-1)
    assert error.min(axis=0).max() < 1e-5
    member = error.argmin(axis=0).reshape(6, 8)
    assert all(len(set(row)) > 1 for row in member)
    np.testing.assert_array_equal(np.bincount(member.ravel()), [16, 16, 16])
    assert np.isin(np.asarray(batch.obs)[:, [0, 4], 0], np.asarray(obs)[:, 0]).all()


def test_features_that_are_no_observations_have_no_known_reward():
    model = counting_model()._replace(features=lambda _, state: jnp.concatenate([state, state]))
    spec = imagined.make(SPEC, model, (), lambda key: jnp.zeros(2), horizon=3).spec
    assert spec.obs_size == 4 and spec.reward is None and spec.episode_length == 3


def test_horizon_is_checked():
    with pytest.raises(ConfigError, match="horizon: got 0"):
        imagined.make(SPEC, counting_model(), (), lambda key: jnp.zeros(2), horizon=0)
