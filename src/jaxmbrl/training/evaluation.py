"""Episodes of an agent that neither explores nor learns, inside the compiled program."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxmbrl import sharding
from jaxmbrl.types import Agent, Array, Environment, Key, PyTree, TimeStep


def rollout(env: Environment, agent: Agent) -> Callable[[PyTree, Key], tuple[TimeStep, Array]]:
    """One episode, ``(agent_state, key) -> (timesteps [T + 1], actions [T])``, T being the episode's length limit.

    Once the episode has ended, its last time step is repeated with reward 0.
    """

    def run(agent_state: PyTree, key: Key) -> tuple[TimeStep, Array]:
        key_reset, key_memory, key_steps = jax.random.split(key, 3)

        def step(carry: tuple[TimeStep, PyTree], key: Key) -> tuple[tuple[TimeStep, PyTree], tuple[TimeStep, Array]]:
            timestep, memory = carry
            key_act, key_env = jax.random.split(key)
            action, memory, _ = agent.act(agent_state, key_act, memory, timestep, explore=False)
            ended = timestep.terminated | timestep.truncated
            still = timestep._replace(reward=jnp.zeros_like(timestep.reward))
            successor = jax.tree.map(partial(jnp.where, ended), still, env.step(key_env, timestep, action))
            return (successor, memory), (successor, action)

        first = env.reset(key_reset)
        carry = (first, agent.memory(agent_state, key_memory))
        _, (timesteps, actions) = jax.lax.scan(step, carry, jax.random.split(key_steps, env.spec.episode_length))
        timesteps = jax.tree.map(lambda one, rest: jnp.concatenate([one[None], rest]), first, timesteps)
        return timesteps, actions

    return run


def evaluate(env: Environment, agent: Agent, episodes: int) -> Callable[[PyTree, Key], Array]:
    """Undiscounted returns of independent episodes, ``(agent_state, key) -> returns [episodes]``."""

    def run(agent_state: PyTree, key: Key) -> Array:
        timesteps, _ = sharding.vmap(rollout(env, agent), in_axes=(None, 0))(
            agent_state, jax.random.split(key, episodes)
        )
        return jnp.sum(timesteps.reward, axis=1)

    return run
