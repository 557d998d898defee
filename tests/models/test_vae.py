"""The bound against a model whose likelihood is known: probabilistic principal components (Tipping and Bishop 1999)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from jaxmbrl.models import vae
from jaxmbrl.types import Box, Spec

BOX = Box(np.array([-1.0], np.float32), np.array([1.0], np.float32))
SIZE, LATENT, STD = 5, 2, 0.4
LINEAR = vae.Config(latent=LATENT, hidden=(), std=STD, kl_tolerance=0.0)


def spec_of(*shape, dtype=jnp.float32, angles=()):
    return Spec("any", jax.ShapeDtypeStruct(shape, dtype), BOX, 10, angles=angles)


def linear_gaussian(rng):
    """Draws of x = W z + b + 0.4 e, W with orthogonal columns, so that the posterior is diagonal; data [200, 5]."""
    W = np.linalg.qr(rng.normal(size=(SIZE, LATENT)))[0] * np.array([1.5, 0.7])
    b = rng.normal(size=SIZE)
    data = rng.normal(size=(200, LATENT)) @ W.T + b + STD * rng.normal(size=(200, SIZE))
    return W, b, data


def exact_log_likelihood(W, b, data):
    return stats.multivariate_normal(b, W @ W.T + STD**2 * np.eye(SIZE)).logpdf(data)


def exact_params(model, W, b):
    """Encoder and decoder of the exact posterior: cov = (W'W / s^2 + I)^-1, mean = cov W'(x - b) / s^2."""
    cov = np.linalg.inv(W.T @ W / STD**2 + np.eye(LATENT))
    project = cov @ W.T / STD**2
    log_var = np.log(np.diag(cov))
    encoder = {"kernel": np.hstack([project.T, np.zeros((SIZE, LATENT))]), "bias": np.hstack([-project @ b, log_var])}
    tree = [{"params": {"layer_0": encoder}}, {"params": {"layer_0": {"kernel": W.T, "bias": b}}}]
    encoder, decoder = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)
    return model.init(jax.random.key(0))._replace(encoder=encoder, decoder=decoder)


@functools.cache
def bound_of(model):
    """Mean over 4096 draws of log-likelihood - KL, for each row of data."""

    def one(params, obs):
        log_likelihood, kl = jax.vmap(lambda key: model.bound(params, key, obs))(keys)
        return jnp.mean(log_likelihood) - kl[0]

    keys = jax.random.split(jax.random.key(1), 4096)
    return jax.jit(jax.vmap(one, in_axes=(None, 0)))


def test_bound_is_tight_with_the_exact_posterior_and_below_with_any_other(key):
    model = vae.make(spec_of(SIZE), LINEAR)
    W, b, data = linear_gaussian(np.random.default_rng(0))
    params, exact = exact_params(model, W, b), exact_log_likelihood(W, b, data)
    bound = bound_of(model)(params, jnp.float32(data))
    np.testing.assert_allclose(bound, exact, atol=0.15)  # one row's standard error is about 0.03
    np.testing.assert_allclose(np.mean(bound), np.mean(exact), atol=0.02)
    for scale in (0.1, 0.5):
        noise = jax.tree.map(
            lambda leaf, scale=scale: leaf + scale * jax.random.normal(key, leaf.shape), params.encoder
        )
        bound = bound_of(model)(params._replace(encoder=noise), jnp.float32(data))
        assert np.all(bound < exact + 0.15) and np.mean(bound) < np.mean(exact) - 0.02


def test_fitting_reaches_the_best_likelihood_and_not_more(key):
    """The maximum over W and b is known from the covariance's eigenvalues; Adam on the bound gets within 0.05 nats."""
    model = vae.make(spec_of(SIZE), LINEAR)
    _, _, data = linear_gaussian(np.random.default_rng(0))
    eigenvalues, vectors = np.linalg.eigh(np.cov(data.T, bias=True))
    W = vectors[:, -LATENT:] * np.sqrt(np.maximum(eigenvalues[-LATENT:] - STD**2, 0))
    best = exact_log_likelihood(W, data.mean(axis=0), data).mean()
    obs, adam = jnp.float32(data), optax.adam(optax.cosine_decay_schedule(0.03, 1500))

    def step(carry, key):
        params, optimiser = carry
        keys = jax.random.split(key, len(obs))
        gradient = jax.grad(lambda params: jnp.mean(jax.vmap(model.loss, (None, 0, 0))(params, keys, obs)[0]))(params)
        updates, optimiser = adam.update(gradient, optimiser)
        return (optax.apply_updates(params, updates), optimiser), None

    params = model.init(key)
    (params, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, jax.random.split(key, 1500)))(
        (params, adam.init(params))
    )
    reached = float(bound_of(model)(params, obs).mean())
    assert best - 0.05 < reached < best + 0.02


