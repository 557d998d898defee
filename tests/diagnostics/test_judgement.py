"""The functions behind a report, against closed forms, SciPy and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxmbrl import envs, planners
from jaxmbrl.diagnostics import calibration, horizon, mismatch, predictive
from jaxmbrl.models import one_step, simulator
from jaxmbrl.models.ensemble import Predictors
from jaxmbrl.planners import cem, receding
from jaxmbrl.types import Transition

RNG = np.random.default_rng(0)
MEAN, STD, VALUE = RNG.normal(size=(3, 4)), RNG.uniform(0.2, 2.0, (3, 4)), RNG.normal(size=4)


def test_the_likelihood_of_a_mixture():
    joint = [stats.multivariate_normal(m, np.diag(s**2)).pdf(VALUE) for m, s in zip(MEAN, STD, strict=True)]
    np.testing.assert_allclose(predictive.log_likelihood(MEAN, STD, VALUE), np.log(np.mean(joint)), rtol=1e-5)


def test_the_cumulative_distribution_of_a_mixture():
    expected = stats.norm(MEAN, STD).cdf(VALUE).mean(axis=0)
    np.testing.assert_allclose(predictive.probability_below(MEAN, STD, VALUE), expected, rtol=1e-5)
    points = np.array([[0.0], [1.0], [2.0], [2.0]])
    below = [float(predictive.probability_below(points, np.zeros((4, 1)), np.array([x]))[0]) for x in (-1.0, 1.0, 2.0)]
    assert below == [0.0, 0.375, 0.75]


def test_ranks_are_the_particles_distribution():
    particles, value = RNG.normal(size=(9, 5)).round(1), RNG.normal(size=5).round(1)
    expected = [
        stats.percentileofscore(column, x, kind="mean") / 100 for column, x in zip(particles.T, value, strict=True)
    ]
    np.testing.assert_allclose(calibration.rank_of(jnp.asarray(particles), jnp.asarray(value)), expected, rtol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 0.5, 2.0])
def test_coverage_of_gaussians_too_narrow_or_too_wide(factor):
    """Where the true spread is ``factor`` times what is predicted, the interval of c holds |z| < q / factor."""
    nominal = np.asarray(calibration.NOMINAL)
    errors = factor * stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
    below = stats.norm.cdf(errors).reshape(40, 100)
    found = calibration.coverage(jnp.asarray(below), jnp.asarray(nominal))
    expected = 2 * stats.norm.cdf(stats.norm.ppf((1 + nominal) / 2) / factor) - 1
    np.testing.assert_allclose(found, expected, atol=2e-3)
    error = np.abs(expected - nominal).mean()
    np.testing.assert_allclose(calibration.calibration_error(nominal, found), error, atol=2e-3)


def test_coverage_counts_by_weight():
    below, weight = jnp.array([0.5, 0.99]), jnp.array([3.0, 1.0])
    assert float(calibration.coverage(below, jnp.array([0.9]), weight)[0]) == 0.75


def gaussian_of(spec, gain, noise):
    """A one-step model whose member says obs' = obs + N(gain obs, noise^2): a network of one linear layer."""
    model = one_step.make(spec, one_step.Config(hidden=(1,)))

    def distribution(member, obs, action):
        import distrax

        return distrax.MultivariateNormalDiag(member.network["gain"] * obs, jnp.full(obs.shape, noise))

    def outcome(member, key, obs, action):
        change = distribution(member, obs, action).sample(seed=key)
        return one_step.Outcome(obs + change, -jnp.sum(obs**2), jnp.ones(()))

    normaliser = one_step.Normaliser(jnp.zeros(1), jnp.ones(1), jnp.zeros(spec.obs_size), jnp.ones(spec.obs_size))
    members = jax.vmap(lambda g: one_step.Params({"gain": g}, {}, normaliser))(jnp.asarray(gain))
    target = lambda member, transition: transition.next_obs - transition.obs  # noqa: E731
    return Predictors(model._replace(distribution=distribution, outcome=outcome, target=target), members)


def test_drift_of_a_linear_gaussian_model_follows_the_closed_form():
    """S' = (1 + g) s + noise: the particles' variance is a geometric sum, their mean (1 + g)^h s."""
    gain, noise, steps = -0.3, 0.2, 6
    spec = linear_quadratic_env().spec
    predictors = gaussian_of(spec, [gain, gain], noise)
    obs = jnp.linspace(1.0, 2.0, spec.obs_size)
    imagined = horizon.forecast(predictors, jax.random.key(0), obs, jnp.zeros((steps, spec.box.size)), 4000)
    assert imagined.obs.shape == (2, 4000, steps, spec.obs_size)
    truth = jnp.broadcast_to(obs, (steps, spec.obs_size))  # the world stands still
    residual = imagined.obs.reshape(-1, steps, spec.obs_size) - truth
    scale = jnp.full(spec.obs_size, 2.0)
    found = horizon.drift(residual, truth - obs, scale)
    power = np.arange(1, steps + 1)
    a = 1 + gain
    var = noise**2 * (1 - a ** (2 * power)) / (1 - a**2)
    np.testing.assert_allclose(found.var, var / 4, rtol=0.05)
    error = np.mean(np.square((a ** power[:, None] - 1) * np.asarray(obs) / 2), axis=1)
    np.testing.assert_allclose(found.square_error, error, rtol=0.05)
    np.testing.assert_array_equal(found.standstill, 0.0)


