"""Wrappers on a probe that counts its steps, so that every observation says where it comes from."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl.config import ConfigError
from jaxmbrl.envs import wrappers
from jaxmbrl.envs.classic.task import box
from jaxmbrl.types import Environment, Spec, TimeStep


class Count(NamedTuple):
    start: jax.Array  # random: tells episodes apart
    steps: jax.Array


def probe(end=100):
    """Observes (start, steps), pays the step number, terminates after ``end`` steps; its leaves are weakly typed."""

    def observe(state):
        return jnp.stack([state.start, 1.0 * state.steps])

    def reset(key):
        state = Count(jax.random.uniform(key), jnp.asarray(0))
        return TimeStep(state, observe(state), 0.0, False, False)  # pyright: ignore

    def step(key, timestep, action):
        state = timestep.state._replace(steps=timestep.state.steps + 1)
        obs = observe(state)
        return TimeStep(state, obs, 1 * state.steps, state.steps >= end, jnp.zeros((), bool))

    observation = jax.ShapeDtypeStruct((2,), jnp.float32)
    reward, termination = lambda _, __, next_obs: next_obs[1], lambda _, __, next_obs: next_obs[1] >= end
    spec = Spec("probe", observation, box(-1.0, 1.0), 100, reward, termination)
    return wrappers.strongly_typed(Environment(spec, reset, step))


def gather(env, length, key=None):
    """Transitions and the time steps that were acted on next, over ``length`` auto-reset steps."""
    key_reset, key_steps = jax.random.split(jax.random.key(0) if key is None else key)

    def step(timestep, key):
        transition, timestep = wrappers.auto_reset(env)(key, timestep, jnp.zeros(1))
        return timestep, (transition, timestep)

    return jax.jit(lambda: jax.lax.scan(step, env.reset(key_reset), jax.random.split(key_steps, length))[1])()


def test_auto_reset_keeps_the_true_final_observation():
    transitions, following = gather(wrappers.time_limit(probe(end=3), 10), 9)
    np.testing.assert_array_equal(transitions.obs[:, 1], [0, 1, 2] * 3)
    np.testing.assert_array_equal(transitions.next_obs[:, 1], [1, 2, 3] * 3)
    np.testing.assert_array_equal(transitions.obs[:, 0], transitions.next_obs[:, 0])  # one episode within a transition
    np.testing.assert_array_equal(transitions.reward, [1, 2, 3] * 3)
    np.testing.assert_array_equal(transitions.terminated, [False, False, True] * 3)
    np.testing.assert_array_equal(transitions.discount, [1, 1, 0] * 3)
    assert not transitions.truncated.any()
    np.testing.assert_array_equal(following.state.steps, [1, 2, 0] * 3)  # the limit's own counter starts again too
    np.testing.assert_array_equal(following.reward, [1, 2, 0] * 3)
    assert not following.terminated.any()


def test_resets_are_fresh():
    transitions, _ = gather(wrappers.time_limit(probe(), 4), 40)
    assert len(np.unique(transitions.obs[:, 0])) == 10
    others, _ = gather(wrappers.time_limit(probe(), 4), 40, jax.random.key(1))
    assert not np.intersect1d(transitions.obs[:, 0], others.obs[:, 0]).size


@pytest.mark.parametrize(("end", "limit", "terminates"), [(5, 3, False), (3, 5, True), (4, 4, True)])
def test_time_limit_truncates_only_what_did_not_terminate(end, limit, terminates):
    transitions, _ = gather(wrappers.time_limit(probe(end), limit), 20)
    ends, length = (transitions.terminated, transitions.truncated), min(end, limit)
    expected = (np.arange(20) + 1) % length == 0
    np.testing.assert_array_equal(ends[not terminates], expected)
    assert not ends[terminates].any()
    assert transitions.discount.min() == (0.0 if terminates else 1.0)


def test_time_limit_is_in_the_spec():
    assert wrappers.time_limit(probe(), 7).spec.episode_length == 7
    with pytest.raises(ConfigError, match=r"episode_length: got 0, needs a whole number of at least 1"):
        wrappers.time_limit(probe(), 0)


def test_action_repeat_sums_rewards_up_to_the_end():
    env = wrappers.action_repeat(probe(end=5), 3)
    transitions, _ = gather(env, 4)
    np.testing.assert_array_equal(transitions.reward, [1 + 2 + 3, 4 + 5, 6, 9])
    np.testing.assert_array_equal(transitions.next_obs[:, 1], [3, 5, 3, 5])  # does not run on beyond the end
    np.testing.assert_array_equal(transitions.terminated, [False, True, False, True])
    assert env.spec.episode_length == 34
    assert env.spec.reward is None
    assert env.spec.termination is not None and env.spec.termination(None, None, jnp.array([0.0, 5.0]))


def test_action_repeat_of_an_endless_task_stays_endless():
    bare = probe()
    env = wrappers.action_repeat(bare._replace(spec=bare.spec._replace(termination=None)), 2)
    assert env.spec.termination is not None and not env.spec.termination(jnp.zeros(2), jnp.zeros(1), jnp.ones(2))
    assert wrappers.action_repeat(bare, 1) is bare


def test_frame_stack_shows_the_last_observations():
    """Of one episode only, whose first one fills the stack; what is known goes on working."""
    bare, env = probe(end=4), wrappers.frame_stack(probe(end=4), 3)
    assert env.spec.obs_size == 6
    transitions, _ = gather(env, 8)
    np.testing.assert_array_equal(transitions.obs[:, 1::2], [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]] * 2)
    np.testing.assert_array_equal(transitions.next_obs[:, 1::2], [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]] * 2)
    assert (transitions.obs[:, ::2] == transitions.obs[:, :1]).all()  # the start, which tells episodes apart
    plain, _ = gather(bare, 8)
    np.testing.assert_array_equal(transitions.reward, plain.reward)
    np.testing.assert_array_equal(transitions.terminated, plain.terminated)
    known = transitions.obs, transitions.action, transitions.next_obs
    assert env.spec.reward is not None and env.spec.termination is not None
    np.testing.assert_array_equal(jax.vmap(env.spec.reward)(*known), transitions.reward)
    np.testing.assert_array_equal(jax.vmap(env.spec.termination)(*known), transitions.terminated)
    assert wrappers.frame_stack(bare, 1) is bare


def test_frame_stack_keeps_track_of_angles_and_takes_trees():
    assert wrappers.frame_stack(spinner(), 2).spec.angles == (1, 3, 5, 7)
    bare = probe()

    def as_tree(timestep):
        return timestep._replace(obs={"image": timestep.obs.reshape(1, 2, 1), "flat": timestep.obs})

    def step(key, timestep, action):
        return as_tree(bare.step(key, timestep._replace(obs=timestep.obs["flat"]), action))

    observation = jax.eval_shape(lambda key: as_tree(bare.reset(key)).obs, jax.random.key(0))
    spec = bare.spec._replace(observation=observation)
    env = wrappers.frame_stack(Environment(spec, lambda key: as_tree(bare.reset(key)), step), 3)
    first = env.reset(jax.random.key(0))
    second = env.step(jax.random.key(1), first, jnp.zeros(1))
    assert jax.tree.map(jnp.shape, second.obs) == {"image": (1, 2, 3), "flat": (6,)}
    np.testing.assert_array_equal(second.obs["image"][0, 1], [0, 0, 1])
    scalar = bare._replace(spec=spec._replace(observation=jax.ShapeDtypeStruct((), jnp.float32)))
    with pytest.raises(ConfigError, match=r"frame_stack: got 2, needs 1 where an observation is a scalar"):
        wrappers.frame_stack(scalar, 2)


def spinner():
    """Observes (speed, angle a, 7, angle b): a turns with the speed, b stays; pays cos(a) + b."""

    def reward(obs, action, next_obs):
        return jnp.cos(next_obs[1]) + next_obs[3]

    def termination(obs, action, next_obs):
        return jnp.sin(next_obs[1]) > 0.95

    def reset(key):
        obs = jnp.array([0.7, 3.0, 7.0, -1.0])
        return TimeStep(0, obs, 0.0, False, False)  # pyright: ignore

    def step(key, timestep, action):
        obs = timestep.obs.at[1].add(timestep.obs[0])
        known = timestep.obs, action, obs
        return TimeStep(timestep.state + 1, obs, reward(*known), termination(*known), False)  # pyright: ignore

    spec = Spec("spinner", jax.ShapeDtypeStruct((4,), jnp.float32), box(-1, 1), 50, reward, termination, (1, 3))
    return wrappers.strongly_typed(Environment(spec, reset, step))


@pytest.mark.parametrize(
    ("indices", "layout", "angles"),
    [
        (None, ["0", "sin1", "cos1", "2", "sin3", "cos3"], ()),
        ((1,), ["0", "sin1", "cos1", "2", "3"], (4,)),
        ((3,), ["0", "1", "2", "sin3", "cos3"], (1,)),
    ],
)
def test_sin_cos_shows_pairs_and_keeps_what_is_known(indices, layout, angles, key):
    bare, env = spinner(), wrappers.sin_cos(spinner(), indices)
    assert env.spec.obs_size == len(layout)
    assert env.spec.angles == angles
    inner, outer = bare.reset(key), env.reset(key)
    for _ in range(12):  # past several turns
        expected = [
            {"s": np.sin, "c": np.cos}.get(word[0], lambda x: x)(np.float64(inner.obs[int(word[-1])]))
            for word in layout
        ]
        np.testing.assert_allclose(outer.obs, expected, atol=1e-5)
        before = outer
        inner, outer = bare.step(key, inner, jnp.zeros(1)), env.step(key, outer, jnp.zeros(1))
        assert env.spec.reward is not None and env.spec.termination is not None
        assert env.spec.reward(before.obs, jnp.zeros(1), outer.obs) == pytest.approx(float(inner.reward), abs=1e-4)
        assert bool(env.spec.termination(before.obs, jnp.zeros(1), outer.obs)) == bool(inner.terminated)


def test_sin_cos_rejects_an_index_outside():
    with pytest.raises(ConfigError, match=r"indices: got \(4,\), needs indices of an observation of 4 entries"):
        wrappers.sin_cos(spinner(), (4,))


def test_strong_types_prevent_a_second_compilation(key):
    weak = {"a": jnp.asarray(1.0), "key": key, "b": 2}
    assert weak["a"].weak_type
    strong = wrappers.strong_types(weak)
    assert not strong["a"].weak_type and not strong["b"].weak_type
    assert strong["key"].dtype == key.dtype
    traces = []

    @jax.jit
    def double(x):
        traces.append(1)
        return 2.0 * x

    double(double(strong["a"]))
    assert len(traces) == 1


def test_a_batch_is_vmap():
    env = wrappers.time_limit(probe(), 4)
    apart = [gather(env, 10, key) for key in jax.random.split(jax.random.key(0), 3)]
    together = jax.jit(jax.vmap(lambda key: gather(env, 10, key)))(jax.random.split(jax.random.key(0), 3))
    jax.tree.map(np.testing.assert_array_equal, together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *apart))