def test_loss_is_the_released_codes_sum_of_squares(key):
    """With std 1/sqrt(2): sum of squares + max(KL, 0.5 a latent), against a NumPy twin at the same draw."""
    model = vae.make(spec_of(SIZE), vae.Config(latent=3, hidden=(7,)))
    params, obs = model.init(key), jax.random.normal(key, (SIZE,))
    posterior = model.encode(params, obs)
    latent = vae.sample(jax.random.key(2), posterior)
    mean, std = (np.asarray(leaf, np.float64) for leaf in posterior)
    kl = np.sum(0.5 * (mean**2 + std**2 - 1) - np.log(std))
    squares = np.sum((np.asarray(obs) - np.asarray(model.decode(params, latent))) ** 2)
    assert kl < 1.5  # the tolerance is in force
    loss, metrics = model.loss(params, jax.random.key(2), obs)
    np.testing.assert_allclose(loss, squares + 1.5, rtol=1e-5)
    np.testing.assert_allclose(metrics["vae_kl"], kl, rtol=1e-4, atol=1e-6)
    strict = vae.make(spec_of(SIZE), vae.Config(latent=3, hidden=(7,), kl_tolerance=0.0))
    np.testing.assert_allclose(strict.loss(params, jax.random.key(2), obs)[0], squares + kl, rtol=1e-5)


def test_kl_is_the_integral():
    """In one dimension, against a numeric integral."""
    grid = np.linspace(-12, 12, 200_001)
    for mean, std in ((0.0, 1.0), (1.3, 0.2), (-0.4, 2.0)):
        q, p = stats.norm(mean, std), stats.norm()
        expected = np.trapezoid(q.pdf(grid) * (q.logpdf(grid) - p.logpdf(grid)), grid)
        posterior = vae.Posterior(jnp.array([mean]), jnp.array([std]))
        np.testing.assert_allclose(vae.kl_from_standard(posterior), expected, atol=1e-5)


def test_vectors_are_normalised_with_angles_on_the_circle(key):
    model = vae.make(spec_of(3, angles=(1,)), vae.Config(latent=2, hidden=(4,)))
    obs = jax.random.normal(key, (50, 3)) * jnp.array([10.0, 3.0, 0.0]) + 5.0
    weight = jnp.arange(50) < 30
    params = model.calibrate(model.init(key), obs, weight.astype(jnp.float32))
    x = np.asarray(jax.vmap(lambda obs: model.prepare(params, obs))(obs))
    assert x.shape == (50, 4)
    np.testing.assert_allclose(x[:30].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(x[:30, [0, 2, 3]].std(axis=0), 1, atol=1e-4)
    turned = obs.at[:, 1].add(2 * np.pi)
    np.testing.assert_allclose(jax.vmap(lambda obs: model.prepare(params, obs))(turned), x, atol=1e-4)


def test_images_come_back_in_their_shape(key):
    model = vae.make(spec_of(32, 32, 3, dtype=jnp.uint8), vae.Config(latent=4, depth=2))
    image = jax.random.randint(key, (32, 32, 3), 0, 256).astype(jnp.uint8)
    params = jax.jit(model.init)(key)
    gradient = jax.jit(jax.grad(lambda params: model.loss(params, key, image)[0]))(params)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves((gradient.encoder, gradient.decoder)))
    shape = jax.eval_shape(lambda: model.decode(params, model.encode(params, image).mean)).shape
    assert shape == (32, 32, 3)


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_other_observations_are_refused(shape):
    with pytest.raises(ValueError, match="needs one vector"):
        vae.make(spec_of(*shape))
