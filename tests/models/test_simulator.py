"""The true environment as a model, and imagination, against steps taken by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import envs
from jaxmbrl.models import rollouts, simulator
from jaxmbrl.types import Prediction, TimeStep, WorldModel


def equal(tree, other):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), tree, other)


@pytest.fixture(scope="module")
def walk():
    """A cart-pole pushed to one side until it falls, beyond its time limit of 5: model's rollout, and by hand."""
    env = envs.make("cartpole", episode_length=5)
    model = simulator.make(env)
    key_reset, key = jax.random.split(jax.random.key(4))
    timestep, actions = env.reset(key_reset), jnp.full((14, 1), 1.0) * env.spec.box.high
    start = model.start((), key, timestep)
    imagined = jax.jit(functools.partial(rollouts.simulate, model))((), key, start, actions)
    step, steps = jax.jit(env.step), [timestep]
    for key_step, action in zip(jax.random.split(key, 14), actions, strict=True):
        steps.append(step(key_step, steps[-1], action))
    return model, imagined, steps


def test_rollout_is_the_environments_own(walk):
    model, imagined, steps = walk
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *steps)
    equal(imagined.state, jax.tree.map(lambda leaf: leaf[:-1], stacked))
    equal(imagined.last, steps[-1])
    equal(imagined.prediction.reward, stacked.reward[1:])
    np.testing.assert_array_equal(model.features((), steps[3]), steps[3].obs)


def test_only_a_termination_ends_imagination(walk):
    _, imagined, steps = walk
    terminated = np.array([bool(step.terminated) for step in steps[1:]])
    assert np.any([bool(step.truncated) for step in steps[1:]]) and terminated.any() and not terminated[:5].any()
    np.testing.assert_array_equal(imagined.prediction.discount, np.where(terminated, 0.0, 1.0))


def test_observing_is_believing(walk, key):
    model, _, steps = walk
    equal(model.observe((), key, steps[0], jnp.zeros(1), steps[2]), steps[2])
    assert model.init(key) == ()
    assert model.loss((), key, None)[0] == 0.0


def noisy_model():
    """Next state s' = params * s + action + noise, reward s'."""

    def step(params, key, state, action):
        state = params * state + action[0] + jax.random.normal(key)
        return state, Prediction(state, jnp.where(state > 0, 1.0, 0.5))

    def start(params, key, timestep):
        return timestep.obs

    return WorldModel(lambda key: (), lambda *_: None, start, lambda *_: None, step, lambda params, state: 2.0 * state)


def test_imagine_is_the_policy_in_the_loop(key):
    model, params, state = noisy_model(), jnp.float32(0.9), jnp.float32(1.0)

    def policy(key, features):
        return jnp.stack([features + 0.1 * jax.random.normal(key)])

    imagined = jax.jit(lambda key: rollouts.imagine(model, params, key, state, policy, 4))(key)
    for t, key_t in enumerate(jax.random.split(key, 4)):
        key_policy, key_step = jax.random.split(key_t)
        equal(imagined.state[t], state)
        action = policy(key_policy, 2.0 * state)
        equal(imagined.action[t], action)
        state, prediction = model.step(params, key_step, state, action)
        equal(jax.tree.map(lambda leaf, t=t: leaf[t], imagined.prediction), prediction)
    equal(imagined.last, state)


def test_simulate_replays_what_a_policy_without_noise_did(key):
    """The two ways to imagine agree on a deterministic model."""
    model = noisy_model()
    model = model._replace(step=lambda params, key, state, action: (state + action[0], Prediction(state, jnp.ones(()))))
    closed = rollouts.imagine(model, (), key, jnp.float32(1.0), lambda key, features: jnp.stack([-0.3 * features]), 5)
    opened = rollouts.simulate(model, (), key, jnp.float32(1.0), closed.action)
    equal(opened, closed)
    equal(closed.last, (1 - 0.6) ** 5)


def test_start_is_the_time_step(key):
    timestep = TimeStep(jnp.ones(2), jnp.zeros(1), *[jnp.zeros(())] * 3)
    assert simulator.make(envs.make("pendulum")).start((), key, timestep) is timestep
