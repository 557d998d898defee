"""The loop on an environment that counts: what is stored, what is counted, and one program however it is cut."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import training
from jaxmbrl.config import ConfigError
from jaxmbrl.replay import num_transitions, transitions
from jaxmbrl.schedule import Schedule
from jaxmbrl.training.loop import random_action
from jaxmbrl.types import Agent, Box, Discrete, Environment, Spec, TimeStep

TERMINATES_AT, TRUNCATES_AT = 3, 5


def counting():
    """Obs: (episode's number in [0, 1), steps taken). Episodes below 0.5 terminate after 3 steps, others truncate at 5.

    The reward is the step's number (1, 2, ...) plus the action, which is within [-0.25, 0.25].
    """
    spec = Spec(
        name="counting",
        observation=jax.ShapeDtypeStruct((2,), jnp.float32),
        action=Box(np.array([-0.25], np.float32), np.array([0.25], np.float32)),
        episode_length=TRUNCATES_AT,
    )

    def reset(key):
        obs = jnp.stack([jax.random.uniform(key), jnp.float32(0)])
        return TimeStep(obs, obs, jnp.zeros(()), jnp.zeros((), bool), jnp.zeros((), bool))

    def step(key, timestep, action):
        obs = timestep.state + jnp.array([0.0, 1.0])
        terminated = (obs[0] < 0.5) & (obs[1] >= TERMINATES_AT)
        return TimeStep(obs, obs, obs[1] + action[0], terminated, (obs[1] >= TRUNCATES_AT) & ~terminated)

    return Environment(spec, reset, step)


def recording(traces=None):
    """An agent that numbers its acts within an episode, and counts what it is asked to learn from."""

    def init(key):
        return {"fits": jnp.zeros((), jnp.int32), "improves": jnp.zeros((), jnp.int32), "noise": jax.random.normal(key)}

    def act(state, key, memory, timestep, *, explore):
        if traces is not None:
            traces.append(explore)
        action = 0.1 * jnp.tanh(jax.random.normal(key, (1,)) + state["noise"]) if explore else jnp.full((1,), 0.125)
        extras = {"act": memory["acts"], "improves": state["improves"], "nonce": memory["nonce"]}
        return action, memory | {"acts": memory["acts"] + 1}, extras

    def fit(state, key, store):
        state = state | {"fits": state["fits"] + 1}
        return state, {"fit_noise": jax.random.uniform(key), "held_at_fit": num_transitions(store)}

    def improve(state, key, store):
        state = state | {"improves": state["improves"] + 1, "noise": state["noise"] + 0.1 * jax.random.normal(key)}
        return state, {"held_at_improve": num_transitions(store), "noise": state["noise"]}

    memory = lambda state, key: {"acts": jnp.zeros((), jnp.int32), "nonce": jax.random.uniform(key)}  # noqa: E731
    return Agent(init, memory, act, fit, improve)


SCHEDULES = {
    "one": Schedule(epochs=3, prefill=8, epoch_steps=24, fits_per_epoch=2, interact=3, num_envs=1),
    "three": Schedule(epochs=3, prefill=9, epoch_steps=36, fits_per_epoch=2, interact=2, num_envs=3),
    "wrapping": Schedule(epochs=3, prefill=9, epoch_steps=36, num_envs=3, capacity=30),
    "evaluating": Schedule(
        epochs=3, prefill=9, epoch_steps=36, fits_per_epoch=2, interact=2, num_envs=3, eval_episodes=4
    ),
}


@functools.cache
def loop_of(name):
    return training.make_loop(counting(), recording(), SCHEDULES[name])


@functools.cache
def runs_of(name):
    """Two whole runs under one vmap."""
    return jax.device_get(jax.jit(jax.vmap(training.train(loop_of(name), 3)))(KEYS))


KEYS = jax.random.split(jax.random.key(21), 2)


def one(tree, index=0):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def stored(state):
    """All transitions of a run, leaves [rows, num_envs, ...]."""
    return jax.device_get(transitions(state.replay))


def equal(tree, other):
    def check(x, y):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)

    jax.tree.map(check, tree, other)


@pytest.fixture(params=["one", "three"])
def name(request):
    return request.param


def test_chunked_epochs_are_one_program(name):
    loop, (state, metrics) = loop_of(name), one(runs_of(name))
    epoch, current = jax.jit(loop.epoch), jax.jit(loop.init)(KEYS[0])
    for number in range(3):
        current, row = epoch(current)
        equal(row, one(metrics, number))
    equal(current, state)


def test_two_seeds_under_vmap_are_two_runs(name):
    run = jax.jit(training.train(loop_of(name), 3))
    for index in range(2):
        equal(run(KEYS[index]), one(runs_of(name), index))
    metrics = runs_of(name)[1]
    assert np.abs(metrics["episode_return"][0] - metrics["episode_return"][1]).max() > 1e-3


def histories(name):
    """What each environment of both runs did, oldest first: transitions [T, ...]."""
    for index in range(2):
        state, metrics = one(runs_of(name), index)
        for env in range(SCHEDULES[name].num_envs):
            yield jax.tree.map(lambda leaf, env=env: leaf[:, env], stored(state)), state, metrics


def test_stored_transitions_are_what_happened(name):
    """True final observations, ends told apart, fresh episodes after them."""
    for data, *_ in histories(name):
        ended = data.terminated | data.truncated
        np.testing.assert_allclose(data.next_obs, data.obs + np.array([0.0, 1.0]), atol=1e-6)  # never a reset one
        steps, short = np.rint(data.next_obs[:, 1]), data.obs[:, 0] < 0.5
        np.testing.assert_array_equal(data.terminated, short & (steps == TERMINATES_AT))
        np.testing.assert_array_equal(data.truncated, ~short & (steps == TRUNCATES_AT))
        np.testing.assert_array_equal(data.discount, np.where(data.terminated, 0.0, 1.0))
        np.testing.assert_allclose(data.reward, steps + data.action[:, 0], atol=1e-5)
        np.testing.assert_array_equal(data.obs[1:][~ended[:-1]], data.next_obs[:-1][~ended[:-1]])
        firsts = data.obs[1:][ended[:-1]]
        np.testing.assert_array_equal(firsts[:, 1], 0.0)
        assert len(np.unique(firsts[:, 0])) == len(firsts) > 3, "each episode starts from a fresh state"
        assert data.terminated.any() and data.truncated.any()


def test_memory_starts_afresh_with_each_episode(name):
    """After the random steps, an agent's acts are numbered from the start of the episode, with a memory of its own."""
    prefill = SCHEDULES[name].prefill // SCHEDULES[name].num_envs
    for data, *_ in histories(name):
        number, nonce = data.extras["act"], data.extras["nonce"]
        np.testing.assert_array_equal(number[:prefill], 0)  # extras of random steps are zeros
        ended = data.terminated | data.truncated
        begun = prefill + int(np.argmax(ended[prefill:])) + 1  # the first episode was under way
        np.testing.assert_array_equal(number[begun:], np.rint(data.obs[begun:, 1]))
        new = ended[begun:-1]
        assert np.all((nonce[begun + 1 :] != nonce[begun:-1]) == new)


def test_random_steps_fill_the_bounds(name):
    schedule = SCHEDULES[name]
    actions = np.concatenate([data.action[: schedule.prefill // schedule.num_envs] for data, *_ in histories(name)])
    assert np.abs(actions).max() <= 0.25 and np.abs(actions).max() > 0.15 and len(np.unique(actions)) == actions.size


def test_an_agent_may_act_from_the_first_step_on(key):
    """The store is then filled by what it does, not by random actions, with the memory and the extras of its own."""
    loop = training.make_loop(counting(), recording()._replace(acts_first=True), SCHEDULES["three"])
    state = jax.jit(loop.init)(key)
    data = jax.tree.map(lambda leaf: np.asarray(leaf)[:3], stored(state))  # 9 steps of 3 environments
    np.testing.assert_array_equal(data.extras["act"], np.rint(data.obs[..., 1]))
    assert np.abs(data.action).max() <= 0.1 and np.all(data.extras["nonce"] > 0)
    assert state.env_steps == 9 and state.agent["fits"] == 0


def test_learning_happens_when_the_schedule_says(name):
    schedule, (state, metrics) = SCHEDULES[name], one(runs_of(name))
    improves = schedule.epoch_steps // (schedule.interact * schedule.num_envs)
    assert state.agent["fits"] == 3 * schedule.fits_per_epoch
    assert state.agent["improves"] == 3 * improves
    prefill = schedule.prefill // schedule.num_envs
    seen = stored(state).extras["improves"][prefill:, 0]
    np.testing.assert_array_equal(seen, np.arange(3 * improves * schedule.interact) // schedule.interact)
    # Steps held at the first and the second fit of an epoch, averaged.
    held = schedule.prefill + schedule.epoch_steps * (np.arange(3) + 0.25)
    np.testing.assert_allclose(metrics["held_at_fit"], held)
    held = schedule.prefill + schedule.epoch_steps * np.arange(3) + (schedule.epoch_steps + improves_step(schedule)) / 2
    np.testing.assert_allclose(metrics["held_at_improve"], held)


def improves_step(schedule):
    return schedule.interact * schedule.num_envs


def test_metrics_count_steps_and_episodes(name):
    """Against a plain count over what was stored; an episode counts in the epoch in which it ends."""
    schedule, num_envs = SCHEDULES[name], SCHEDULES[name].num_envs
    for index in range(2):
        state, metrics = one(runs_of(name), index)
        data = stored(state)
        np.testing.assert_array_equal(metrics["env_steps"], schedule.prefill + schedule.epoch_steps * np.arange(1, 4))
        assert state.env_steps == metrics["env_steps"][-1]
        finished = {epoch: [] for epoch in range(-1, 3)}
        for env in range(num_envs):
            total, length = 0.0, 0
            for time in range(len(data.reward)):
                total, length = total + float(data.reward[time, env]), length + 1
                if data.terminated[time, env] or data.truncated[time, env]:
                    finished[(time * num_envs - schedule.prefill) // schedule.epoch_steps].append((total, length))
                    total, length = 0.0, 0
        for epoch in range(3):
            returns, lengths = zip(*finished[epoch], strict=True)
            assert metrics["episodes"][epoch] == len(returns)
            np.testing.assert_allclose(metrics["episode_return"][epoch], np.mean(returns), rtol=1e-5)
            np.testing.assert_allclose(metrics["episode_length"][epoch], np.mean(lengths), rtol=1e-6)


def test_epochs_without_an_end_say_zero_episodes(key):
    loop = training.make_loop(counting(), recording(), Schedule(epochs=1, prefill=1, epoch_steps=1))
    metrics = jax.jit(training.train(loop, 1))(key)[1]
    assert metrics["episodes"] == metrics["episode_return"] == metrics["episode_length"] == 0


def test_a_store_smaller_than_the_run_keeps_the_latest_steps():
    """The same run with and without room for all of it: the ring holds the last 10 rows."""
    whole = training.make_loop(counting(), recording(), Schedule(epochs=3, prefill=9, epoch_steps=36, num_envs=3))
    state, _ = jax.device_get(jax.jit(training.train(whole, 3))(KEYS[0]))
    ring, everything = one(runs_of("wrapping"))[0], stored(state)
    rows = len(everything.reward)
    assert (ring.replay.size, ring.replay.cursor) == (10, rows % 10)
    for slot in range(10):
        time = max(time for time in range(rows) if time % 10 == slot)
        equal(one(stored(ring), slot), one(everything, time))


def test_evaluation_leaves_training_as_it_is():
    plain, evaluating = runs_of("three"), runs_of("evaluating")
    metrics = dict(evaluating[1])
    returns = metrics.pop("eval_return")
    equal((plain[0], plain[1]), (evaluating[0], metrics))
    assert returns.shape == (2, 3) and len(np.unique(returns)) > 1  # fresh episodes each time
    short, long = 6 + 3 * 0.125, 15 + 5 * 0.125
    assert np.all((returns >= short) & (returns <= long))


def test_nothing_is_traced_or_compiled_twice(key):
    traces = []
    loop = training.make_loop(counting(), recording(traces), SCHEDULES["three"])
    init, epoch = jax.jit(loop.init), jax.jit(loop.epoch)
    state, _ = epoch(init(key))
    number = len(traces)
    for _ in range(3):
        state, _ = epoch(state)
    init(jax.random.key(1))
    assert len(traces) == number and epoch._cache_size() == init._cache_size() == 1
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(jax.eval_shape(loop.init, key)))


def test_random_actions_of_discrete_spaces(key):
    spec = counting().spec._replace(action=Discrete(3))
    actions = np.asarray(jax.vmap(lambda key: random_action(key, spec))(jax.random.split(key, 100)))
    assert actions.dtype == np.int32 and set(actions.tolist()) == {0, 1, 2}


def test_bad_schedules_are_named():
    for bad, words in (
        ({"epoch_steps": 50, "fits_per_epoch": 2, "interact": 2, "num_envs": 3}, "epoch_steps: got 50.*\\(12\\)"),
        ({"prefill": 10, "num_envs": 4}, "prefill: got 10, needs a multiple of num_envs \\(4\\)"),
        ({"capacity": 10, "num_envs": 4}, "capacity: got 10, needs a multiple of num_envs \\(4\\)"),
        ({"num_envs": 0}, "num_envs"),
        ({"prefill": 0}, "prefill"),
    ):
        with pytest.raises(ConfigError, match=words):
            Schedule(**bad)
    assert Schedule(epochs=3, prefill=10, epoch_steps=20).replay_capacity == 70
    assert Schedule(capacity=40).replay_capacity == 40


def test_the_store_holds_the_agents_windows():
    """Before it first learns, and ever."""
    agent = recording()._replace(window=4)
    for options, words in (
        ({"prefill": 6}, r"schedule.prefill: got 6, needs at least 8, 4 steps of each environment"),
        ({"prefill": 8, "capacity": 6}, "schedule.capacity: got 6, needs at least 8"),
    ):
        with pytest.raises(ConfigError, match=words):
            training.make_loop(counting(), agent, Schedule(epoch_steps=8, num_envs=2, **options))
    training.make_loop(counting(), agent, Schedule(prefill=8, epoch_steps=8, num_envs=2))
