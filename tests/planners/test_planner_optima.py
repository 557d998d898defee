"""Do planners find known optima? The Riccati solution, and the global minimum among many local ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import planners

HORIZON, STATE, ACTION, SEEDS = 15, 4, 2, 20
BOUND = 3.0  # beyond every optimal action, so that the unconstrained optimum is the optimum

# Worst of 20 problems x 3 keys in a pilot: 1.030 (cem), 1.012 (icem), 1.022 (mppi), 1.002 (gradient).
QUADRATIC = {
    "cem": planners.cem.Config(population=1000, elites=50, iterations=25),
    "gradient": planners.gradient.Config(iterations=100),
    "icem": planners.icem.Config(population=1000, elites=50, iterations=25, decay=1.0, exponent=0.5),
    "mppi": planners.mppi.Config(population=500, iterations=20, temperature=0.1, std=0.1, decay=0.85),
}


def problem(seed):
    """(M, B, x_0, optimal cost, largest optimal action) of x' = Mx + Bu, M a shrunk rotation, cost |x|^2 + |u|^2."""
    rng = np.random.default_rng(seed)
    M = 0.95 * np.linalg.qr(rng.normal(size=(STATE, STATE)))[0]
    B, x = 0.5 * rng.normal(size=(STATE, ACTION)), rng.normal(size=STATE)
    cost_to_go, gains = np.eye(STATE), []
    for _ in range(HORIZON):
        gains.append(np.linalg.solve(np.eye(ACTION) + B.T @ cost_to_go @ B, B.T @ cost_to_go @ M))
        cost_to_go = np.eye(STATE) + M.T @ cost_to_go @ (M - B @ gains[-1])
    largest, y = 0.0, x
    for gain in reversed(gains):
        largest = max(largest, np.abs(gain @ y).max())
        y = (M - B @ gain) @ y
    return M, B, x, x @ cost_to_go @ x, largest


def cost(M, B, x, actions):
    def step(x, action):
        return M @ x + B @ action, x @ x + action @ action

    x, costs = jax.lax.scan(step, x, actions)
    return jnp.sum(costs) + x @ x


@pytest.mark.parametrize("name", sorted(QUADRATIC))
def test_linear_quadratic_optimum(name, key):
    M, B, x, optimum, largest = (np.stack(leaf) for leaf in zip(*map(problem, range(SEEDS)), strict=True))
    assert largest.max() < BOUND
    planner = planners.make((HORIZON, ACTION), -BOUND, BOUND, QUADRATIC[name])

    def solve(key, M, B, x):
        def objective(key, candidates):
            return -jax.vmap(lambda actions: cost(M, B, x, actions))(candidates)

        solution, _, _ = planner.plan(key, objective, planner.init())
        return cost(M, B, x, solution)

    reached = jax.jit(jax.vmap(solve))(jax.random.split(key, SEEDS), *(jnp.float32(leaf) for leaf in (M, B, x)))
    ratio = np.asarray(reached, np.float64) / optimum
    assert np.all(ratio > 1 - 1e-4), ratio  # nothing beats the optimum, or this test is wrong
    assert np.sum(ratio <= 1.05) == SEEDS, ratio


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("cem", planners.cem.Config(population=500, iterations=20)),
        ("gradient", planners.gradient.Config(restarts=512, iterations=100, learning_rate=0.02)),
        ("icem", planners.icem.Config(population=500, elites=50, iterations=20, decay=1.0, exponent=0.0)),
    ],
)
def test_global_minimum_among_many(name, config, key):
    """Rastrigin in two dimensions, 11 x 11 local minima, its optimum away from the middle: 10 of 10 seeds find it."""
    planner = planners.make((2,), -5.5, 5.5, config)
    target = np.array([1.3, -2.2])

    def objective(key, candidates):
        x = candidates - target
        return -jnp.sum(x**2 + 10 * (1 - jnp.cos(2 * jnp.pi * x)), axis=1)

    solve = jax.jit(jax.vmap(lambda key: planner.plan(key, objective, planner.init())[0]))
    np.testing.assert_allclose(solve(jax.random.split(key, 10)), np.tile(target, (10, 1)), atol=0.1)


def test_one_restart_stays_in_its_basin(key):
    """The counterpart: without restarts, the gradient planner ends in the nearest local minimum."""
    planner = planners.make((1,), -5.5, 5.5, planners.gradient.Config(restarts=1, learning_rate=0.02))

    def objective(key, candidates):
        x = candidates[:, 0] - 2.9
        return -(x**2 + 10 * (1 - jnp.cos(2 * jnp.pi * x)))

    solution, _, _ = jax.jit(lambda key: planner.plan(key, objective, planner.init()))(key)
    assert float(solution[0]) == pytest.approx(-0.1 + 0.015, abs=0.05)
