"""Stretches of real episodes, and what a model imagines of them under the actions that were taken."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.diagnostics import horizon
from jaxmbrl.models.angles import wrap
from jaxmbrl.types import Agent, Array, Key, PyTree, Spec, TimeStep

CONTEXT = 5  # steps that a model which filters is shown before
PARTICLES, FEW_PARTICLES, LARGE = 40, 8, 256  # particles, and those of observations with more entries than LARGE


class Episodes(NamedTuple):
    """B episodes of T steps; what lies beyond an end is a repetition.

    Attributes:
        timesteps: leaves [B, T + 1, ...].
        actions: [B, T, A].
        length: int32 [B], steps until the end.
    """

    timesteps: TimeStep
    actions: Array
    length: Array

    @property
    def running(self) -> Array:
        """Steps that were made, bool [B, T]."""
        return jnp.arange(self.actions.shape[1]) < self.length[:, None]


class Windows(NamedTuple):
    """W stretches of episodes: timesteps [W, T + 1, ...], actions [W, T, A], running bool [W, T]."""

    timesteps: TimeStep
    actions: Array
    running: Array


def cut_windows(key: Key, episodes: Episodes, steps: int, num: int) -> Windows:
    """Random stretches, within their episode where it is long enough."""
    key_which, key_when = jax.random.split(key)
    which = jax.random.randint(key_which, (num,), 0, len(episodes.length))
    when = jax.random.randint(key_when, (num,), 0, jnp.maximum(episodes.length[which] - steps + 1, 1))

    def cut(leaf: Array, extra: int = 0) -> Array:
        one = lambda which, when: jax.lax.dynamic_slice_in_dim(leaf[which], when, steps + extra)  # noqa: E731
        return jax.vmap(one)(which, when)

    timesteps = jax.tree.map(partial(cut, extra=1), episodes.timesteps)
    return Windows(timesteps, cut(episodes.actions), cut(episodes.running))


class Imagined(NamedTuple):
    """One window: residual [P, H, O], start [O], truth [H, O], reward [P, H], discount [P, H]."""

    residual: Array
    start: Array
    truth: Array
    reward: Array
    discount: Array


class Imagination(NamedTuple):
    """How an agent's model imagines.

    Attributes:
        context: steps that it is shown first.
        run: ``(key, timesteps [C + H + 1], actions [C + H]) -> Imagined``.
    """

    context: int
    run: Callable[[Key, TimeStep, Array], Imagined]


def imagination(spec: Spec, agent: Agent, agent_state: PyTree) -> Imagination | None:
    """Of an agent's one-step models or of its latent one; None where it has neither."""
    difference = _difference(spec)
    if agent.predictors:
        predictors = agent.predictors(agent_state)
        members = jax.tree.leaves(predictors.members)[0].shape[0]
        particles = -(-(PARTICLES if spec.obs_size <= LARGE else FEW_PARTICLES) // members)

        def travel(key: Key, timesteps: TimeStep, actions: Array) -> Imagined:
            told = horizon.forecast(predictors, key, timesteps.obs[0], actions, particles)
            told = jax.tree.map(lambda leaf: leaf.reshape((-1, *leaf.shape[2:])), told)
            truth = timesteps.obs[1:]
            return Imagined(difference(told.obs, truth), timesteps.obs[0], truth, told.reward, told.discount)

        return Imagination(0, travel)
    if agent.foresee:
        size = sum(leaf.size for leaf in jax.tree.leaves(spec.observation))
        particles = PARTICLES if size <= LARGE else FEW_PARTICLES

        def foresee(key: Key, timesteps: TimeStep, actions: Array) -> Imagined:
            assert agent.foresee is not None  # asked above
            known = partial(agent.foresee, agent_state, context=CONTEXT + 1)
            told = jax.vmap(known, in_axes=(0, None, None))(jax.random.split(key, particles), timesteps, actions)
            seen, imagined = (leaf.reshape((*leaf.shape[:2], -1)) for leaf in (told.seen, told.imagined))
            truth = seen[0, CONTEXT + 1 :]
            residual = difference(imagined[:, CONTEXT + 1 :], truth)
            return Imagined(residual, seen[0, CONTEXT], truth, told.reward, told.discount)

        return Imagination(CONTEXT, foresee)
    return None


def _difference(spec: Spec) -> Callable[[Array, Array], Array]:
    """Of observations [..., O], angles within half a turn."""
    return lambda a, b: jnp.vectorize(partial(wrap, angles=spec.angles), signature="(o)->(o)")(a - b)
