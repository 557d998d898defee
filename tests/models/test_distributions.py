"""Likelihood families against SciPy and float64 twins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxmbrl.models import distributions
from jaxmbrl.models.distributions import DETERMINISTIC, FAMILIES, GAUSSIAN

SIZE = 3
PARAMS = {"max_log_var": jnp.array([0.5, -0.2, 1.0]), "min_log_var": jnp.array([-10.0, -4.0, -2.0])}


def softplus(x):
    return np.logaddexp(0.0, x)


def paper_var(raw, low, high):
    """The double softplus of Chua et al. 2018 (App. A.1), in float64, as a variance."""
    upper = high - softplus(high - np.asarray(raw, np.float64))
    return np.exp(low + softplus(upper - low))


@pytest.fixture(scope="module")
def outputs():
    return jax.random.normal(jax.random.key(1), (20, 2 * SIZE)) * 3.0


def twin(outputs):
    mean, raw = np.split(np.asarray(outputs, np.float64), 2, axis=-1)
    low, high = (np.asarray(PARAMS[name], np.float64) for name in ("min_log_var", "max_log_var"))
    return mean, paper_var(raw, low, high)


def test_bounded_var_is_the_double_softplus():
    raw = np.linspace(-40.0, 40.0, 4001, dtype=np.float32)
    low, high = np.float32(-10.0), np.float32(0.5)
    var = distributions.bounded_var(raw, low, high)
    np.testing.assert_allclose(var, paper_var(raw, np.float64(low), np.float64(high)), rtol=3e-6)
    assert np.all(np.diff(var) >= 0)
    middle = (raw > -6) & (raw < -4)  # well inside, the bound hardly changes the logarithm
    np.testing.assert_allclose(np.log(var[middle]), raw[middle], atol=0.03)


@pytest.mark.parametrize("raw", [-1e4, -100.0, 0.0, 100.0, 1e4])
def test_bounded_var_stays_within_its_bounds_with_finite_gradients(raw):
    low, high = jnp.float32(-10.0), jnp.float32(0.5)
    std = jax.jit(jax.value_and_grad(lambda *args: jnp.sqrt(distributions.bounded_var(*args)), argnums=(0, 1, 2)))
    value, gradient = std(jnp.float32(raw), low, high)
    assert np.exp(low) * (1 - 1e-5) <= value**2 <= (np.exp(high) + np.exp(low)) * (1 + 1e-5)
    assert np.all(np.isfinite(gradient))

    def loss(outputs):
        return GAUSSIAN.loss(PARAMS, outputs, jnp.zeros(SIZE))

    assert np.all(np.isfinite(jax.grad(loss)(jnp.concatenate([jnp.ones(SIZE), jnp.full(SIZE, raw)]))))


def test_gaussian_matches_scipy(outputs, key):
    distribution = GAUSSIAN.distribution(PARAMS, outputs)
    mean, var = twin(outputs)
    value = jax.random.normal(key, (20, SIZE)) * 2.0
    expected = stats.norm.logpdf(np.asarray(value, np.float64), mean, np.sqrt(var)).sum(axis=-1)
    np.testing.assert_allclose(distribution.log_prob(value), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(distribution.mean(), mean, rtol=1e-6)
    np.testing.assert_allclose(distribution.variance(), var, rtol=1e-5)


def test_gaussian_samples_have_the_moments(outputs, key):
    mean, var = twin(outputs[0])
    num = 20_000
    sample = np.asarray(GAUSSIAN.distribution(PARAMS, outputs[0]).sample(seed=key, sample_shape=(num,)), np.float64)
    # Five standard errors: false alarm 6e-7 an entry, were the key drawn anew.
    assert np.all(np.abs(sample.mean(axis=0) - mean) < 5 * np.sqrt(var / num))
    assert np.all(np.abs(sample.var(axis=0) / var - 1) < 5 * np.sqrt(2 / num))
    correlation = np.corrcoef(sample.T)[np.triu_indices(SIZE, 1)]
    assert np.all(np.abs(correlation) < 5 / np.sqrt(num)), "the entries are independent"


def test_gaussian_loss_is_the_scaled_likelihood(outputs, key):
    """The mean over D of (error^2 / var + log var): twice the negative log-likelihood without its constant."""
    target = jax.random.normal(key, (20, SIZE))
    mean, var = twin(outputs)
    expected = np.mean((np.asarray(target, np.float64) - mean) ** 2 / var + np.log(var), axis=-1)
    loss = jax.vmap(GAUSSIAN.loss, in_axes=(None, 0, 0))(PARAMS, outputs, target)
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-4)


def test_gaussian_penalty_pulls_the_bounds_together():
    np.testing.assert_allclose(GAUSSIAN.penalty(PARAMS), 1.3 + 16.0, rtol=1e-6)
    fresh = GAUSSIAN.init(SIZE)
    np.testing.assert_array_equal(fresh["max_log_var"], np.full(SIZE, 0.5))
    np.testing.assert_array_equal(fresh["min_log_var"], np.full(SIZE, -10.0))


def test_deterministic_is_a_point(outputs, key):
    raw = outputs[:, :SIZE]
    distribution = DETERMINISTIC.distribution({}, raw)
    for value in (distribution.sample(seed=key), distribution.mean()):
        np.testing.assert_array_equal(value, raw)
    np.testing.assert_array_equal(distribution.variance(), np.zeros((20, SIZE)))
    target = jax.random.normal(key, (SIZE,))
    expected = np.mean((np.asarray(raw[0], np.float64) - np.asarray(target, np.float64)) ** 2)
    np.testing.assert_allclose(DETERMINISTIC.loss({}, raw[0], target), expected, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_family_asks_for_as_many_outputs_as_it_reads(name, key):
    family = FAMILIES[name]
    outputs = jax.random.normal(key, (5, family.num_outputs(SIZE)))
    distribution = family.distribution(family.init(SIZE), outputs)
    assert distribution.sample(seed=key).shape == distribution.mean().shape == (5, SIZE)
    assert distribution.log_prob(jnp.zeros((5, SIZE))).shape == (5,)
    gradient = jax.grad(lambda raw: family.loss(family.init(SIZE), raw, jnp.zeros(SIZE)))(outputs[0])
    assert np.all(np.isfinite(gradient)) and np.any(gradient != 0)
