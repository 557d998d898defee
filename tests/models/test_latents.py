"""Latents: divergences against numerical integrals and sums, samples against their distributions, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from scipy import integrate

from jaxmbrl.models import latents

NUM = 20_000


def test_gaussian_divergence_is_the_integral():
    latent = latents.gaussian(2, min_std=0.1)
    p, q = jnp.array([0.3, -1.0, 0.2, 1.5]), jnp.array([-0.4, 0.5, -1.0, 0.0])
    total = 0.0
    for dim in range(2):
        first, second = (scipy.stats.norm(outputs[dim], np.log1p(np.exp(outputs[2 + dim])) + 0.1) for outputs in (p, q))
        total += integrate.quad(lambda x, a=first, b=second: a.pdf(x) * (a.logpdf(x) - b.logpdf(x)), -15, 15)[0]
    np.testing.assert_allclose(latent.kl(p, q), total, rtol=1e-5)
    np.testing.assert_allclose(latent.kl(p, p), 0.0, atol=1e-6)


def test_gaussian_samples_have_the_moments():
    latent = latents.gaussian(1, min_std=0.1)
    outputs = jnp.array([0.7, -0.3])
    samples = jax.vmap(latent.sample, in_axes=(0, None))(jax.random.split(jax.random.key(0), NUM), outputs)
    std = np.log1p(np.exp(-0.3)) + 0.1
    np.testing.assert_allclose([samples.mean(), samples.std()], [0.7, std], atol=4 * std / NUM**0.5)


def chances(outputs, unimix):
    softmax = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    return (1 - unimix) * softmax + unimix / outputs.shape[-1]


def test_classes_against_sums():
    latent = latents.categorical(2, 3, unimix=0.1)
    p, q = np.array([[0.0, 2.0, -1.0], [5.0, 0.0, 0.0]]), np.array([[1.0, 0.0, 0.0], [-3.0, 1.0, 2.0]])
    chance_p, chance_q = chances(p, 0.1), chances(q, 0.1)
    expected = (chance_p * np.log(chance_p / chance_q)).sum()
    np.testing.assert_allclose(latent.kl(jnp.ravel(p), jnp.ravel(q)), expected, rtol=1e-5)
    keys = jax.random.split(jax.random.key(1), NUM)
    samples = jax.vmap(latent.sample, in_axes=(0, None))(keys, jnp.ravel(p)).reshape(NUM, 2, 3)
    np.testing.assert_array_equal(samples.sum(-1), 1.0)
    np.testing.assert_allclose(samples.mean(0), chance_p, atol=4 * 0.5 / NUM**0.5)


def test_gradient_passes_straight_through_a_class():
    """That of a weighted one-hot sample is that of the weighted chances, whatever was drawn."""
    latent = latents.categorical(1, 3, unimix=0.1)
    outputs, weight = jnp.array([0.5, -1.0, 2.0]), jnp.array([1.0, -2.0, 0.5])
    expected = jax.grad(lambda outputs: weight @ (0.9 * jax.nn.softmax(outputs) + 0.1 / 3))(outputs)
    for seed in range(4):
        slope = jax.grad(lambda outputs, seed=seed: weight @ latent.sample(jax.random.key(seed), outputs))(outputs)
        np.testing.assert_allclose(slope, expected, rtol=1e-5)
