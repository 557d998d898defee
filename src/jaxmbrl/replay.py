"""The experience store: a ring of transitions, written one row of parallel environments at a time.

Every leaf is [rows, num_envs, ...]. A write is one in-place row and a read is one gather, so that the cost of a step
does not depend on the capacity. Sequences are contiguous in time along the rows of one environment; they may cross
episode boundaries, which their ``terminated`` and ``truncated`` flags mark.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.types import Array, Key, PyTree, Transition


class Replay(NamedTuple):
    """The store's state.

    Attributes:
        data: a Transition whose leaves are [rows, num_envs, ...].
        cursor: int32 [], the row that is written next.
        size: int32 [], the number of rows filled.
    """

    data: Transition
    cursor: Array
    size: Array


def init(example: Transition, *, capacity: int, num_envs: int = 1) -> Replay:
    """An empty store of zeros.

    Args:
        example: one transition, of arrays or ``jax.ShapeDtypeStruct``.
        capacity: transitions to hold, a multiple of ``num_envs``.
        num_envs: transitions that arrive together.

    Raises:
        ValueError: if ``capacity`` is not a positive multiple of ``num_envs``.
    """
    if capacity < num_envs or capacity % num_envs:
        raise ValueError(f"capacity: got {capacity}, needs a positive multiple of num_envs ({num_envs})")
    rows = (capacity // num_envs, num_envs)
    data = jax.tree.map(lambda leaf: jnp.zeros(rows + leaf.shape, leaf.dtype), example)
    return Replay(data, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def num_bytes(example: Transition, *, capacity: int) -> int:
    """Memory of a store in bytes, known before anything is allocated."""
    return capacity * sum(leaf.size * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(example))


def add(replay: Replay, transitions: Transition) -> Replay:
    """Write one row (leaves [num_envs, ...]) over the oldest one."""
    data = jax.tree.map(
        lambda store, row: jax.lax.dynamic_update_index_in_dim(store, row.astype(store.dtype), replay.cursor, 0),
        replay.data,
        transitions,
    )
    rows = _num_rows(replay)
    return Replay(data, (replay.cursor + 1) % rows, jnp.minimum(replay.size + 1, rows))


def num_transitions(replay: Replay) -> Array:
    """Number of transitions held, int32 []."""
    return replay.size * jax.tree.leaves(replay.data)[0].shape[1]


def take(replay: Replay, index: Array) -> Transition:
    """The transitions at ``index`` (int32, any shape), each in [0, `num_transitions`): slots, not ages."""
    num_envs = jax.tree.leaves(replay.data)[0].shape[1]
    return jax.tree.map(lambda store: store[index // num_envs, index % num_envs], replay.data)


def flatten(replay: Replay) -> tuple[Transition, Array]:
    """Every slot (leaves [capacity, ...]) and a bool mask [capacity] of those that are filled."""
    data = jax.tree.map(lambda store: store.reshape((-1, *store.shape[2:])), replay.data)
    capacity = jax.tree.leaves(data)[0].shape[0]
    return data, jnp.arange(capacity) < num_transitions(replay)


def sample(key: Key, replay: Replay, batch_size: int) -> Transition:
    """A uniform batch with replacement, leaves [B, ...]; the store must not be empty."""
    return take(replay, jax.random.randint(key, (batch_size,), 0, num_transitions(replay)))


def sample_sequences(key: Key, replay: Replay, batch_size: int, length: int) -> Transition:
    """Uniform windows of consecutive steps, oldest step first, leaves [B, T, ...].

    A window never spans the write cursor, so its steps are consecutive in real time.

    Args:
        key: PRNG key.
        replay: a store with at least ``length`` rows filled.
        batch_size: number of windows (B).
        length: steps per window (T).
    """
    rows = _num_rows(replay)
    if length > rows:
        raise ValueError(f"length: got {length}, needs at most the store's rows ({rows})")
    num_envs = jax.tree.leaves(replay.data)[0].shape[1]
    key_start, key_env = jax.random.split(key)
    age = jax.random.randint(key_start, (batch_size, 1), 0, jnp.maximum(replay.size - length + 1, 1))
    row = (replay.cursor - replay.size + age + jnp.arange(length)) % rows
    env = jax.random.randint(key_env, (batch_size, 1), 0, num_envs)
    return jax.tree.map(lambda store: store[row, env], replay.data)


def _num_rows(replay: PyTree) -> int:
    return jax.tree.leaves(replay.data)[0].shape[0]
