"""One update of each planner: reduction identities, and slow NumPy float64 twins written from the papers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl.planners import cem, gradient, icem, mppi, random_shooting
from jaxmbrl.planners.candidates import WORST, elite_shares, evaluate, report, select

SHAPE = (4, 2)
LOW, HIGH = jnp.full(SHAPE, -1.0), jnp.full(SHAPE, 3.0)


class Recorder:
    """A quadratic objective that keeps what it was asked, in order, also from within a compiled scan."""

    def __init__(self, target):
        self.target, self.calls, self.keys = target, [], []

    def __call__(self, key, candidates):
        jax.debug.callback(self.keep, jax.random.key_data(key), candidates, ordered=True)
        return -jnp.sum((candidates - self.target) ** 2, axis=(1, 2))

    def keep(self, key, candidates):
        self.keys.append(tuple(np.asarray(key).ravel()))
        self.calls.append(np.asarray(candidates, np.float64))


def record(search, plan, **options):
    """Run a search; returns (solution, plan, info, candidates of each iteration, their scores)."""
    objective = Recorder(np.linspace(0.0, 2.0, 8).reshape(SHAPE))
    run = jax.jit(lambda key, plan: search(key, objective, plan, low=LOW, high=HIGH, **options))
    solution, plan, info = run(jax.random.key(3), plan)
    jax.effects_barrier()
    assert len(set(objective.keys)) == len(objective.keys)  # a fresh key each iteration
    scores = [-np.sum((call - objective.target) ** 2, axis=(1, 2)) for call in objective.calls]
    np.testing.assert_allclose(info.score, [score.max() for score in scores], rtol=1e-5)
    np.testing.assert_allclose(info.mean_score, [score.mean() for score in scores], rtol=1e-5)
    np.testing.assert_allclose(info.spread, [np.std(call, axis=0).mean() / 4 for call in objective.calls], rtol=1e-4)
    return np.asarray(solution), plan, info, objective.calls, scores


def test_cem_with_every_sample_elite_is_the_sample_mean():
    solution, plan, _, calls, _ = record(
        cem.search, cem.init(low=LOW, high=HIGH), population=20, elites=20, iterations=1, alpha=0.0
    )
    np.testing.assert_allclose(solution, calls[0].mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(plan.mean, solution)


def test_cem_that_keeps_everything_stays():
    start = cem.Plan(jnp.full(SHAPE, 0.3))
    solution, *_ = record(cem.search, start, population=20, elites=4, iterations=3, alpha=1.0)
    np.testing.assert_allclose(solution, 0.3, rtol=1e-6)


def test_cem_iterations_against_numpy():
    start = cem.Plan(jnp.full(SHAPE, 0.5))
    solution, _, _, calls, scores = record(cem.search, start, population=30, elites=6, iterations=4, alpha=0.1)
    mean, var = np.full(SHAPE, 0.5), np.full(SHAPE, 1.0)  # ((3 - -1) / 4)^2
    for call, score in zip(calls, scores, strict=True):
        room = np.minimum(mean + 1, 3 - mean)
        std = np.sqrt(np.minimum(var, (room / 2) ** 2))
        assert np.all(np.abs(call - mean) <= 2 * std + 1e-5)
        assert np.abs((call - mean) / std).max() > 1.5  # and the noise fills that interval
        elites = call[np.argsort(score)[-6:]]
        mean = 0.1 * mean + 0.9 * elites.mean(axis=0)
        var = 0.1 * var + 0.9 * elites.var(axis=0)
    np.testing.assert_allclose(solution, mean, rtol=1e-4, atol=1e-5)


def test_cem_samples_a_truncated_normal(key):
    """Moments of a standard normal truncated at two: mean 0, variance 0.7737413 (Johnson et al., closed form)."""
    mean, var = jnp.zeros((1,)), jnp.full((1,), 0.25)
    samples = cem.sample(key, mean, var, low=jnp.full(1, -9.0), high=jnp.full(1, 9.0), population=40_000)
    assert abs(float(samples.mean())) < 4 * 0.44 / 200
    assert float(samples.var()) == pytest.approx(0.25 * 0.7737413, rel=0.03)


def test_icem_iterations_against_numpy():
    start = icem.Plan(jnp.full(SHAPE, 0.5), jnp.stack([jnp.full(SHAPE, 0.1), jnp.full(SHAPE, 0.9)]))
    options = {"population": 24, "decay": 1.5, "elites": 4, "iterations": 5, "alpha": 0.2}
    solution, plan, _, calls, scores = record(icem.search, start, **options)
    assert [len(call) - 2 for call in calls] == [24, 16, 10, 8, 8]
    mean, kept = np.full(SHAPE, 0.5), np.asarray(start.elites)
    for i, call in enumerate(calls):
        np.testing.assert_allclose(call[:2], kept, rtol=1e-6)
        contains_mean = np.any(np.all(np.abs(call - mean) < 1e-5, axis=(1, 2)))
        assert contains_mean == (i == 4)
        order = np.argsort(-scores[i])
        kept = call[order[:2]]
        mean = 0.2 * mean + 0.8 * call[order[:4]].mean(axis=0)
    np.testing.assert_allclose(plan.mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(plan.elites, kept, rtol=1e-6)
    np.testing.assert_allclose(solution, calls[-1][np.argmax(scores[-1])], rtol=1e-6)


def test_icem_never_loses_its_best_under_a_fixed_objective():
    *_, scores = record(icem.search, icem.init(low=LOW, high=HIGH), population=20, elites=4, iterations=4)
    best = [score.max() for score in scores]
    assert all(later >= earlier - 1e-5 for earlier, later in itertools.pairwise(best))


def test_icem_std_starts_at_the_share_of_half_the_range(key):
    """White noise without clipping: candidates of the first iteration spread by 0.5 * (3 - -1) / 2 * 0.1 = 0.1."""
    plan = icem.init(low=LOW, high=HIGH)
    objective = lambda key, candidates: jnp.zeros(len(candidates))  # noqa: E731
    *_, info = icem.search(
        key, objective, plan, low=LOW, high=HIGH, population=4000, iterations=1, exponent=0.0, std=0.05
    )
    assert float(info.spread[0]) == pytest.approx(0.1 / 4, rel=0.03)


def mppi_options(**changes):
    return {"population": 30, "iterations": 1, "normalise": False, **changes}


def test_mppi_without_temperature_is_the_best_sample():
    start = mppi.init(low=LOW, high=HIGH)
    solution, _, _, calls, scores = record(mppi.search, start, **mppi_options(temperature=1e-6))
    np.testing.assert_allclose(solution, calls[0][np.argmax(scores[0])], rtol=1e-5, atol=1e-6)


def test_mppi_at_infinite_temperature_is_the_sample_mean():
    start = mppi.init(low=LOW, high=HIGH)
    solution, _, _, calls, _ = record(mppi.search, start, **mppi_options(temperature=1e9))
    np.testing.assert_allclose(solution, calls[0].mean(axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalise", [False, True])
def test_mppi_iterations_against_numpy(normalise):
    start = mppi.Plan(jnp.full(SHAPE, 0.5))
    options = mppi_options(iterations=3, temperature=0.4, normalise=normalise, std=0.1, decay=0.5, population=31)
    solution, _, _, calls, scores = record(mppi.search, start, **options)
    for i, (call, score) in enumerate(zip(calls, scores, strict=True)):
        scale = 0.4 * (score.max() - np.median(score) if normalise else 1.0)
        weights = np.exp((score - score.max()) / scale)
        mean = np.einsum("n,nha->ha", weights / weights.sum(), call)
        if i + 1 < len(calls):  # the next iteration is drawn around this mean, with half the noise
            z = (calls[i + 1] - mean) / (4 * 0.1 * 0.5 ** (i + 1))
            assert abs(z.mean()) < 5 / np.sqrt(z.size) and z.std() == pytest.approx(1.0, abs=0.2)
    np.testing.assert_allclose(solution, mean, rtol=1e-4, atol=1e-5)


def test_mppi_weights_ignore_the_scale_and_bad_scores():
    scores = jnp.asarray([3.0, WORST, 1.0, 2.0, WORST, WORST, 0.0])
    weights = mppi.weigh(scores, 0.5, normalise=True)
    assert np.all(weights[np.array([1, 4, 5])] == 0)
    good = np.array([0, 2, 3, 6])
    expected = np.exp((np.array([3.0, 1.0, 2.0, 0.0]) - 3) / (0.5 * (3.0 - 2.0)))  # the upper median of 3, 2, 1, 0
    np.testing.assert_allclose(weights[good], expected / expected.sum(), rtol=1e-5)
    shifted = jnp.where(scores > WORST, 50 + 100 * scores, WORST)
    np.testing.assert_allclose(mppi.weigh(shifted, 0.5, normalise=True), weights, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(mppi.weigh(jnp.zeros(4), 0.5, normalise=True), 0.25)


def test_random_shooting_takes_the_best_and_covers_the_box():
    solution, _, _, calls, scores = record(random_shooting.search, random_shooting.Plan(), population=2000)
    np.testing.assert_allclose(solution, calls[0][np.argmax(scores[0])], rtol=1e-6)
    np.testing.assert_allclose(calls[0].mean(axis=0), 1.0, atol=0.15)
    np.testing.assert_allclose(calls[0].var(axis=0), 16 / 12, rtol=0.1)


def test_gradient_iterations_against_numpy():
    """Adam of Kingma and Ba, in units of half the range (2), with a cosine step size, projected."""
    start = gradient.Plan(jnp.full(SHAPE, 2.9))
    solution, _, _, calls, scores = record(gradient.search, start, restarts=3, iterations=6, learning_rate=0.3)
    np.testing.assert_allclose(calls[0][0], 2.9, rtol=1e-6)
    x, target = calls[0], np.linspace(0.0, 2.0, 8).reshape(SHAPE)
    first, second = np.zeros_like(x), np.zeros_like(x)
    for i in range(5):
        slope = 2 * (x - target) * 2.0  # of the cost, per half range
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        rate = 0.3 * 0.5 * (1 + np.cos(np.pi * i / 6))
        step = rate * (first / (1 - 0.9 ** (i + 1))) / (np.sqrt(second / (1 - 0.999 ** (i + 1))) + 1e-8)
        x = np.clip(x - 2.0 * step, -1.0, 3.0)
        np.testing.assert_allclose(calls[i + 1], x, rtol=1e-3, atol=1e-4)
    visited, values = np.concatenate(calls), np.concatenate(scores)
    np.testing.assert_allclose(solution, visited[np.argmax(values)], rtol=1e-6)


def test_gradient_that_is_not_finite_stops_one_restart_only():
    def objective(key, candidates):
        x = candidates[:, 0, 0]
        return jnp.where(x > 1.0, jnp.sqrt(1.0 - x), -((x + 0.5) ** 2))  # nan, and a nan gradient, above 1

    with jax.debug_nans(False):
        candidates = jnp.zeros((3, *SHAPE)).at[1, 0, 0].set(2.0)
        scores, slopes = gradient.ascend(objective, jax.random.key(0), candidates)
    np.testing.assert_allclose(scores, [-0.25, WORST, -0.25])
    np.testing.assert_allclose(slopes[:, 0, 0], [-1.0, 0.0, -1.0])


def test_evaluate_select_and_report():
    candidates = jnp.arange(8.0).reshape(4, 2, 1)
    with jax.debug_nans(False):
        scores = evaluate(lambda *_: jnp.array([1.0, jnp.nan, jnp.inf, 2.0]), jax.random.key(0), candidates)
    np.testing.assert_array_equal(scores, np.float32([1.0, WORST, WORST, 2.0]))
    np.testing.assert_array_equal(select(candidates, scores, 2)[:, :, 0], [[6.0, 7.0], [0.0, 1.0]])
    info = report(candidates, scores, jnp.zeros((2, 1)), jnp.full((2, 1), 10.0))
    assert (float(info.score), float(info.mean_score), float(info.finite)) == (2.0, 1.5, 0.5)
    assert float(info.spread) == pytest.approx(np.std([0, 2, 4, 6]) / 10)


def test_ties_are_elites_in_equal_shares():
    scores = jnp.array([1.0, 3.0, 2.0, 2.0, WORST])
    np.testing.assert_allclose(elite_shares(scores, 2), [0, 1 / 3, 1 / 3, 1 / 3, 0])  # the second best is two
    np.testing.assert_allclose(elite_shares(jnp.zeros(4), 1), 0.25)  # nothing tells them apart
    np.testing.assert_allclose(elite_shares(jnp.full(4, WORST), 1), 0.25)
    np.testing.assert_allclose(elite_shares(scores, 5), [0.25, 0.25, 0.25, 0.25, 0])  # a bad score is never elite
