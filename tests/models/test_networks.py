"""Networks against a float64 twin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl.models.networks import ACTIVATIONS, MLP, PRECISIONS, truncated_normal_init

TWINS = {
    "swish": lambda x: x / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
}


def forward(params, x, activation):
    """A multilayer perceptron in float64."""
    layers = [jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"][f"layer_{i}"]) for i in range(3)]
    for layer in layers[:-1]:
        x = TWINS[activation](x @ layer["kernel"] + layer["bias"])
    return x @ layers[-1]["kernel"] + layers[-1]["bias"]


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_mlp_is_its_formula(activation, key):
    network = MLP((8, 6), 3, activation)
    params = network.init(key, jnp.zeros(4))
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)  # biases start at 0
    x = jax.random.normal(key, (5, 4))
    expected = forward(params, np.asarray(x, np.float64), activation)
    np.testing.assert_allclose(network.apply(params, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_parameters_and_outputs_are_float32_at_any_precision(precision, key):
    network, exact = MLP((32, 32), 3, precision=precision), MLP((32, 32), 3)
    params = network.init(key, jnp.zeros(4))
    outputs = network.apply(params, jnp.ones(4))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, outputs))} == {jnp.dtype("float32")}
    difference = np.abs(np.asarray(outputs - exact.apply(params, jnp.ones(4)))).max()
    assert difference < 0.02
    assert (difference > 1e-5) == (precision == "bfloat16")  # CPUs compute tensorfloat32 products in float32


def test_initial_weights_are_truncated_normal(key):
    weights = np.asarray(truncated_normal_init(key, (400, 300)))
    scale = 1 / (2 * np.sqrt(400))
    assert np.abs(weights).max() <= 2 * scale
    np.testing.assert_allclose(weights.std(), 0.8796 * scale, rtol=0.01)  # std of a normal cut at two of its own
    assert abs(weights.mean()) < 5 * scale / np.sqrt(weights.size)
