"""Receding horizon: the shift, the objective from a world model, and control in closed loop."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import planners
from jaxmbrl.planners import receding
from jaxmbrl.types import Prediction, WorldModel


class Leaves(NamedTuple):
    mean: jax.Array
    elites: jax.Array


def particle_model(shape):
    """Scalar particles of belief ``shape``: s' = s + a_0 + params * noise; reward s'; ends once s' exceeds 10."""

    def step(params, key, state, action):
        state = state + action[0] + params * jax.random.normal(key, shape)
        return state, Prediction(state, jnp.where(state > 10, 0.0, 1.0))

    unused = lambda *_: None  # noqa: E731
    return WorldModel(unused, unused, unused, unused, step, features=lambda params, state: state)


def test_shift_moves_time_on_every_leaf():
    mean = np.arange(6.0).reshape(3, 2)
    elites = np.arange(24.0).reshape(4, 3, 2)
    fresh = Leaves(jnp.full((3, 2), -1.0), jnp.full((4, 3, 2), -2.0))
    plan = receding.shift(Leaves(jnp.asarray(mean), jnp.asarray(elites)), fresh)
    np.testing.assert_array_equal(plan.mean, [[2, 3], [4, 5], [-1, -1]])
    np.testing.assert_array_equal(plan.elites[:, :2], elites[:, 1:])
    np.testing.assert_array_equal(plan.elites[:, 2], np.full((4, 2), -2.0))


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_return_against_a_python_loop(shape):
    """Discount, an end on the way for some particles, and the terminal value, against plain arithmetic."""
    state = np.linspace(0.0, 9.0, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    actions = np.array([[0.5], [1.0], [-0.7], [0.2]], np.float32)
    model = particle_model(shape)
    got = receding.discounted_return(
        jnp.float32(0.0), jax.random.key(0), state, actions, model=model, discount=0.9, terminal_value=lambda s: 3 * s
    )
    totals = []
    for s in np.ravel(state).astype(float):
        total, weight = 0.0, 1.0
        for action in actions[:, 0]:
            s += float(action)
            total += weight * s
            weight *= 0.9 * (s <= 10)
        totals.append(total + weight * 3 * s)
    assert float(got) == pytest.approx(np.mean(totals), rel=1e-5)


def test_what_lies_beyond_the_end_is_ignored_and_bad_particles_are_not():
    def step(params, key, state, action):  # the second step is not finite
        state = state + 1
        return state, Prediction(jnp.where(state > 1, jnp.nan, 5.0), jnp.where(action[0] > 0, 0.0, 1.0) + 0 * state)

    unused = lambda *_: None  # noqa: E731
    model = WorldModel(unused, unused, unused, unused, step, unused)
    objective = receding.objective(model, (), jnp.zeros(3))
    candidates = jnp.asarray([[[1.0], [0.0]], [[-1.0], [0.0]]])
    with jax.debug_nans(False):
        scores = objective(jax.random.key(0), candidates)
    assert float(scores[0]) == 5.0 and np.isnan(scores[1])


def test_candidates_share_their_noise_and_keys_do_not_repeat():
    """Equal candidates score equally; the noise differs between steps, particles and calls."""
    objective = receding.objective(particle_model((2, 3)), jnp.float32(1.0), jnp.zeros((2, 3)))
    candidates = jnp.zeros((3, 5, 1)).at[2].set(0.25)
    scores = objective(jax.random.key(0), candidates)
    assert float(scores[0]) == float(scores[1])
    assert float(scores[2] - scores[0]) == pytest.approx(0.25 * (1 + 2 + 3 + 4 + 5), rel=1e-4)
    assert float(scores[0]) != float(objective(jax.random.key(1), candidates)[0])

    def noise(key, state, action):
        return action, Prediction(jax.random.normal(key, (2, 3)), jnp.ones((2, 3)))

    model = particle_model(())._replace(step=lambda params, key, state, action: noise(key, state, action))
    keys = jax.random.split(jax.random.key(5), 4000)
    run = functools.partial(receding.discounted_return, (), state=jnp.zeros(1), solution=jnp.zeros((5, 1)), model=model)
    sums = jax.jit(jax.vmap(lambda key: run(key)))(keys)
    assert float(jnp.var(sums)) == pytest.approx(5 / 6, rel=0.12)  # 25 / 6 if the steps shared one key


def test_terminal_value_makes_a_short_horizon_see_far():
    """Rewards only after the horizon: the planner acts on them if and only if a terminal value tells of them."""

    def step(params, key, state, action):
        return state + action, Prediction(-0.01 * jnp.sum(action**2), jnp.ones(()))

    unused = lambda *_: None  # noqa: E731
    model = WorldModel(unused, unused, unused, unused, step, lambda params, state: state)
    planner = planners.make((2, 1), -1.0, 1.0, planners.cem.Config(population=200, elites=20, iterations=8))

    def act(value):
        objective = receding.objective(model, (), jnp.zeros(1), terminal_value=value)
        action, *_ = receding.control(jax.random.key(0), objective, planner.init(), planner=planner)
        return float(action[0])

    assert abs(act(None)) < 0.05
    assert act(lambda features: features[0]) > 0.8


def test_control_takes_the_first_action_and_shifts(key):
    planner = planners.make((4, 2), -1.0, 1.0, planners.icem.Config(population=20, elites=4, iterations=2))
    objective = lambda key, candidates: -jnp.sum((candidates - 0.3) ** 2, axis=(1, 2))  # noqa: E731
    solution, plan, info = planner.plan(key, objective, planner.init())
    action, shifted, info_too = receding.control(key, objective, planner.init(), planner=planner)
    np.testing.assert_allclose(action, solution[0], rtol=1e-6)
    np.testing.assert_allclose(shifted.mean[:-1], plan.mean[1:], rtol=1e-6)
    np.testing.assert_allclose(shifted.elites[:, :-1], plan.elites[:, 1:], rtol=1e-6)
    np.testing.assert_allclose(shifted.mean[-1], 0.0, atol=1e-7)
    np.testing.assert_allclose(info.score, info_too.score, rtol=1e-6)


def test_closed_loop_is_one_scan(key):
    """Drive a double integrator to the origin with CEM, replanning each step within one compiled scan."""

    def step(params, key, state, action):
        position, speed = state
        speed = speed + 0.2 * action[0]
        position = position + 0.2 * speed
        return jnp.stack([position, speed]), Prediction(-(position**2) - 0.1 * speed**2, jnp.ones(()))

    unused = lambda *_: None  # noqa: E731
    model = WorldModel(unused, unused, unused, unused, step, unused)
    planner = planners.make((12, 1), -2.0, 2.0, planners.cem.Config(population=100, elites=10, iterations=4))

    def drive(carry, key):
        state, plan = carry
        objective = receding.objective(model, (), state)
        action, plan, _ = receding.control(key, objective, plan, planner=planner)
        return (step((), key, state, action)[0], plan), state

    start = (jnp.asarray([1.0, 0.0]), planner.init())
    (final, _), _ = jax.jit(lambda keys: jax.lax.scan(drive, start, keys))(jax.random.split(key, 30))
    assert np.abs(final).max() < 0.1
