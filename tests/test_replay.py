"""The experience store against a Python deque, its sampling laws, and that it is written in place."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxmbrl import replay as replays
from jaxmbrl.types import Transition

FALSE_ALARM = 1e-4  # of each chi-square test, were its key drawn anew


def row(time, num_envs):
    """What ``num_envs`` environments did at ``time``: no two of its numbers are alike."""
    env = jnp.arange(num_envs)
    stamp = jnp.full((num_envs,), time, jnp.int32)
    return Transition(
        obs=jnp.stack([stamp, env], axis=1).astype(jnp.float32),
        action=stamp[:, None] + 0.5,
        reward=10.0 * stamp + env,
        next_obs=jnp.stack([stamp + 1, env], axis=1).astype(jnp.float32),
        terminated=stamp % 3 == 0,
        truncated=stamp % 5 == 0,
        extras={"stamp": stamp},
    )


EXAMPLE = jax.eval_shape(lambda: jax.tree.map(lambda leaf: leaf[0], row(0, 1)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def filled(rows, num_envs, count):
    """A store after ``count`` writes."""
    store = replays.init(EXAMPLE, capacity=rows * num_envs, num_envs=num_envs)
    return jax.lax.fori_loop(0, count, lambda time, store: replays.add(store, row(time, num_envs)), store)


sample = jax.jit(replays.sample, static_argnums=2)
sample_sequences = jax.jit(replays.sample_sequences, static_argnums=(2, 3))


@functools.partial(jax.jit, static_argnums=(0, 1))
def looked_at(rows, num_envs, count, key):
    """All that can be read from a store after ``count`` writes."""
    store = filled(rows, num_envs, count)
    data, mask = replays.flatten(store)
    slots = replays.take(store, jnp.arange(rows * num_envs))
    key_sample, *keys = jax.random.split(key, 4)
    windows = {
        length: replays.sample_sequences(key, store, 8, length)
        for length, key in enumerate(keys, start=1)
        if length <= rows
    }
    return replays.num_transitions(store), data, mask, slots, replays.sample(key_sample, store, 16), windows


def identity(transitions):
    """(time, environment) of each transition, after checking that no leaf was mixed up with another's."""
    time, env = (np.asarray(x, int) for x in np.moveaxis(np.asarray(transitions.obs), -1, 0))
    np.testing.assert_array_equal(transitions.action[..., 0], time + 0.5)
    np.testing.assert_array_equal(transitions.reward, 10.0 * time + env)
    np.testing.assert_array_equal(transitions.next_obs, np.stack([time + 1, env], axis=-1))
    np.testing.assert_array_equal(transitions.terminated, time % 3 == 0)
    np.testing.assert_array_equal(transitions.truncated, time % 5 == 0)
    np.testing.assert_array_equal(transitions.extras["stamp"], time)
    return list(zip(time.ravel().tolist(), env.ravel().tolist(), strict=True))


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(shape=st.sampled_from([(1, 2), (4, 1), (5, 3)]), count=st.integers(1, 16), seed=st.integers(0))
def test_store_is_a_bounded_queue(shape, count, seed):
    rows, num_envs = shape
    queue = collections.deque(maxlen=rows)
    for time in range(count):
        queue.append([(time, env) for env in range(num_envs)])
    held = {entry for entries in queue for entry in entries}

    size, data, mask, slots, batch, windows = jax.device_get(
        looked_at(rows, num_envs, count, jax.random.key(seed % 2**31))
    )
    assert size == len(held)
    inside = jax.tree.map(lambda leaf: leaf[mask], data)
    assert sorted(identity(inside)) == sorted(held)
    first = jax.tree.map(lambda leaf: leaf[:size], slots)
    assert identity(first) == identity(inside), "take and flatten number the slots alike"
    assert set(identity(batch)) <= held
    for length, window in windows.items():
        if length <= len(queue):
            assert set(identity(window)) <= held
            np.testing.assert_array_equal(np.diff(window.extras["stamp"], axis=1), 1)
            assert np.all(np.ptp(window.obs[..., 1], axis=1) == 0), "a window stays with one environment"


def chi_square(seen, cells):
    counts = collections.Counter(seen)
    assert set(counts) <= set(cells)
    return stats.chisquare([counts[cell] for cell in cells]).pvalue


@pytest.mark.parametrize("count", [5, 7, 12])  # half full, full, wrapped
def test_sampling_is_uniform_over_what_is_held(key, count):
    store = filled(7, 3, count)
    cells = [(time, env) for time in range(max(0, count - 7), count) for env in range(3)]
    assert chi_square(identity(sample(key, store, 20_000)), cells) > FALSE_ALARM

    starts = [(time, env) for time in range(max(0, count - 7), count - 3) for env in range(3)]
    windows = sample_sequences(key, store, 20_000, 4)
    first = jax.tree.map(lambda leaf: leaf[:, 0], windows)
    assert chi_square(identity(first), starts) > FALSE_ALARM


