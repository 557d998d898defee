"""Sequence models whose beliefs live in a latent space: the record, and looking ahead with it."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax

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
    seen, reconstruct = jax.vmap(model.seen)(timesteps.obs), partial(model.reconstruct, params)
    return rollouts.foresee(
        model.world, params, key, timesteps, actions, context=context, seen=seen, reconstruct=reconstruct
    )