def test_judged_steps_are_in_the_observations_units():
    spec = linear_quadratic_env().spec
    predictors = gaussian_of(spec, [0.0, 0.5], 0.1)
    scaled = predictors.members.normaliser._replace(
        target_mean=jnp.ones((2, spec.obs_size)), target_std=jnp.full((2, spec.obs_size), 3.0)
    )
    predictors = predictors._replace(members=predictors.members._replace(normaliser=scaled))
    obs = jnp.arange(1.0, spec.obs_size + 1)
    step = Transition(obs, jnp.zeros(spec.box.size), jnp.zeros(()), obs + 0.25, jnp.array(False), jnp.array(False))
    judged = predictive.judge(predictors, step)
    np.testing.assert_allclose(judged.mean, np.stack([np.ones_like(obs), 1 + 1.5 * obs]), rtol=1e-6)
    np.testing.assert_allclose(judged.std, 0.3, rtol=1e-6)
    np.testing.assert_allclose(judged.change, 1 + 3 * 0.25, rtol=1e-6)


def test_the_imagined_return_stops_where_the_episode_ends():
    reward = jnp.array([[1.0, 2.0, 4.0], [1.0, 2.0, jnp.inf]])
    discount = jnp.array([[1.0, 0.5, 1.0], [1.0, 0.0, 1.0]])
    expected = np.mean([1 + 0.9 * 2 + 0.81 * 0.5 * 4, 1 + 0.9 * 2])
    np.testing.assert_allclose(horizon.imagined_return(reward, discount, 0.9), expected, rtol=1e-6)


def test_rank_correlation_is_spearmans():
    x, y = RNG.integers(0, 6, 30), RNG.normal(size=30).round(1)
    expected = stats.spearmanr(x, y).statistic
    np.testing.assert_allclose(mismatch.rank_correlation(jnp.asarray(x), jnp.asarray(y)), expected, rtol=1e-5)
    jax.config.update("jax_debug_nans", False)
    try:
        assert np.isnan(mismatch.rank_correlation(jnp.ones(4), jnp.arange(4.0)))
    finally:
        jax.config.update("jax_debug_nans", True)


def test_sensitivity_of_a_linear_quadratic_value():
    """R = -s^2 and s' = a s + b u + e: dJ/de_t = -2 sum_{k>t} gamma^k a^(k-t-1) s_k."""
    a, b, gamma, steps = 0.8, 0.5, 0.9, 5
    actions = RNG.normal(size=(steps, 1))
    found = mismatch.value_sensitivity(
        lambda s, u: (a * s + b * u, -jnp.sum(s**2), jnp.ones(())),
        jnp.array([1.5]),
        jnp.asarray(actions),
        discount=gamma,
    )
    states = [1.5]
    for action in actions[:, 0]:
        states.append(a * states[-1] + b * action)
    expected = [-2 * sum(gamma**k * a ** (k - t - 1) * states[k] for k in range(t + 1, steps)) for t in range(steps)]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4, atol=1e-6)


def linear_quadratic_env():
    return envs.make("linear_quadratic", episode_length=8)


def test_regret_is_the_gap_to_plans_on_the_truth(key):
    """A planner on the truth against one whose world has its rewards reversed; scored by the definition of a return."""
    env, steps = linear_quadratic_env(), 3
    true = simulator.make(env)
    planner = planners.make(
        (steps, env.spec.box.size),
        env.spec.box.low,
        env.spec.box.high,
        cem.Config(population=40, elites=5, iterations=3),
    )

    def plan(sign, key, timestep):
        objective = receding.objective(true, (), timestep)
        return planner.plan(key, lambda key, x: sign * objective(key, x), planner.init())[0]

    timesteps = jax.vmap(env.reset)(jax.random.split(key, 4))
    zeros = lambda key: jnp.zeros((steps, env.spec.box.size))  # noqa: E731
    regret = jax.jit(
        lambda key: mismatch.planner_regret(
            env, key, timesteps, lambda *seen: plan(-1.0, *seen), lambda *seen: plan(1.0, *seen), zeros
        )
    )(jax.random.key(1))
    assert (regret.true > regret.random).all() and (regret.random > regret.learned).all()
    for n in range(4):
        timestep, total = jax.tree.map(lambda leaf, n=n: leaf[n], timesteps), 0.0
        for _ in range(steps):
            timestep = env.step(key, timestep, jnp.zeros(env.spec.box.size))
            total += timestep.reward
        np.testing.assert_allclose(regret.random[n], total, rtol=1e-4)
