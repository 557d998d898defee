"""Sequence models whose beliefs live in a latent space: the record, and looking ahead with it."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.models import rollouts
from jaxmbrl.models.frames import Frames
from jaxmbrl.types import Array, Foreseen, Key, Metrics, PyTree, TimeStep, WorldModel


class Filtered(NamedTuple):
    """What filtering T frames gives.

    Attributes:
        state: posterior beliefs, leaves [T, ...].
        posterior: raw outputs of q, [T, outputs].
        prior: raw outputs of p, before the frame was seen, [T, outputs].
    """

    state: PyTree
    posterior: Array
    prior: Array


class LatentModel(NamedTuple):
    """A sequence model with beliefs in a latent space.

    Attributes:
        world: as a `WorldModel`; its ``loss`` takes Transitions [B, T].
        initial: ``() -> state``, before anything is seen.
        perceive: ``(params, key, state, frame) -> state``, filtering by one frame; a first one forgets the state.
        filter: ``(params, key, frames [T]) -> Filtered``.
        evidence: ``(params, key, frames [T]) -> (loss [], metrics, states [T])``: the loss of ONE sequence.
        seen: ``(obs) -> array``, an observation as it is reconstructed.
        reconstruct: ``(params, state) -> array``, what is probably seen.
    """

    world: WorldModel
    initial: Callable[[], PyTree]
    perceive: Callable[[PyTree, Key, PyTree, Frames], PyTree]
    filter: Callable[[PyTree, Key, Frames], Filtered]
    evidence: Callable[[PyTree, Key, Frames], tuple[Array, Metrics, PyTree]]
    seen: Callable[[PyTree], Array]
    reconstruct: Callable[[PyTree, PyTree], Array]


def foresee(
    model: LatentModel,
    params: PyTree,
    key: Key,
    timesteps: TimeStep,
    actions: Array,
    *,
    context: int,
) -> Foreseen:
    """Filter ``context`` time steps of an episode, and imagine the others open loop; see `types.Agent.foresee`."""
    key_filter, key_imagine = jax.random.split(key)
    known = jax.tree.map(lambda leaf: leaf[:context], timesteps)
    before = jnp.concatenate([actions[:1], actions[: context - 1]])  # what led to the first one does not count
    ones = jnp.ones(context)
    sequence = Frames(known.obs, before, known.reward, ones, jnp.arange(context) == 0)
    filtered = model.filter(params, key_filter, sequence).state
    last = jax.tree.map(lambda leaf: leaf[-1], filtered)
    imagined = rollouts.simulate(model.world, params, key_imagine, last, actions[context - 1 :])
    rest = jax.tree.map(lambda state, last: jnp.concatenate([state[1:], last[None]]), imagined.state, imagined.last)
    states = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), filtered, rest)
    return Foreseen(
        seen=jax.vmap(model.seen)(timesteps.obs),
        imagined=jax.vmap(partial(model.reconstruct, params))(states),
        reward=imagined.prediction.reward,
        discount=imagined.prediction.discount,
    )
