"""What agents around an off-policy learner share: acting, and gradient steps on batches drawn from somewhere."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxmbrl import replay as replays
from jaxmbrl.replay import Replay
from jaxmbrl.types import Agent, Array, Key, Metrics, PyTree, TimeStep, Transition

Draw = Callable[[Key, Key], Transition]  # (key of real data, key of anything else) -> batch [B]
Update = Callable[[Any, Key, Transition], tuple[Any, Metrics]]


def model_free(learner: Any, batch_size: int, updates: int) -> Agent:
    """An agent that is a learner: ``updates`` gradient steps on replayed batches after each interaction."""

    def improve_on(state: Any, key: Key, replay: Replay) -> tuple[Any, Metrics]:
        return improve(learner.update, replayed(replay, batch_size), updates, state, key)

    return Agent(
        init=lambda key: learner.init(jax.random.split(key)[0]),  # as an agent with a model splits it
        memory=no_memory,
        act=partial(act, learner.act, lambda state: state),
        fit=lambda state, key, replay: (state, {}),
        improve=improve_on,
    )


def no_memory(agent_state: PyTree, key: Key) -> tuple[()]:
    """The memory of an agent that needs none between steps."""
    return ()


def act(
    choose: Callable[..., Array],
    policy_of: Callable[[Any], Any],
    agent_state: Any,
    key: Key,
    memory: PyTree,
    timestep: TimeStep,
    *,
    explore: bool,
) -> tuple[Array, PyTree, tuple[()]]:
    """Act by a learner: ``choose`` is its ``act``, and ``policy_of`` finds its state in the agent's."""
    return choose(policy_of(agent_state), key, timestep.obs, explore=explore), memory, ()


def improve(update: Update, draw: Draw, num: int, state: Any, key: Key) -> tuple[Any, Metrics]:
    """``num`` gradient steps, each on a batch of its own; the metrics are their means.

    Every agent splits its keys here, so that two agents which draw the same batches learn the same, number for number.
    """

    def step(state: Any, key: Key) -> tuple[Any, Metrics]:
        key_real, key_other, key_update = jax.random.split(key, 3)
        return update(state, key_update, draw(key_real, key_other))

    state, metrics = jax.lax.scan(step, state, jax.random.split(key, num))
    return state, jax.tree.map(partial(jnp.mean, axis=0), metrics)


def replayed(replay: Replay, batch_size: int) -> Draw:
    """Draw uniformly from the replay store."""
    return lambda key_real, key_other: replays.sample(key_real, replay, batch_size)
