"""The Gaussian policy against SciPy and integrals, its squashing, and its statistics of observations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from jaxmbrl import envs
from jaxmbrl.models.networks import MLP
from jaxmbrl.policies import gaussian
from jaxmbrl.policies.gaussian import Gaussian

OLD = Gaussian(jnp.array([0.3, -1.0]), jnp.array([-0.5, 0.2]))
NEW = Gaussian(jnp.array([0.1, -0.7]), jnp.array([-0.2, 0.4]))
BOX = envs.make("reacher").spec.box._replace(low=np.float32([-1.0, -3.0]), high=np.float32([1.0, 5.0]))


def numpy(policy):
    return np.asarray(policy.mean, np.float64), np.exp(np.asarray(policy.log_std, np.float64))


def test_log_prob_and_entropy_are_scipys():
    mean, std = numpy(OLD)
    raw = np.array([0.9, -2.0])
    expected = scipy.stats.norm(mean, std).logpdf(raw).sum()
    np.testing.assert_allclose(gaussian.log_prob(OLD, jnp.float32(raw)), expected, rtol=1e-6)
    np.testing.assert_allclose(gaussian.entropy(OLD), scipy.stats.norm(mean, std).entropy().sum(), rtol=1e-6)


def test_kl_is_its_integral():
    def one(index):
        p, q = (scipy.stats.norm(*(x[index] for x in numpy(policy))) for policy in (OLD, NEW))
        return scipy.integrate.quad(lambda u: p.pdf(u) * (p.logpdf(u) - q.logpdf(u)), -12, 12)[0]

    np.testing.assert_allclose(gaussian.kl(OLD, NEW), one(0) + one(1), rtol=1e-5)
    np.testing.assert_allclose(gaussian.kl(OLD, OLD), 0.0, atol=1e-7)


def test_squashed_densities_have_the_same_ratio():
    """The density of the squashed action, by the change of variables in float64: the Jacobian cancels in the ratio."""
    action = np.array([0.4, 2.0])
    low, high = BOX.low.astype(float), BOX.high.astype(float)
    unit = 2 * (action - low) / (high - low) - 1
    raw = np.arctanh(unit)

    def density(policy):
        slope = 0.5 * (high - low) * (1 - unit**2)
        return np.prod(scipy.stats.norm(*numpy(policy)).pdf(raw) / slope)

    found = gaussian.unsquash(BOX, jnp.float32(action))
    np.testing.assert_allclose(found, raw, rtol=1e-5)
    ratio = jnp.exp(gaussian.log_prob(NEW, found) - gaussian.log_prob(OLD, found))
    np.testing.assert_allclose(ratio, density(NEW) / density(OLD), rtol=1e-5)


def test_squash_keeps_the_bounds_and_is_inverted():
    raw = jnp.linspace(-4, 4, 9)[:, None] * jnp.ones(2)
    action = jax.vmap(lambda u: gaussian.squash(BOX, u))(raw)
    np.testing.assert_allclose(jax.vmap(lambda a: gaussian.unsquash(BOX, a))(action), raw, atol=2e-3)
    far = gaussian.squash(BOX, jnp.array([-100.0, 100.0]))
    np.testing.assert_allclose(far, [-1.0, 5.0])
    assert np.all(np.isfinite(gaussian.unsquash(BOX, far)))


def test_samples_have_the_moments(key):
    raw = jax.vmap(lambda key: gaussian.sample(OLD, key))(jax.random.split(key, 20_000))
    mean, std = numpy(OLD)
    np.testing.assert_allclose(raw.mean(axis=0), mean, atol=5 * std.max() / np.sqrt(20_000))
    np.testing.assert_allclose(raw.std(axis=0), std, rtol=0.03)


def test_statistics_over_batches_are_those_of_all_data():
    spec = envs.make("acrobot").spec._replace(observation=jax.ShapeDtypeStruct((3,), jnp.float32), angles=(1,))
    random = np.random.default_rng(0)
    obs = random.normal(size=(30, 3)) * [1, 2, 50] + [5, 0, -100]
    scale = gaussian.init_scale(spec)
    for part in (obs[:4], obs[4:25], obs[25:]):
        scale = gaussian.update_scale(scale, jnp.float32(part), spec.angles)
    encoded = np.stack([obs[:, 0], obs[:, 2], np.sin(obs[:, 1]), np.cos(obs[:, 1])], axis=1)
    np.testing.assert_allclose(scale.mean, encoded.mean(axis=0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scale.var, encoded.var(axis=0), rtol=1e-4)
    seen = jax.vmap(lambda o: gaussian.inputs(scale, o, spec.angles))(jnp.float32(obs))
    np.testing.assert_allclose(seen.std(axis=0), np.ones(4), rtol=1e-3)


@pytest.mark.parametrize("log_std", [-1.0, 0.5])
def test_a_fresh_policy_is_near_the_middle(key, log_std):
    spec = envs.make("pendulum").spec
    network = MLP((16, 16), 1, "tanh")
    params = gaussian.init(network, key, spec, log_std=log_std)
    first = gaussian.distribution(network, params, jnp.ones(3))
    assert np.abs(first.mean).max() < 0.05
    np.testing.assert_allclose(first.log_std, [log_std])
