"""Checkpoints: what comes back is what went in, and what is damaged says so."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl.config import ConfigError
from jaxmbrl.training import checkpoint


class State(NamedTuple):
    params: dict
    empty: jax.Array
    keys: jax.Array
    count: jax.Array
    nothing: tuple = ()


def make_state(scale=1.0):
    params = {"w": scale * jnp.arange(6.0).reshape(2, 3), "list": [jnp.array([True, False]), jnp.int8(3)]}
    return State(params, jnp.zeros((0, 4)), jax.random.split(jax.random.key(5), 3), jnp.int32(7))


def template(state):
    return jax.eval_shape(lambda: state)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


def save(directory, *states):
    with checkpoint.manager(directory) as opened:
        for epoch, state in enumerate(states, start=1):
            checkpoint.save(opened, epoch, state)


def test_a_state_with_empty_leaves_and_typed_keys_comes_back(tmp_path):
    save(tmp_path, make_state())
    assert checkpoint.latest(tmp_path) == 1
    assert_same(checkpoint.restore(tmp_path, 1, template(make_state())), make_state())


def test_the_last_two_are_kept(tmp_path):
    states = [make_state(scale) for scale in (1.0, 2.0, 3.0)]
    save(tmp_path, *states)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.isdigit()) == ["2", "3"]
    assert_same(checkpoint.restore(tmp_path, 2, template(states[1])), states[1])


def test_no_checkpoint_yet(tmp_path):
    assert checkpoint.latest(tmp_path / "missing") is None
    assert checkpoint.latest(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"count": jnp.zeros(2, jnp.int32)}, "count: got shape (), needs (2,)"),
        ({"keys": jax.random.key(0)}, "keys: got shape (3, 2), needs (2,)"),
        ({"empty": jnp.zeros((1, 4))}, "empty: got no such leaf, needs one"),
        ({"count": ()}, "count: got a leaf, needs none"),
    ],
)
def test_another_structure_is_named(tmp_path, change, expected):
    save(tmp_path, make_state())
    with pytest.raises(ConfigError) as caught:
        checkpoint.restore(tmp_path, 1, template(make_state()._replace(**change)))
    assert expected in str(caught.value)


@pytest.mark.parametrize("pattern", ["1/default/_METADATA", "1/default/manifest.ocdbt", "1/default/d/*"])
def test_a_damaged_checkpoint_is_one_line(tmp_path, pattern, capfd):
    save(tmp_path, make_state())
    for path in tmp_path.glob(pattern):
        path.write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="damaged") as caught:
        checkpoint.restore(tmp_path, 1, template(make_state()))
    assert "\n" not in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err
