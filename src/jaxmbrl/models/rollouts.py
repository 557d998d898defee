"""Imagination: rolling a WorldModel forward under given actions, or under a policy, and beside what was seen."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.types import Array, Foreseen, Key, Prediction, PyTree, TimeStep, WorldModel


class Imagined(NamedTuple):
    """A rollout of H steps; S is the shape of the model's belief (see `Prediction`).

    Attributes:
        state: the model's states before each step, leaves [H, ...].
        action: [H, A], or [H, *S, A] where a policy acts on each particle.
        prediction: reward and discount of each step, [H, *S].
        last: the state after the last step.
    """

    state: PyTree
    action: Array
    prediction: Prediction
    last: PyTree


def simulate(model: WorldModel, params: PyTree, key: Key, state: PyTree, actions: Array) -> Imagined:
    """Open loop: apply ``actions`` [H, A] one after another from ``state``."""
    return steer(model, params, key, state, actions, lambda features, action: action)


def steer(
    model: WorldModel,
    params: PyTree,
    key: Key,
    state: PyTree,
    controls: Array,
    action: Callable[[Array, Array], Array],
) -> Imagined:
    """A loop that ``controls`` [H, C] steer: ``action(features, control) -> action``, step by step from ``state``."""

    def advance(state: PyTree, step: tuple[Key, Array]) -> tuple[PyTree, tuple[PyTree, Array, Prediction]]:
        chosen = action(model.features(params, state), step[1])
        successor, prediction = model.step(params, step[0], state, chosen)
        return successor, (state, chosen, prediction)

    keys = jax.random.split(key, controls.shape[0])
    last, (states, actions, predictions) = jax.lax.scan(advance, state, (keys, controls))
    return Imagined(states, actions, predictions, last)


def imagine(
    model: WorldModel,
    params: PyTree,
    key: Key,
    state: PyTree,
    policy: Callable[[Key, Array], Array],
    horizon: int,
) -> Imagined:
    """Closed loop: ``policy(key, features) -> action`` acts for ``horizon`` steps from ``state``."""

    def advance(state: PyTree, key: Key) -> tuple[PyTree, tuple[PyTree, Array, Prediction]]:
        key_policy, key_step = jax.random.split(key)
        action = policy(key_policy, model.features(params, state))
        successor, prediction = model.step(params, key_step, state, action)
        return successor, (state, action, prediction)

    last, (states, actions, predictions) = jax.lax.scan(advance, state, jax.random.split(key, horizon))
    return Imagined(states, actions, predictions, last)


def propose(
    model: WorldModel, params: PyTree, key: Key, state: PyTree, policy: Callable[[Array], Array], horizon: int
) -> Array:
    """A policy's actions [H, A] along its own rollout; of particles that act apart, the first one's."""
    each = jnp.vectorize(policy, signature="(o)->(a)")
    return first_particle(imagine(model, params, key, state, lambda key, features: each(features), horizon).action)


def first_particle(rollout: Array) -> Array:
    """The first particle's share [H, C] of vectors [H, *S, C]."""
    return rollout.reshape((len(rollout), -1, rollout.shape[-1]))[:, 0]


def foresee(
    model: WorldModel,
    params: PyTree,
    key: Key,
    timesteps: TimeStep,
    actions: Array,
    *,
    context: int,
    seen: Array,
    reconstruct: Callable[[PyTree], Array],
) -> Foreseen:
    """Filter ``context`` time steps of an episode, and imagine the others open loop.

    Args:
        model: of one episode, without particles.
        params: its parameters.
        key: for what it draws.
        timesteps: of the episode, [T]; what comes after ``context`` of them is not looked at.
        actions: between them, [T - 1, A].
        context: at least 1.
        seen: [T, ...], what is told of the observations.
        reconstruct: ``(state) -> array``, like one of ``seen``.
    """
    key_start, key_observe, key_imagine = jax.random.split(key, 3)
    first = model.start(params, key_start, jax.tree.map(lambda leaf: leaf[0], timesteps))

    def observe(state: PyTree, step: tuple[Key, Array, TimeStep]) -> tuple[PyTree, PyTree]:
        state = model.observe(params, step[0], state, *step[1:])
        return state, state

    shown = jax.tree.map(lambda leaf: leaf[1:context], timesteps)
    keys = jax.random.split(key_observe, context - 1)
    last, filtered = jax.lax.scan(observe, first, (keys, actions[: context - 1], shown))
    imagined = simulate(model, params, key_imagine, last, actions[context - 1 :])
    states = jax.tree.map(
        lambda first, filtered, before, last: jnp.concatenate([first[None], filtered, before[1:], last[None]]),
        first,
        filtered,
        imagined.state,
        imagined.last,
    )
    return Foreseen(
        seen=seen,
        imagined=jax.vmap(reconstruct)(states),
        reward=imagined.prediction.reward,
        discount=imagined.prediction.discount,
    )
