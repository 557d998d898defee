"""What an expert did, or would have done: the examples that imitation learns from.

pairs = demonstrations.relabel(key, obs, expert)          what an expert, such as a planner, does there
store = demonstrations.aggregate(store, pairs, index)     DAgger's growing data set
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.types import Array, Key, Spec


class Pairs(NamedTuple):
    """What an expert did.

    Attributes:
        obs: [D, O].
        action: [D, A].
        weight: [D], 0 for a slot that holds nothing to imitate.
    """

    obs: Array
    action: Array
    weight: Array


def relabel(key: Key, obs: Array, expert: Callable[[Key, Array], Array], *, batch_size: int = 64) -> Pairs:
    """Ask an expert what to do at given observations: the half of DAgger that is not fitting.

    Args:
        key: consumed.
        obs: [D, O].
        expert: ``(key, obs [O]) -> action [A]``; a planner is one.
        batch_size: observations that are labelled at once, which bounds the memory that a planner takes.

    Returns:
        D pairs of weight 1.
    """
    keys = jax.random.split(key, len(obs))
    action = jax.lax.map(lambda one: expert(*one), (keys, obs), batch_size=batch_size)
    return Pairs(obs, action, jnp.ones(len(obs)))


def aggregate(pairs: Pairs, fresh: Pairs, index: Array) -> Pairs:
    """Write ``fresh`` pairs [F, ...] into a store of them from slot ``index`` on (DAgger's growing data set)."""
    return jax.tree.map(partial(jax.lax.dynamic_update_slice_in_dim, start_index=index, axis=0), pairs, fresh)


def no_pairs(spec: Spec, capacity: int) -> Pairs:
    """An empty store of ``capacity`` pairs."""
    return Pairs(jnp.zeros((capacity, spec.obs_size)), jnp.zeros((capacity, spec.box.size)), jnp.zeros(capacity))
