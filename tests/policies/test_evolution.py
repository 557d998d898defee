"""A controller's worth: in a model by hand, and in the true environment as an evaluation of the agent sees it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import envs
from jaxmbrl.agents import world_models
from jaxmbrl.models import mdn_rnn, simulator, vae
from jaxmbrl.models.networks import MLP
from jaxmbrl.planners import cmaes
from jaxmbrl.policies import evolution
from jaxmbrl.training.evaluation import rollout
from jaxmbrl.types import Box, Discrete, Spec

ENV = envs.make("cartpole", episode_length=12)  # it terminates
MODEL = mdn_rnn.Config(autoencoder=vae.Config(latent=3, hidden=(4,)), cell="gru", hidden=5)


@pytest.mark.parametrize("hidden", [(), (4,)])
def test_linear_controllers_are_linear_and_squashed(key, hidden):
    box = Box(np.array([-1.0, 2.0], np.float32), np.array([1.0, 6.0], np.float32))
    spec = Spec("any", jax.ShapeDtypeStruct((3,), jnp.float32), box, 10)
    controller = evolution.controller(spec, MLP(hidden, 2), 3)
    assert controller.size == (3 + 1) * 2 if not hidden else (3 + 1) * 4 + (4 + 1) * 2
    np.testing.assert_allclose(controller.act(jnp.zeros(controller.size), jnp.ones(3)), [0.0, 4.0])
    theta, features = jax.random.normal(key, (controller.size,)), jnp.array([0.5, -1.0, 2.0])
    if not hidden:
        bias, kernel = np.float64(theta[:2]), np.float64(theta[2:]).reshape(3, 2)
        expected = box.low + (box.high - box.low) * (1 + np.tanh(features @ kernel + bias)) / 2
        np.testing.assert_allclose(controller.act(theta, features), expected, rtol=1e-5)
    action = controller.act(100 * theta, features)
    assert np.all(action >= box.low) and np.all(action <= box.high)


def test_discrete_actions_are_the_greatest_output():
    spec = Spec("any", jax.ShapeDtypeStruct((2,), jnp.float32), Discrete(3), 10)
    controller = evolution.controller(spec, MLP((), 3), 2)
    theta = jnp.array([0.0, 0.1, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 2.0])  # bias [3], kernel [2, 3]
    for features, action in (([0.0, 0.0], 1), ([1.0, 0.0], 0), ([1.0, 1.0], 2)):
        chosen = controller.act(theta, jnp.array(features))
        assert chosen == action and chosen.dtype == jnp.int32


def test_return_in_a_model_is_the_sum_by_hand(key):
    """On the simulator, which is deterministic: rewards of cartpole until the pole falls, for each candidate."""
    world = simulator.make(ENV)
    controller = evolution.controller(ENV.spec, MLP((), 1), 4)
    objective = evolution.objective(world, (), ENV.reset, controller.act, horizon=12, episodes=3, discount=0.9)
    thetas = 3.0 * jax.random.normal(key, (4, controller.size))
    scores = jax.jit(objective)(key, thetas)
    step, act = jax.jit(ENV.step), jax.jit(controller.act)
    key_begin, _ = jax.random.split(key)
    for theta, score in zip(thetas, scores, strict=True):
        total = 0.0
        for key_reset in jax.random.split(key_begin, 3):
            timestep = ENV.reset(key_reset)
            for t in range(12):
                timestep = step(key, timestep, act(theta, timestep.obs))
                total += 0.9**t * float(timestep.reward)
                if timestep.terminated:
                    break
        np.testing.assert_allclose(score, total / 3, rtol=1e-5)
    assert len(set(np.round(np.asarray(scores), 4))) > 1


def test_return_in_the_environment_is_what_an_evaluation_of_the_agent_sees(key):
    """The same episode, with an autoencoder that is certain: the filter's belief is the agent's own."""
    config = world_models.Config(model=MODEL, planner=cmaes.Config(population=4, iterations=1), horizon=12)
    agent = world_models.make(ENV.spec, config, env=ENV)
    state = jax.jit(agent.init)(key)
    encoder = state.model.autoencoder.encoder
    last = encoder["params"]["layer_1"]
    certain = {"kernel": last["kernel"].at[:, 3:].set(0.0), "bias": last["bias"].at[3:].set(-40.0)}
    encoder = {"params": {**encoder["params"], "layer_1": certain}}
    params = state.model._replace(autoencoder=state.model.autoencoder._replace(encoder=encoder))
    state = state._replace(model=params, controller=2.0 * jax.random.normal(key, state.controller.shape))

    model = mdn_rnn.make(ENV.spec, MODEL)
    world = evolution.filtered(ENV, model.world)
    controller = evolution.controller(ENV.spec, MLP((), 1), 8)
    timesteps, _ = jax.jit(rollout(ENV, agent))(state, key)

    def begin(_):
        return world.start(params, jax.random.key(5), jax.tree.map(lambda leaf: leaf[0], timesteps))

    objective = evolution.objective(world, params, begin, controller.act, horizon=12, episodes=1)
    score = jax.jit(objective)(key, state.controller[None])
    np.testing.assert_allclose(score[0], jnp.sum(timesteps.reward), rtol=1e-5)


def test_candidates_that_break_the_model_are_the_worst(key):
    """A return that is not finite in one episode of a candidate is not finite for it, and the others are untouched."""
    world = simulator.make(ENV)
    wild = world._replace(
        step=lambda params, key, state, action: (
            state,
            world.step(params, key, state, action)[1]._replace(reward=jnp.where(action[0] > 0.5, jnp.nan, action[0])),
        )
    )
    controller = evolution.controller(ENV.spec, MLP((), 1), 4)
    objective = evolution.objective(wild, (), ENV.reset, controller.act, horizon=3, episodes=2)
    thetas = jnp.zeros((2, 5)).at[:, 0].set(jnp.array([0.1, 5.0]))
    with jax.debug_nans(False):
        scores = jax.jit(objective)(key, thetas)
    assert np.isfinite(scores[0]) and not np.isfinite(scores[1])
