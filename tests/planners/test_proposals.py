"""A plan around a proposal is handed on as actions: the next proposal changes what is added, not what is done."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import planners
from jaxmbrl.planners import cem, proposals, receding
from jaxmbrl.planners.proposals import Proposal

HORIZON, LOW, HIGH = 5, np.array([-1.0, 0.0], np.float32), np.array([1.0, 4.0], np.float32)
HALF, MIDDLE = (HIGH - LOW) / 2, (HIGH + LOW) / 2


def proposal(seed):
    """Actions, some of them at the bounds."""
    actions = np.random.default_rng(seed).uniform(LOW - HALF, HIGH + HALF, (HORIZON, 2))
    return Proposal(jnp.asarray(np.clip(actions, LOW, HIGH), jnp.float32), LOW, HIGH)


def planner_of(config):
    return planners.make((HORIZON, 2), -HALF, HALF, config)


def carried(planner, first, seed=0):
    """A plan with residuals of any size, around ``first``, and the actions [.., H - 1, 2] that each leaf plans next."""
    fresh, rng = planner.init(), np.random.default_rng(seed)
    plan = type(fresh)(*(jnp.asarray(rng.uniform(-HALF, HALF, leaf.shape), jnp.float32) for leaf in fresh))
    planned = [np.clip(first.actions + leaf, LOW, HIGH)[..., 1:, :] for leaf in plan]
    return proposals.carry(receding.shift(plan, fresh), first), planned


@pytest.mark.parametrize("name", ["cem", "icem", "mppi", "gradient"])
def test_what_was_planned_is_planned_around_the_next_proposal(name):
    planner, first, second = planner_of(planners.CONFIGS[name]()), proposal(1), proposal(2)
    memory, planned = carried(planner, first)
    plan, around = proposals.resume(memory, second)
    np.testing.assert_allclose(around.actions[:-1] + plan[0][:-1], planned[0], atol=1e-6)
    for leaf, wanted in zip(plan, planned, strict=True):  # others, such as elites, as near as residuals reach
        reach = np.clip(wanted, around.actions[:-1] - HALF, around.actions[:-1] + HALF)
        np.testing.assert_allclose(around.actions[:-1] + leaf[..., :-1, :], reach, atol=1e-6)
        np.testing.assert_array_equal(leaf[..., -1, :], 0.0)  # nothing was planned there: the proposal itself
    np.testing.assert_array_equal(around.actions[-1], second.actions[-1])
    replaced = np.asarray(around.actions != second.actions)
    assert 0.1 < replaced.mean() < 0.9
    np.testing.assert_array_equal(around.actions[replaced], planned[0][replaced[:-1]])
    room, enough = HALF - np.abs(plan[0][:-1]), np.minimum(np.minimum(planned[0] - LOW, HIGH - planned[0]), HALF / 2)
    assert np.all(room >= enough - 2e-3 * HALF)


def test_around_the_middle_a_plan_keeps_its_residuals():
    """As PETS: what is proposed is never replaced."""
    planner = planner_of(cem.Config())
    middle = Proposal(jnp.broadcast_to(MIDDLE, (HORIZON, 2)), LOW, HIGH)
    memory, _ = carried(planner, middle)
    plan, around = proposals.resume(memory, middle)
    np.testing.assert_array_equal(around.actions, middle.actions)
    np.testing.assert_allclose(plan.mean, memory.plan.mean, atol=1e-6)


def test_an_episode_begins_at_what_is_proposed():
    for name in planners.PLANNERS:
        planner, first = planner_of(planners.CONFIGS[name]()), proposal(3)
        plan, around = proposals.resume(proposals.init(planner, (HORIZON, 2)), first)
        np.testing.assert_array_equal(around.actions, first.actions)
        for leaf in jax.tree.leaves(plan):
            np.testing.assert_array_equal(leaf, 0.0)


def test_cem_can_leave_a_plan_that_is_far_from_the_proposal(key):
    """The old plan is +0.9, the policy says -0.9, the best is -0.5: a residual at its bound could not move."""
    planner = planners.make((HORIZON, 1), -1.0, 1.0, cem.Config(population=200, elites=20, iterations=8))
    old, new = (Proposal(jnp.full((HORIZON, 1), value), -1.0, 1.0) for value in (0.9, -0.9))
    memory = proposals.carry(planner.init(), old)
    for step_key in jax.random.split(key, 2):
        plan, around = proposals.resume(memory, new)
        steering = proposals.around(around)

        def objective(key, candidates, steering=steering):
            return -jnp.sum((jax.vmap(steering.controls)(candidates) + 0.5) ** 2, axis=(1, 2))

        solution, plan, _ = planner.plan(step_key, objective, plan)
        memory = proposals.carry(receding.shift(plan, planner.init()), around)
    np.testing.assert_allclose(steering.controls(solution), -0.5, atol=0.05)


def test_a_plan_beyond_the_bounds_can_come_back(key):
    """A saturated policy and residuals that push on: pinned to the bound, every action of the plan would stay there."""
    planner = planners.make((HORIZON, 1), -1.0, 1.0, cem.Config(population=200, elites=20, iterations=8))
    policy = Proposal(jnp.zeros((HORIZON, 1)), -1.0, 1.0)
    pushed = planner.init()._replace(mean=jnp.full((HORIZON, 1), 0.9))
    memory = proposals.carry(
        receding.shift(pushed, planner.init()), policy._replace(actions=jnp.full((HORIZON, 1), 0.8))
    )
    plan, around = proposals.resume(memory, policy)
    np.testing.assert_array_equal(around.actions[:-1], 1.0)
    np.testing.assert_array_equal(plan.mean, 0.0)
    steering = proposals.around(around)
    solution, *_ = planner.plan(
        key, lambda key, candidates: -jnp.sum(jax.vmap(steering.controls)(candidates), axis=(1, 2)), plan
    )
    assert np.all(steering.controls(solution)[:-1] < 0.5)
