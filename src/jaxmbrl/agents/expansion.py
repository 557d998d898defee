"""What MVE, STEVE and SAC-SVG share: a learner beside a model, and targets that the model extends by a few steps.

each fit:         fit the models to all data
after each step:  ``updates`` gradient steps; each imagines ``horizon`` steps from every next observation of a batch
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl import policies
from jaxmbrl.agents import off_policy
from jaxmbrl.envs.imagined import LIMIT
from jaxmbrl.models import ensemble, fitting, one_step
from jaxmbrl.models.ensemble import Ensemble
from jaxmbrl.models.fitting import Fitter
from jaxmbrl.policies.actor_critic import ActorCritic, Examples
from jaxmbrl.replay import Replay
from jaxmbrl.types import Agent, Array, Key, Metrics, Spec, Transition


class State(NamedTuple):
    """The learner's state, and the model with its optimiser."""

    policy: Any
    model: fitting.State


class Expansion(NamedTuple):
    """A replayed transition and H imagined steps from its end, by each of M models.

    These are the rows that the functions of `values.expansion` take.

    Attributes:
        obs: [H + 1, M, O], before each step; the replayed one first.
        action: [H + 1, M, A].
        reward: [H + 1, M, L], by each of L reward functions, with the discounted entropy bonus of the action that
            follows.
        continues: [H + 1, M], the chance that the episode goes on after the step.
        value: [H + 1, M, K], of the action that follows the step, by each target critic.
    """

    obs: Array
    action: Array
    reward: Array
    continues: Array
    value: Array


class Parts(NamedTuple):
    """What an agent of this kind is made of.

    Attributes:
        learner: critics and actor.
        model: M members that predict.
        fitter: of the model.
        horizon: H.
        every_reward: each member's reward is judged by all members, rather than by itself.
    """

    learner: ActorCritic
    model: Ensemble
    fitter: Fitter
    horizon: int
    every_reward: bool


Target = Callable[[Parts, Expansion], tuple[Examples, Metrics]]  # of one transition; examples [N, ...]


def make(spec: Spec, config: Any, target: Target, *, every_reward: bool = False) -> Agent:
    """An agent whose critics learn from ``target``; ``config`` has the fields that `mve.Config` has."""
    parts = make_parts(spec, config, every_reward=every_reward and config.model.member.learn_reward)
    return compose(parts, partial(_improve, parts, config, target))


def make_parts(spec: Spec, config: Any, *, every_reward: bool = False) -> Parts:
    """What ``config`` describes. Raises ConfigError as `one_step.make` does."""
    model = ensemble.members(spec, config.model)
    learner = policies.make_actor_critic(spec, config.policy)
    return Parts(learner, model, fitting.make(model, config.fit), config.horizon, every_reward)


def compose(parts: Parts, improve: Callable[[State, Key, Replay], tuple[State, Metrics]]) -> Agent:
    """An agent that acts by its learner, fits its model, and learns by ``improve``."""
    return Agent(
        init=partial(_init, parts),
        memory=off_policy.no_memory,
        act=partial(off_policy.act, parts.learner.act, lambda state: state.policy),
        fit=partial(_fit, parts),
        improve=improve,
        predictors=lambda state: ensemble.predictors(parts.model, state.model.params),
    )


def _init(parts: Parts, key: Key) -> State:
    key_policy, key_model = jax.random.split(key)
    return State(parts.learner.init(key_policy), parts.fitter.init(key_model))


def _fit(parts: Parts, state: State, key: Key, replay: Replay) -> tuple[State, Metrics]:
    model, metrics = parts.fitter.fit(state.model, key, replay)
    return state._replace(model=model), metrics


def _improve(
    parts: Parts, config: Any, target: Target, state: State, key: Key, replay: Replay
) -> tuple[State, Metrics]:
    members = ensemble.elite_members(state.model.params)

    def update(policy: Any, key: Key, batch: Transition) -> tuple[Any, Metrics]:
        key_target, key_learn = jax.random.split(key)
        noise = jax.random.normal(key_target, (batch.reward.shape[0], parts.horizon + 1, *batch.action.shape[1:]))
        expansion = jax.vmap(partial(expand, parts, policy, members))(batch, noise)
        examples, metrics = jax.vmap(partial(target, parts))(expansion)
        examples = jax.tree.map(lambda leaf: leaf.reshape((-1, *leaf.shape[2:])), examples)
        policy, learner_metrics = parts.learner.learn(policy, key_learn, batch.obs, examples)
        return policy, learner_metrics | jax.tree.map(jnp.mean, metrics)

    draw = off_policy.replayed(replay, config.batch_size)
    policy, metrics = off_policy.improve(update, draw, config.updates, state.policy, key)
    return state._replace(policy=policy), metrics


def expand(parts: Parts, policy: Any, members: one_step.Params, transition: Transition, noise: Array) -> Expansion:
    """Imagine on from a replayed transition, by each member's mean and the target policy.

    Args:
        parts: learner, model and horizon.
        policy: the learner's state.
        members: of the model, leaves [M, ...].
        transition: one.
        noise: [H + 1, A], standard normal, of the policy's actions; common to all members.

    Returns:
        The rows. A prediction that is not finite or beyond any task's range makes all later rows of its member nan.
    """
    learner, base, num = parts.learner, parts.model.base, parts.model.num_elites
    bootstrap = jax.vmap(partial(learner.bootstrap, policy), in_axes=(None, 0))
    mean_outcome = jax.vmap(base.mean_outcome)

    def judge(obs: Array, action: Array) -> Array:  # by all members, [L]
        return jax.vmap(base.mean_outcome, in_axes=(0, None, None))(members, obs, action).reward

    def step(obs: Array, noise: Array) -> tuple[Array, tuple[Array, ...]]:
        seen = bootstrap(noise, obs)
        outcome = mean_outcome(members, obs, seen.action)
        reward = jax.vmap(judge)(obs, seen.action) if parts.every_reward else outcome.reward[:, None]
        sound = jnp.all(jnp.abs(outcome.next_obs) <= LIMIT, axis=-1)
        after = jnp.where(sound[:, None], outcome.next_obs, jnp.nan)
        reward = jnp.where(sound[:, None], reward, jnp.nan)  # a state out of range may look like a termination
        return after, (obs, seen.action, seen.values, seen.bonus, reward, outcome.discount)

    start = jnp.broadcast_to(transition.next_obs, (num, *transition.next_obs.shape))
    last, (obs, action, value, bonus, reward, continues) = jax.lax.scan(step, start, noise[:-1])
    end = bootstrap(noise[-1], last)
    first = jax.tree.map(partial(_for_each, num), (transition.obs, transition.action, transition.discount))
    real = jnp.broadcast_to(transition.reward, (1, num, reward.shape[-1]))
    continues = jnp.concatenate([first[2], continues])
    # A state's value is Q and the bonus of its action's entropy. The step before carries the bonus, so that it counts
    # once whether Q is a critic's or expanded further. What follows a certain end counts as 0, finite or not.
    bonus = jnp.concatenate([bonus, end.bonus[None]])
    following = jnp.where(continues == 0, 0.0, bonus * continues * learner.discount)
    return Expansion(
        obs=jnp.concatenate([first[0], obs]),
        action=jnp.concatenate([first[1], action]),
        reward=jnp.concatenate([real, reward]) + following[..., None],
        continues=continues,
        value=jnp.concatenate([value, end.values[None]]),
    )


def _for_each(num: int, leaf: Array) -> Array:
    """A leaf [...] of the real step as a first row [1, M, ...] of every member."""
    return jnp.broadcast_to(leaf, (1, num, *leaf.shape))
