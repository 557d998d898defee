"""Frames: what a sequence model reads, made of windows of transitions.

A transition shows its step from both sides; a frame is what is seen at one moment, and how one came there. Within an
episode the frames of T transitions are the first ``obs`` and T times ``next_obs``. Where an episode ends, its true
last observation is a frame, and the first observation of the next episode is one more: an end costs a frame of room.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.types import Array, PyTree, Transition


class Frames(NamedTuple):
    """One frame, or a sequence of them, leaves [T, ...].

    Attributes:
        obs: [O], what is seen, any tree.
        action: [A], the one that led here; meaningless where ``first``.
        reward: [], of the step that led here, or [K] of several tasks; 0 where ``first``.
        discount: [], 0 where the episode terminated here, 1 elsewhere.
        first: bool [], nothing before is of the same episode.
    """

    obs: PyTree
    action: Array
    reward: Array
    discount: Array
    first: Array


def frames(window: Transition) -> Frames:
    """The first T + 1 frames of T consecutive transitions (leaves [T, ...]), the first one ``first``.

    >>> window = Transition(*map(jnp.asarray, ([0, 1, 7], [5, 6, 8], [1.0, 2.0, 3.0], [1, 2, 8])),
    ...                     terminated=jnp.array([False, True, False]), truncated=jnp.zeros(3, bool))
    >>> frames(window).obs, frames(window).first.astype(int)
    (Array([0, 1, 2, 7], dtype=int32), Array([1, 0, 0, 1], dtype=int32))
    """
    length = window.reward.shape[0]
    ended = window.terminated | window.truncated
    arrival = 1 + jnp.arange(length) + jnp.cumsum(ended) - ended  # where next_obs goes: one further for each end before
    begins = jnp.where(ended, arrival + 1, length + 1)[:-1]  # where the next transition's obs goes, if a new episode's
    step = jnp.arange(length)
    source = jnp.zeros(length + 1, jnp.int32).at[arrival].set(step, mode="drop").at[begins].set(step[1:], mode="drop")
    first = jnp.zeros(length + 1, bool).at[0].set(True).at[begins].set(True, mode="drop")

    def broad(mask: Array, leaf: Array) -> Array:
        return mask.reshape((-1,) + (1,) * (leaf.ndim - 1))

    def either(before: Array, after: Array) -> Array:
        return jnp.where(broad(first, before), before[source], after[source])

    return Frames(
        obs=jax.tree.map(either, window.obs, window.next_obs),
        action=window.action[source],
        reward=jnp.where(broad(first, window.reward), 0.0, window.reward[source]),
        discount=jnp.where(first, 1.0, window.discount[source]),
        first=first,
    )
