"""The experience store: a ring of transitions, written one row of parallel environments at a time.

A transition lies in memory as one run of 32-bit words, whatever its leaves are, so that a write is one in-place row and
a read is one gather: the cost of a step does not depend on the capacity, and a store that does not fit into the
processor's caches costs a miss for each transition read rather than for each of its leaves. Small types stay small:
four bytes share a word.

Sequences are contiguous in time along the rows of one environment; they may cross episode boundaries, which their
``terminated`` and ``truncated`` flags mark.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxmbrl.config import ConfigError
from jaxmbrl.types import Array, Key, PyTree, Transition

WORD = 4  # bytes


class Leaf(NamedTuple):
    """One leaf of a transition: its shape without batch axes, and the name of its dtype."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def num_words(self) -> int:
        """Words that it takes."""
        return -(-math.prod(self.shape) * jnp.dtype(self.dtype).itemsize // WORD)


class Layout(NamedTuple):
    """How a transition lies in memory: its tree, and its leaves in order."""

    tree: Any  # jax's PyTreeDef
    leaves: tuple[Leaf, ...]


class Replay(struct.PyTreeNode):
    """The store's state.

    Attributes:
        data: uint32 [rows, num_envs, W], transitions as words; `unpack` shows them.
        cursor: int32 [], the row that is written next.
        size: int32 [], the number of rows filled.
        layout: of a transition, static.
    """

    data: Array
    cursor: Array
    size: Array
    layout: Layout = struct.field(pytree_node=False)


def init(example: Transition, *, capacity: int, num_envs: int = 1) -> Replay:
    """An empty store of zeros.

    Args:
        example: one transition, of arrays or ``jax.ShapeDtypeStruct``; of numbers and bools, no typed keys.
        capacity: transitions to hold, a multiple of ``num_envs``.
        num_envs: transitions that arrive together.

    Raises:
        ValueError: if ``capacity`` is not a positive multiple of ``num_envs``.
    """
    if capacity < num_envs or capacity % num_envs:
        raise ValueError(f"capacity: got {capacity}, needs a positive multiple of num_envs ({num_envs})")
    layout = _layout(example)
    data = jnp.zeros((capacity // num_envs, num_envs, _num_words(layout)), jnp.uint32)
    return Replay(data, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), layout)


def from_rows(rows: Transition, *, cursor: int | Array, size: int | Array) -> Replay:
    """A store whose memory is ``rows`` (leaves [rows, num_envs, ...]), of which ``size`` are filled."""
    layout = _layout(jax.tree.map(lambda leaf: leaf[0, 0], rows))
    return Replay(pack(rows, layout), jnp.asarray(cursor, jnp.int32), jnp.asarray(size, jnp.int32), layout)


def num_bytes(example: Transition, *, capacity: int) -> int:
    """Memory of a store in bytes, known before anything is allocated."""
    return capacity * WORD * _num_words(_layout(example))


def add(replay: Replay, transitions: Transition) -> Replay:
    """Write one row (leaves [num_envs, ...]) over the oldest one."""
    row = pack(transitions, replay.layout)
    data = jax.lax.dynamic_update_index_in_dim(replay.data, row, replay.cursor, 0)
    rows = len(data)
    return replay.replace(data=data, cursor=(replay.cursor + 1) % rows, size=jnp.minimum(replay.size + 1, rows))


def num_transitions(replay: Replay) -> Array:
    """Number of transitions held, int32 []."""
    return replay.size * replay.data.shape[-2]


def take(replay: Replay, index: Array) -> Transition:
    """The transitions at ``index`` (int32, any shape), each in [0, `num_transitions`): slots, not ages."""
    num_envs = replay.data.shape[1]
    return unpack(replay.data[index // num_envs, index % num_envs], replay.layout)


def transitions(replay: Replay) -> Transition:
    """All that the store holds or has room for, leaves [rows, num_envs, ...], rows as they were written."""
    return unpack(replay.data, replay.layout)


def flatten(replay: Replay) -> tuple[Transition, Array]:
    """Every slot (leaves [capacity, ...]) and a bool mask [capacity] of those that are filled."""
    words = replay.data.reshape((-1, replay.data.shape[-1]))
    return unpack(words, replay.layout), jnp.arange(len(words)) < num_transitions(replay)


def uniform_index(key: Key, shape: tuple[int, ...], count: int | Array) -> Array:
    r"""Uniform whole numbers in [0, count), int32: :math:`\lfloor u\, n / 2^{32} \rfloor` of one 32-bit draw u each.

    No number is more likely than another by more than ``count`` / 2^32 of its share. `jax.random.randint` takes two
    draws, a key for each and a division, which costs a program like MBPO's a tenth of its compile time.
    """
    bits, n = jax.random.bits(key, shape, jnp.uint32), jnp.asarray(count).astype(jnp.uint32)
    (high, low), (n_high, n_low) = ((x >> 16, x & 0xFFFF) for x in (bits, n))  # the upper half of a 64-bit product
    middle = high * n_low + (low * n_low >> 16)
    return (high * n_high + (middle >> 16) + ((middle & 0xFFFF) + low * n_high >> 16)).astype(jnp.int32)


def sample(key: Key, replay: Replay, batch_size: int) -> Transition:
    """A uniform batch with replacement, leaves [B, ...]; the store must not be empty."""
    return take(replay, uniform_index(key, (batch_size,), num_transitions(replay)))


def sample_sequences(
    key: Key, replay: Replay, batch_size: int, length: int, *, newest: int | None = None
) -> Transition:
    """Uniform windows of consecutive steps, oldest step first, leaves [B, T, ...].

    A window never spans the write cursor, so its steps are consecutive in real time.

    Args:
        key: PRNG key.
        replay: a store with at least ``length`` rows filled.
        batch_size: number of windows (B).
        length: steps per window (T).
        newest: rows that windows are drawn from, at least ``length``; all of them by default.
    """
    rows, num_envs, _ = replay.data.shape
    if length > rows:
        raise ConfigError(f"length: got {length} steps a sequence, needs at most the store's rows ({rows})")
    size = replay.size if newest is None else jnp.minimum(replay.size, newest)
    key_start, key_env = jax.random.split(key)
    age = uniform_index(key_start, (batch_size, 1), jnp.maximum(size - length + 1, 1))
    row = (replay.cursor - size + age + jnp.arange(length)) % rows
    env = uniform_index(key_env, (batch_size, 1), num_envs)
    return unpack(replay.data[row, env], replay.layout)


def latest(replay: Replay, rows: int) -> Transition:
    """The newest rows, oldest first, leaves [rows, num_envs, ...]; rows that were never written are zeros.

    Raises:
        ConfigError: if the store has fewer rows.
    """
    if rows > len(replay.data):
        raise ConfigError(f"rows: got {rows}, needs at most the store's ({len(replay.data)})")
    return unpack(replay.data[(replay.cursor - rows + jnp.arange(rows)) % len(replay.data)], replay.layout)


def pack(transitions: Transition, layout: Layout) -> Array:
    """Words, uint32 [*B, W], of transitions with leaves [*B, ...], each cast to the layout's dtype.

    Every leaf begins at a word of its own; the last one it uses is filled up with zeros.
    """
    words = []
    for array, leaf in zip(jax.tree.leaves(transitions), layout.leaves, strict=True):
        stored = jnp.asarray(array).astype(leaf.dtype)
        flat = stored.reshape((*stored.shape[: stored.ndim - len(leaf.shape)], -1))
        flat = flat.astype(jnp.uint8) if leaf.dtype == "bool" else flat
        per_word = max(WORD // flat.dtype.itemsize, 1)
        filled = jnp.pad(flat, [(0, 0)] * (flat.ndim - 1) + [(0, -flat.shape[-1] % per_word)])
        groups = filled.reshape((*flat.shape[:-1], -1, per_word)) if per_word > 1 else filled
        word = jax.lax.bitcast_convert_type(groups, jnp.uint32)
        words.append(word.reshape((*flat.shape[:-1], leaf.num_words)))
    return jnp.concatenate(words, axis=-1)


def unpack(words: Array, layout: Layout) -> Transition:
    """The inverse of `pack`: transitions with leaves [*B, ...] of words [*B, W]."""
    batch, arrays, begin = words.shape[:-1], [], 0
    for leaf in layout.leaves:
        word = words[..., begin : begin + leaf.num_words]
        begin += leaf.num_words
        dtype = jnp.dtype(jnp.uint8 if leaf.dtype == "bool" else leaf.dtype)
        if dtype.itemsize > WORD:
            word = word.reshape((*batch, -1, dtype.itemsize // WORD))
        flat = jax.lax.bitcast_convert_type(word, dtype).reshape((*batch, -1))
        arrays.append(flat[..., : math.prod(leaf.shape)].reshape((*batch, *leaf.shape)).astype(leaf.dtype))
    return jax.tree.unflatten(layout.tree, arrays)


def _layout(example: PyTree) -> Layout:
    leaves, tree = jax.tree.flatten(example)
    return Layout(tree, tuple(Leaf(tuple(leaf.shape), jnp.dtype(leaf.dtype).name) for leaf in leaves))


def _num_words(layout: Layout) -> int:
    return sum(leaf.num_words for leaf in layout.leaves)
