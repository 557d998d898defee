"""The sensor of grids against float64 loops, and which observations have a sensor at all."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl.config import ConfigError
from jaxmbrl.models import sensors
from jaxmbrl.models.networks import MLP
from jaxmbrl.types import Discrete, Spec

SHAPE = (5, 4, 3)
SPEC = Spec("any", jax.ShapeDtypeStruct(SHAPE, jnp.bool_), Discrete(2), 10)


def sensor(spec=SPEC):
    return sensors.make(spec, partial(MLP, activation="swish"), layers=(8,), embedding=6, depth=2, activation="relu")


def doubles(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree["params"])


def dense(layer, x):
    return np.maximum(x @ layer["kernel"] + layer["bias"], 0.0)


def told(params, features):
    """The decoder, by hand: two dense layers, and a kernel that each cell of the map stamps onto the grid, mirrored."""
    params = doubles(params["decoder"])
    cells = dense(params["map"], dense(params["dense"], np.asarray(features, np.float64))).reshape((3, 2, 2))
    kernel, grid = params["convolution"]["kernel"], np.zeros(SHAPE) + params["convolution"]["bias"]
    for i in range(3):
        for j in range(2):
            grid[i : i + 3, j : j + 3] += np.einsum("c,abcf->abf", cells[i, j], kernel[::-1, ::-1])
    return grid


def embedded(params, obs):
    params, grid = doubles(params["encoder"]), np.asarray(obs, np.float64)
    kernel = params["convolution"]["kernel"]
    cells = [[np.einsum("abc,abcf->f", grid[i : i + 3, j : j + 3], kernel) for j in range(2)] for i in range(3)]
    return dense(params["dense"], np.maximum(np.array(cells) + params["convolution"]["bias"], 0.0).ravel())


@pytest.fixture(scope="module")
def case():
    one, features = sensor(), jax.random.normal(jax.random.key(2), (7,))
    params = jax.jit(one.init)(jax.random.key(0), features)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(3), leaf.shape), params)  # biases
    return one, params, features, jax.random.bernoulli(jax.random.key(1), 0.3, SHAPE)


def test_an_embedding_is_a_convolution_and_a_dense_layer(case):
    one, params, _, obs = case
    got = jax.jit(one.embed)(params, obs)
    assert got.shape == (one.size,) == (6,)
    np.testing.assert_allclose(got, embedded(params, obs), rtol=1e-4, atol=1e-5)
    assert np.any(got != 0)


def test_the_loss_is_bernoullis(case):
    """Minus the log-probability of every cell and channel, summed; what is told is the chance of a thing there."""
    one, params, features, obs = case
    chance = 1.0 / (1.0 + np.exp(-told(params, features)))
    log_prob = np.where(obs, np.log(chance), np.log1p(-chance)).sum()
    np.testing.assert_allclose(jax.jit(one.loss)(params, features, obs), -log_prob, rtol=1e-4)
    np.testing.assert_allclose(jax.jit(one.reconstruct)(params, features), chance, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(one.seen(obs), np.asarray(obs, np.float32))


def test_other_arrays_are_refused():
    for shape, dtype in (((4, 4), jnp.bool_), ((2, 4, 1), jnp.bool_), (SHAPE, jnp.int32), (SHAPE, jnp.float32)):
        with pytest.raises(ConfigError, match=r"needs one vector, one image .* or one grid"):
            sensor(SPEC._replace(observation=jax.ShapeDtypeStruct(shape, dtype)))
