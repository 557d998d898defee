"""Action heads: densities against histograms and SciPy, entropies against integrals."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxmbrl.envs import make as make_env
from jaxmbrl.policies import action_heads

NUM = 40_000
OUTPUTS = jnp.array([0.4, -0.8])


def samples(head, outputs):
    return jax.vmap(head.sample, in_axes=(0, None))(jax.random.split(jax.random.key(0), NUM), outputs)


@pytest.mark.parametrize("name", sorted(action_heads.CONTINUOUS))
def test_density_is_that_of_the_samples(name):
    head = action_heads.CONTINUOUS[name](1)
    drawn = np.asarray(samples(head, OUTPUTS))[:, 0]
    edges = np.linspace(-0.9, 0.9, 10)
    grid = np.linspace(-0.9, 0.9, 901)
    density = np.exp(jax.vmap(lambda x: head.log_prob(OUTPUTS, x[None]))(jnp.asarray(grid, jnp.float32)))
    for low, high in itertools.pairwise(edges):
        inside = (grid >= low - 1e-9) & (grid <= high + 1e-9)
        expected = np.trapezoid(density[inside], grid[inside])
        np.testing.assert_allclose(((drawn >= low) & (drawn < high)).mean(), expected, atol=4 * 0.5 / NUM**0.5)


def test_normal_against_scipy():
    head = action_heads.normal(1)
    std = 0.1 + 0.9 / (1 + np.exp(0.8 - 2.0))
    law = scipy.stats.norm(np.tanh(0.4), std)
    np.testing.assert_allclose(head.log_prob(OUTPUTS, jnp.array([0.2])), law.logpdf(0.2), rtol=1e-5)
    np.testing.assert_allclose(head.entropy(jax.random.key(1), OUTPUTS), law.entropy(), rtol=1e-5)
    np.testing.assert_allclose(head.mode(OUTPUTS), [np.tanh(0.4)], rtol=1e-6)


def test_tanh_normal_entropy_is_right_on_average():
    head = action_heads.tanh_normal(1)
    keys, outputs = jax.random.split(jax.random.key(2), NUM), jnp.array([0.4, -4.5])  # narrow: little lies at the edges
    estimates = jax.vmap(head.entropy, in_axes=(0, None))(keys, outputs)
    grid = jnp.linspace(-0.99999, 0.99999, 200_001)
    log_prob = np.asarray(jax.vmap(lambda x: head.log_prob(outputs, x[None]))(grid), np.float64)
    expected = -np.trapezoid(np.exp(log_prob) * log_prob, np.asarray(grid, np.float64))
    np.testing.assert_allclose(estimates.mean(), expected, atol=5 * float(estimates.std()) / NUM**0.5 + 1e-3)


def test_classes_share_chance():
    head = action_heads.categorical(3, unimix=0.1)
    outputs = jnp.array([0.0, 3.0, -1.0])
    chance = 0.9 * np.asarray(jax.nn.softmax(outputs)) + 0.1 / 3
    drawn = np.bincount(samples(head, outputs), minlength=3) / NUM
    np.testing.assert_allclose(drawn, chance, atol=4 * 0.5 / NUM**0.5)
    for action in range(3):
        np.testing.assert_allclose(head.log_prob(outputs, action), np.log(chance[action]), rtol=1e-5)
    np.testing.assert_allclose(head.entropy(jax.random.key(3), outputs), -(chance * np.log(chance)).sum(), rtol=1e-5)
    assert head.mode(outputs) == 1


def test_kind_of_action_chooses():
    with pytest.raises(ValueError, match="tanh"):
        action_heads.make(make_env("pendulum").spec, "gauss")