def test_a_window_as_long_as_the_store_is_the_store(key):
    windows = sample_sequences(key, filled(5, 2, 13), 6, 5)
    np.testing.assert_array_equal(windows.extras["stamp"], np.tile(np.arange(8, 13), (6, 1)))


def test_the_newest_windows(key):
    """Drawn from the last rows written only, across the seam of the ring, and all such windows are drawn."""
    windows = replays.sample_sequences(key, filled(8, 2, 13), 200, 3, newest=5)
    first = np.asarray(windows.extras["stamp"][:, 0])
    assert set(first.tolist()) == {8, 9, 10}
    np.testing.assert_array_equal(windows.extras["stamp"], first[:, None] + np.arange(3))


def test_bad_sizes_are_named(key):
    for capacity in (0, 2, 7):
        with pytest.raises(ValueError, match=f"capacity: got {capacity}, .*num_envs \\(3\\)"):
            replays.init(EXAMPLE, capacity=capacity, num_envs=3)
    with pytest.raises(ValueError, match="length: got 6"):
        replays.sample_sequences(key, filled(5, 1, 5), 2, 6)


def test_num_bytes_is_what_is_allocated():
    store = replays.init(EXAMPLE, capacity=12, num_envs=3)
    assert replays.num_bytes(EXAMPLE, capacity=12) == sum(leaf.nbytes for leaf in jax.tree.leaves(store.data))


ODD = {
    "image": (jnp.uint8, (3, 5)),  # 15 bytes: a word is left unfilled
    "half": (jnp.bfloat16, (3,)),
    "flags": (jnp.bool_, (5,)),
    "count": (jnp.int32, ()),
    "small": (jnp.int8, (2, 2)),
    "nothing": (jnp.float32, (0, 2)),
}


def test_packing_is_byte_for_byte():
    """Words against NumPy's own view of each leaf's bytes, and back; whatever the bits (NaNs included)."""
    generator = np.random.default_rng(0)

    def random(dtype, shape):
        if dtype == jnp.bool_:
            return generator.random((2, *shape)) < 0.5
        size = (2, *shape, jnp.dtype(dtype).itemsize)
        return generator.integers(0, 256, size, np.uint8).view(jnp.dtype(dtype)).reshape((2, *shape))

    arrays = {name: random(*kind) for name, kind in ODD.items()}
    example = {name: jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for name, array in arrays.items()}
    store = replays.init(example, capacity=4, num_envs=2)
    words = np.asarray(replays.pack(arrays, store.layout))
    for env in range(2):
        expected = b""
        for name in sorted(arrays):  # the order of a dictionary's leaves
            raw = arrays[name][env].tobytes()
            expected += raw + bytes(-len(raw) % 4)
        assert words[env].tobytes() == expected
    assert store.data.nbytes == replays.num_bytes(example, capacity=4) == 2 * words.nbytes
    assert replays.num_bytes({"image": jax.ShapeDtypeStruct((64, 64, 3), jnp.uint8)}, capacity=10) == 10 * 64 * 64 * 3
    back = replays.take(replays.add(store, arrays), jnp.arange(2))
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype and back[name].shape == array.shape
        assert np.asarray(back[name]).tobytes() == array.tobytes()


def run(store, key):
    """A scan of 50 writes, samples and sampled windows."""

    def step(store, key):
        store = replays.add(store, row(store.size, 2))
        key_batch, key_windows = jax.random.split(key)
        batch = replays.sample(key_batch, store, 8)
        windows = replays.sample_sequences(key_windows, store, 4, 3)
        return store, jnp.sum(batch.reward) + jnp.sum(windows.reward)

    return jax.lax.scan(step, store, jax.random.split(key, 50))


def test_scan_writes_in_place_at_any_capacity(key):
    """A copy of the store would show as temporary memory that grows with it, or as a store elsewhere."""

    def compiled(capacity):
        store = jax.eval_shape(lambda: replays.init(EXAMPLE, capacity=capacity, num_envs=2))
        return jax.jit(run, donate_argnums=0).lower(store, key).compile()

    with jax.debug_nans(False):  # which keeps JAX from donating
        small, large = compiled(100), compiled(100_000)
        assert large.memory_analysis().temp_size_in_bytes - small.memory_analysis().temp_size_in_bytes < 1024
        store = replays.init(EXAMPLE, capacity=100_000, num_envs=2)
        before = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(store.data)]
        after, _ = large(store, key)
    assert before == [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(after.data)]


@pytest.mark.parametrize("count", [1, 3, 1000, 65_537, 10**6, 2**31 - 1])
def test_uniform_index_is_the_upper_half_of_a_product(key, count):
    drawn = np.asarray(jax.random.bits(key, (1000,), jnp.uint32)).astype(np.uint64)
    index = np.asarray(replays.uniform_index(key, (1000,), count))
    assert index.dtype == np.int32
    np.testing.assert_array_equal(index, drawn * np.uint64(count) >> np.uint64(32))
