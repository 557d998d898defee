"""Every planner keeps the same contract; a new planner is a new row of ROWS."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import planners
from jaxmbrl.config import ConfigError

SHAPE = (6, 2)
LOW, HIGH = np.array([-1.0, 0.5]), np.array([2.0, 0.75])
TARGET = np.linspace(0.55, 0.7, 12).reshape(SHAPE)  # inside the bounds

# name -> (small config, its float options with two values each)
ROWS = {
    "cem": (planners.cem.Config(population=40, elites=8, iterations=3), {"alpha": (0.0, 0.5)}),
    "cmaes": (planners.cmaes.Config(population=12, iterations=3), {"std": (0.1, 0.5)}),
    "es": (
        planners.es.Config(population=12, iterations=3, std=0.5),
        {"std": (0.1, 0.5), "learning_rate": (0.01, 0.1)},
    ),
    "gradient": (planners.gradient.Config(restarts=3, iterations=5), {"learning_rate": (0.01, 0.3)}),
    "icem": (
        planners.icem.Config(population=40, elites=8, iterations=3),
        {"alpha": (0.0, 0.5), "exponent": (0.0, 2.0), "std": (0.2, 1.0)},
    ),
    "mppi": (
        planners.mppi.Config(population=40, iterations=3),
        {"temperature": (0.01, 1.0), "std": (0.1, 0.5), "decay": (0.5, 1.0), "correlation": (0.0, 0.9)},
    ),
    "random_shooting": (planners.random_shooting.Config(population=40), {}),
}


def toward(target):
    """A noisy objective, so that a planner that reuses or drops its key gives other numbers."""

    def objective(key, candidates):
        noise = 1e-3 * jax.random.normal(key, candidates.shape[:1])
        return noise - jnp.sum((candidates - target) ** 2, axis=(1, 2))

    return objective


def solve(planner, key, target=TARGET, plan=None):
    return planner.plan(key, toward(target), planner.init() if plan is None else plan)


@pytest.fixture(params=sorted(planners.PLANNERS))
def name(request):
    return request.param


@functools.cache
def build(name):
    """The planner, and its compiled search (key, target, plan) with a count of how often it was traced."""
    planner, traces = planners.make(SHAPE, LOW, HIGH, ROWS[name][0]), []

    @jax.jit
    def run(key, target, plan):
        traces.append(1)
        return solve(planner, key, target, plan)

    return planner, run, traces


@pytest.fixture
def planner(name):
    return build(name)[0]


@pytest.fixture
def run(name):
    return build(name)[1]


def test_tables_agree():
    assert set(ROWS) == set(planners.PLANNERS) == set(planners.CONFIGS)
    assert planners.__all__ == sorted(planners.__all__, key=lambda word: (not word.isupper(), word.islower(), word))


def test_solution_stays_in_bounds_and_every_leaf_ends_in_the_shape(planner, run, key):
    outside = np.full(SHAPE, 100.0)  # pulls every entry against its upper bound
    plan = planner.init()
    for _ in range(4):
        solution, plan, info = run(key, outside, plan)
        assert np.all(solution >= LOW.astype(np.float32)) and np.all(solution <= HIGH.astype(np.float32))
    assert all(leaf.shape[-2:] == SHAPE for leaf in jax.tree.leaves(plan))
    assert all(np.all(leaf >= np.float32(LOW)) and np.all(leaf <= np.float32(HIGH)) for leaf in jax.tree.leaves(plan))
    assert all(np.all(np.isfinite(leaf)) for leaf in info)


def test_objective_gets_candidates_in_bounds(planner, key):
    def objective(key, candidates):
        inside = (candidates >= LOW.astype(np.float32)) & (candidates <= HIGH.astype(np.float32))
        return jnp.where(jnp.all(inside, axis=(1, 2)), jnp.sum(candidates, axis=(1, 2)), 1e6)

    _, _, info = jax.jit(lambda key: planner.plan(key, objective, planner.init()))(key)
    assert float(info.score.max()) < 1e5


def test_scan_carry_is_stable_and_nothing_retraces(name, key):
    planner, run, traces = build(name)
    keys, fresh = jax.random.split(key, 2), planner.init()
    kinds = [(leaf.shape, jnp.float32, False) for leaf in jax.tree.leaves(fresh)]
    first, plan, _ = run(keys[0], TARGET, fresh)
    assert kinds == [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(plan)]
    second, plan, _ = run(keys[1], TARGET, plan)
    assert len(traces) == 1

    def step(plan, key):
        solution, plan, _ = solve(planner, key, plan=plan)
        return plan, solution

    final, solutions = jax.jit(lambda keys: jax.lax.scan(step, fresh, keys))(keys)
    np.testing.assert_allclose(solutions, [first, second], rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), final, plan)


def test_jit_and_vmap_over_problems_change_nothing(planner, run, key):
    keys, targets = jax.random.split(key, 3), np.stack([TARGET, TARGET[::-1], np.zeros(SHAPE)])
    many = jax.jit(jax.vmap(lambda key, target: solve(planner, key, target)[0]))(keys, targets)
    singles = [run(key, target, planner.init())[0] for key, target in zip(keys, targets, strict=True)]
    np.testing.assert_allclose(many, singles, rtol=1e-4, atol=1e-5)
    assert np.abs(many[0] - many[1]).max() > 1e-3
    eager, _, _ = solve(planner, keys[0], targets[0])
    np.testing.assert_allclose(singles[0], eager, rtol=1e-4, atol=1e-5)


def test_float_options_may_be_traced(name, key):
    config, options = ROWS[name]
    if not options:
        pytest.skip("no float options")
    fields = {field: getattr(config, field) for field in config.__dataclass_fields__}

    def run(values):
        return solve(planners.make(SHAPE, LOW, HIGH, type(config)(**{**fields, **values})), key)[0]

    stacked = {field: jnp.asarray(values, jnp.float32) for field, values in options.items()}
    many = jax.jit(jax.vmap(run))(stacked)
    run = jax.jit(run)
    for i in range(2):
        single = run({field: jnp.float32(values[i]) for field, values in options.items()})
        np.testing.assert_allclose(many[i], single, rtol=1e-4, atol=1e-5)
    assert np.abs(many[0] - many[1]).max() > 1e-3


def test_scores_that_are_not_finite_are_the_worst(planner, key):
    """A border within the box scores better and better, and beyond it not a finite number: keep away from there."""

    @jax.jit
    def run(key, bad, border):
        def objective(key, candidates):
            first = candidates[:, 0, 0]
            return jnp.where(first > border, bad, first)

        return planner.plan(key, objective, planner.init())

    with jax.debug_nans(False):
        for bad in (np.nan, np.inf, -np.inf):
            solution, plan, info = run(key, bad, 1.0)  # what MPPI and CEM average is allowed, hence so is the mean
            assert 0.5 < float(solution[0, 0]) <= 1.0
            assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((plan, info)))
            assert 0 < float(info.finite.min()) < 1
        solution, plan, info = run(key, np.nan, -2.0)  # all bad: any solution will do, if it is one
    assert np.all(solution >= np.float32(LOW)) and np.all(solution <= np.float32(HIGH))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((plan, info)))
    assert float(info.finite.max()) == 0.0


def test_solution_is_differentiable_in_the_objective(name, planner, key):
    """Moving the target moves the plan: the gradient is finite, and for planners that average it is not 0."""

    def error(target):
        return jnp.sum(solve(planner, key, target)[0])

    gradient = jax.jit(jax.grad(error))(jnp.asarray(TARGET, jnp.float32))
    assert np.all(np.isfinite(gradient))
    if name in ("gradient", "mppi"):
        assert np.abs(gradient).max() > 1e-6


@pytest.mark.parametrize(
    ("shape", "low", "high", "word"),
    [
        ((), -1.0, 1.0, "shape"),
        ((0, 2), -1.0, 1.0, "shape"),
        (SHAPE, 1.0, -1.0, "high"),
        (SHAPE, -np.inf, 1.0, "low"),
        (SHAPE, np.zeros(3), np.ones(3), "low"),
    ],
)
def test_bad_bounds_are_named(name, shape, low, high, word):
    with pytest.raises(ConfigError, match=word):
        planners.make(shape, low, high, ROWS[name][0])


def test_bad_configs_are_named():
    with pytest.raises(ConfigError, match="elites"):
        planners.cem.Config(population=10, elites=11)
    with pytest.raises(ConfigError, match="keep"):
        planners.icem.Config(elites=5, keep=6)
    with pytest.raises(ConfigError, match="decay"):
        planners.icem.Config(decay=jnp.float32(1.5))
    with pytest.raises(ConfigError, match="planner"):
        planners.make(SHAPE, LOW, HIGH, object())
    planner = planners.make(SHAPE, LOW, HIGH, ROWS["cem"][0])
    with pytest.raises(AssertionError):
        planner.plan(jax.random.key(0), lambda key, candidates: candidates[:, 0], planner.init())
