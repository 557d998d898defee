"""Deterministic latent dynamics: what the loss counts, what a reset forgets, and what tasks share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl.models import actions, latent_dynamics, rollouts
from jaxmbrl.models.frames import Frames
from jaxmbrl.types import Box, Spec, TimeStep

BOX = Box(np.array([-2.0], np.float32), np.array([2.0], np.float32))
SPEC = Spec("any", jax.ShapeDtypeStruct((2,), jnp.float32), BOX, 10)
CONFIG = latent_dynamics.Config(units=5, hidden=4, layers=(6,), embedding=3, ahead=2)
TASKS, LENGTH = 3, 6
SHARED = latent_dynamics.make(SPEC, CONFIG, num_tasks=TASKS)


@pytest.fixture(scope="module")
def params():
    """Parameters that no head is silent with."""
    params = jax.jit(SHARED.model.world.init)(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, moved)


def sequence(first):
    rng = np.random.default_rng(0)
    return Frames(
        obs=jnp.asarray(rng.normal(size=(LENGTH, 2)), jnp.float32),
        action=jnp.asarray(rng.uniform(-2, 2, size=(LENGTH, 1)), jnp.float32),
        reward=jnp.asarray(rng.normal(size=(LENGTH, TASKS)), jnp.float32),
        discount=jnp.array([1.0, 1.0, 0.0, 1.0, 1.0, 1.0]),
        first=jnp.asarray(first),
    )


FIRST = np.array([True, False, False, True, False, False])


def test_two_episodes_in_a_sequence_are_filtered_as_two(params):
    both = sequence(FIRST)
    states = SHARED.model.filter(params, jax.random.key(0), both).state
    second = jax.tree.map(lambda leaf: leaf[3:], both)
    np.testing.assert_allclose(
        states[3:], SHARED.model.filter(params, jax.random.key(0), second).state, rtol=1e-5, atol=1e-6
    )
    by_hand = SHARED.model.initial()
    for t in range(LENGTH):
        frame = jax.tree.map(lambda leaf, t=t: leaf[t], both)
        by_hand = SHARED.model.perceive(params, jax.random.key(t), by_hand, frame)
        np.testing.assert_allclose(states[t], by_hand, rtol=1e-5, atol=1e-6)


def test_the_loss_counts_each_imagined_frame_of_an_episode_once(params):
    """A loop over beginnings and steps ahead, in NumPy but for the networks, which `step` and `reconstruct` apply."""
    both = sequence(FIRST)
    _, metrics, states = SHARED.model.evidence(params, jax.random.key(0), both)
    step = jax.jit(SHARED.of_task.step)
    reward, seen, agree = [], [], []
    for begin in range(LENGTH):
        latent = states[begin]
        for place in range(begin + 1, min(begin + CONFIG.ahead, LENGTH - 1) + 1):
            if FIRST[place]:
                break
            told = [
                step((params, task), jax.random.key(0), latent, both.action[place])[1].reward for task in range(TASKS)
            ]
            reward.append(0.5 * np.sum((np.asarray(told) - np.asarray(both.reward[place])) ** 2))
            latent = step((params, 0), jax.random.key(0), latent, both.action[place])[0]
            target = np.sign(both.obs[place]) * np.log1p(np.abs(both.obs[place]))
            mean = np.asarray(SHARED.model.reconstruct(params, latent))
            seen.append(0.5 * np.sum((np.sign(mean) * np.log1p(np.abs(mean)) - target) ** 2))
            agree.append(0.5 * np.sum((np.asarray(latent) - np.asarray(states[place])) ** 2))
    assert len(reward) == 6  # of each episode of three frames: 1 -> 2, 1 -> 3, 2 -> 3
    np.testing.assert_allclose(metrics["reward_loss"], np.mean(reward), rtol=1e-4)
    np.testing.assert_allclose(metrics["prediction_loss"], np.mean(seen), rtol=1e-4)
    np.testing.assert_allclose(metrics["agreement_loss"], np.mean(agree), rtol=1e-4)


def test_tasks_share_all_but_their_reward(params):
    state = jnp.full(CONFIG.units, 0.2)
    action = jnp.array([0.7])
    steps = [SHARED.of_task.step((params, task), jax.random.key(0), state, action) for task in range(TASKS)]
    for latent, prediction in steps[1:]:
        np.testing.assert_array_equal(latent, steps[0][0])
        assert prediction.reward != steps[0][1].reward
    first = SHARED.model.world.step(params, jax.random.key(0), state, action)
    np.testing.assert_array_equal(first[1].reward, steps[0][1].reward)


def test_imagination_is_step_by_hand(params):
    timestep = TimeStep((), jnp.array([0.3, -1.0]), jnp.zeros(()), jnp.zeros((), bool), jnp.zeros((), bool))
    begin = SHARED.model.world.start(params, jax.random.key(0), timestep)
    plan = jnp.array([[0.5], [-1.0], [2.0]])
    imagined = rollouts.simulate(SHARED.model.world, params, jax.random.key(0), begin, plan)
    latent = begin
    for t, action in enumerate(plan):
        np.testing.assert_allclose(imagined.state[t], latent, rtol=1e-5)
        latent, prediction = SHARED.model.world.step(params, jax.random.key(0), latent, action)
        np.testing.assert_allclose(imagined.prediction.reward[t], prediction.reward, rtol=1e-5)
    unit = actions.to_unit(plan[0], BOX)
    assert np.abs(unit).max() <= 1.0
