"""The plan-act-learn loop as one compiled program: nested scans, never Python.

epoch = fits_per_epoch x [ agent.fit, then n x [ `interact` environment steps, agent.improve ] ], then evaluation
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl import replay as replays
from jaxmbrl import sharding
from jaxmbrl.config import ConfigError
from jaxmbrl.envs import wrappers
from jaxmbrl.replay import Replay
from jaxmbrl.schedule import Schedule
from jaxmbrl.training.evaluation import evaluate
from jaxmbrl.types import Agent, Array, Box, Environment, Key, Metrics, PyTree, Spec, TimeStep, Transition


class Episodes(NamedTuple):
    """Bookkeeping of episodes.

    Attributes:
        current_return: [B], of the episodes under way.
        current_length: int32 [B], steps.
        finished: int32 [], episodes that ended since the epoch began.
        return_sum: [], of those.
        length_sum: int32 [], of those.
    """

    current_return: Array
    current_length: Array
    finished: Array
    return_sum: Array
    length_sum: Array


class LoopState(NamedTuple):
    """Everything that a run needs to go on, as one tree.

    Attributes:
        agent: the agent's state.
        replay: the experience store.
        timestep: of each environment, leaves [B, ...].
        memory: the agent's per-episode memory, leaves [B, ...].
        episodes: bookkeeping.
        env_steps: int32 [], environment steps so far, those before the first epoch included.
        key: PRNG key.
    """

    agent: PyTree
    replay: Replay
    timestep: TimeStep
    memory: PyTree
    episodes: Episodes
    env_steps: Array
    key: Key


class Loop(NamedTuple):
    """A run as two pure functions.

    Attributes:
        init: ``(key) -> LoopState``, with the store filled by random actions, or by the agent (`Agent.acts_first`).
        epoch: ``(LoopState) -> (LoopState, metrics)``; ``metrics`` maps names to scalars. ``episode_return`` and
            ``episode_length`` are means over the ``episodes`` that ended in the epoch, and 0 where none did.
    """

    init: Callable[[Key], LoopState]
    epoch: Callable[[LoopState], tuple[LoopState, Metrics]]


def make_loop(env: Environment, agent: Agent, schedule: Schedule) -> Loop:
    """Compose an environment, an agent and a schedule.

    Raises:
        ConfigError: if what is stored before the agent first learns, or ever, is shorter than its windows, or what is
            ever stored than what it takes at once; or if it counts on other steps between two fits than the schedule
            has.
    """
    between = schedule.epoch_steps // schedule.fits_per_epoch
    if agent.steps_per_fit not in (0, between):
        needs = f"{agent.steps_per_fit}, which the agent counts on"
        raise ConfigError(f"schedule.epoch_steps: got {between} for each of the fits_per_epoch, needs {needs}")
    for name, steps in (("prefill", schedule.prefill), ("capacity", schedule.replay_capacity)):
        if steps < agent.window * schedule.num_envs:
            needs = f"at least {agent.window * schedule.num_envs}, {agent.window} steps of each environment"
            raise ConfigError(
                f"schedule.{name}: got {steps}, needs {needs}: the agent learns from windows of that many"
            )
    if schedule.replay_capacity < agent.newest:
        needs = f"at least {agent.newest}, the newest steps that the agent learns from at once"
        raise ConfigError(f"schedule.capacity: got {schedule.replay_capacity}, needs {needs}")
    return Loop(partial(_init, env, agent, schedule), partial(_epoch, env, agent, schedule))


def train(loop: Loop, epochs: int) -> Callable[[Key], tuple[LoopState, Metrics]]:
    """A whole run as one function ``key -> (state, metrics [epochs])``: jit it, vmap it, shard it."""

    def run(key: Key) -> tuple[LoopState, Metrics]:
        return jax.lax.scan(lambda state, _: loop.epoch(state), loop.init(key), length=epochs)

    return run


def random_action(key: Key, spec: Spec) -> Array:
    """A uniformly random action: [A] within the bounds, or int32 [] for discrete actions."""
    if isinstance(spec.action, Box):
        return jax.random.uniform(key, spec.action.low.shape, jnp.float32, spec.action.low, spec.action.high)
    return jax.random.randint(key, (), 0, spec.action.num)


Act = Callable[[Key, PyTree, TimeStep], tuple[Array, PyTree, PyTree]]  # of one environment; (action, memory, extras)


def _init(env: Environment, agent: Agent, schedule: Schedule, key: Key) -> LoopState:
    key_agent, key_reset, key_memory, key_prefill, key_next = jax.random.split(key, 5)
    agent_state = agent.init(key_agent)
    timestep = jax.vmap(env.reset)(jax.random.split(key_reset, schedule.num_envs))
    memory = jax.vmap(agent.memory, in_axes=(None, 0))(agent_state, jax.random.split(key_memory, schedule.num_envs))
    one = jax.tree.map(lambda leaf: leaf[0], (memory, timestep))
    extras = jax.eval_shape(partial(agent.act, agent_state, explore=True), key_prefill, *one)[2]

    def act_randomly(key: Key, memory: PyTree, timestep: TimeStep) -> tuple[Array, PyTree, PyTree]:
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), extras)
        return random_action(key, env.spec), memory, nothing

    example = jax.eval_shape(partial(_act_and_step, env, act_randomly), key_prefill, *one)[0]
    store = replays.init(example, capacity=schedule.replay_capacity, num_envs=schedule.num_envs)
    zeros = jnp.zeros(schedule.num_envs)
    episodes = Episodes(zeros, zeros.astype(jnp.int32), *_none_finished())
    state = LoopState(agent_state, store, timestep, memory, episodes, jnp.zeros((), jnp.int32), key_next)
    state = wrappers.strong_types(state)  # a weakly typed leaf would compile the scans twice
    act = partial(agent.act, state.agent, explore=True) if agent.acts_first else act_randomly
    return interact(env, agent, act, state, key_prefill, schedule.prefill // schedule.num_envs)


def _epoch(env: Environment, agent: Agent, schedule: Schedule, state: LoopState) -> tuple[LoopState, Metrics]:
    state = state._replace(episodes=Episodes(*state.episodes[:2], *_none_finished()))
    rounds = schedule.epoch_steps // (schedule.fits_per_epoch * schedule.interact * schedule.num_envs)

    def phase(state: LoopState, _: None) -> tuple[LoopState, Metrics]:
        key_fit, key_next = jax.random.split(state.key)
        agent_state, fit_metrics = agent.fit(state.agent, key_fit, state.replay)
        state = state._replace(agent=sharding.join(agent_state), key=key_next)
        state, metrics = jax.lax.scan(work, state, length=rounds)
        return state, fit_metrics | _mean(metrics)

    def work(state: LoopState, _: None) -> tuple[LoopState, Metrics]:
        key_act, key_improve, key_next = jax.random.split(state.key, 3)
        act = partial(agent.act, state.agent, explore=True)
        state = interact(env, agent, act, state._replace(key=key_next), key_act, schedule.interact)
        agent_state, metrics = agent.improve(state.agent, key_improve, state.replay)
        return state._replace(agent=agent_state), metrics

    state, metrics = jax.lax.scan(phase, state, length=schedule.fits_per_epoch)
    metrics = _mean(metrics) | _episode_metrics(state)
    key_eval, key_next = jax.random.split(state.key)  # used or not: evaluating changes nothing of the training
    if schedule.eval_episodes:
        returns = evaluate(env, agent, schedule.eval_episodes)(state.agent, key_eval)
        metrics |= {"eval_return": jnp.mean(returns)}
    return state._replace(key=key_next), metrics


def interact(env: Environment, agent: Agent, act: Act, state: LoopState, key: Key, steps: int) -> LoopState:
    """``steps`` steps of every environment, stored and counted."""
    num_envs = state.timestep.reward.shape[0]

    def step(state: LoopState, key: Key) -> tuple[LoopState, None]:
        key_step, key_memory = (jax.random.split(child, num_envs) for child in jax.random.split(key))
        advance = sharding.vmap(partial(_act_and_step, env, act))
        transition, timestep, memory = advance(key_step, state.memory, state.timestep)
        ended = transition.terminated | transition.truncated
        fresh = jax.vmap(agent.memory, in_axes=(None, 0))(state.agent, key_memory)
        return state._replace(
            replay=replays.add(state.replay, transition),
            timestep=timestep,
            memory=jax.vmap(wrappers.select)(ended, fresh, memory),
            episodes=_count(state.episodes, transition.reward, ended),
            env_steps=state.env_steps + num_envs,
        ), None

    return jax.lax.scan(step, state, jax.random.split(key, steps))[0]


def _act_and_step(
    env: Environment, act: Act, key: Key, memory: PyTree, timestep: TimeStep
) -> tuple[Transition, TimeStep, PyTree]:
    """One step of one environment: what happened, what is seen next, and the agent's memory after acting."""
    key_act, key_env = jax.random.split(key)
    action, memory, extras = act(key_act, memory, timestep)
    transition, timestep = wrappers.auto_reset_step(env, key_env, timestep, action)
    return transition._replace(extras=extras), timestep, memory


def _none_finished() -> tuple[Array, Array, Array]:
    return jnp.zeros((), jnp.int32), jnp.zeros(()), jnp.zeros((), jnp.int32)


def _count(episodes: Episodes, reward: Array, ended: Array) -> Episodes:
    """Account for one step of every environment."""
    returns, lengths = episodes.current_return + reward, episodes.current_length + 1
    return Episodes(
        current_return=jnp.where(ended, 0.0, returns),
        current_length=jnp.where(ended, 0, lengths),
        finished=episodes.finished + jnp.sum(ended, dtype=jnp.int32),
        return_sum=episodes.return_sum + jnp.sum(jnp.where(ended, returns, 0.0)),
        length_sum=episodes.length_sum + jnp.sum(jnp.where(ended, lengths, 0), dtype=jnp.int32),
    )


def _episode_metrics(state: LoopState) -> Metrics:
    finished = jnp.maximum(state.episodes.finished, 1)
    return {
        "env_steps": state.env_steps,
        "episodes": state.episodes.finished,
        "episode_return": state.episodes.return_sum / finished,
        "episode_length": state.episodes.length_sum / finished,
    }


def _mean(metrics: Metrics) -> Metrics:
    return jax.tree.map(partial(jnp.mean, axis=0), metrics)
