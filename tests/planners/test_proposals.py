"""A plan around a proposal is handed on as actions: the next proposal changes what is added, not what is done."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import planners
from jaxmbrl.planners import proposals
from jaxmbrl.planners.proposals import Proposal

HORIZON, LOW, HIGH = 4, np.array([-1.0, 0.0], np.float32), np.array([1.0, 4.0], np.float32)
HALF = (HIGH - LOW) / 2


def proposal(seed):
    return Proposal(jnp.asarray(np.random.default_rng(seed).uniform(LOW, HIGH, (HORIZON, 2)), jnp.float32), LOW, HIGH)


def planner_of(config):
    return planners.make((HORIZON, 2), -HALF, HALF, config)


@pytest.mark.parametrize("name", ["cem", "icem", "mppi", "gradient"])
def test_what_was_planned_is_planned_around_the_next_proposal(name):
    planner, rng = planner_of(planners.CONFIGS[name]()), np.random.default_rng(0)
    first, second = proposal(1), proposal(2)
    fresh = planner.init()
    plan = type(fresh)(*(jnp.asarray(rng.uniform(-HALF, HALF, leaf.shape), jnp.float32) for leaf in fresh))
    shifted = planners.receding.shift(plan, fresh)
    resumed = proposals.resume(proposals.carry(shifted, first), second)
    for old, new in zip(plan, resumed, strict=True):
        planned = np.clip(first.actions + old, LOW, HIGH)[..., 1:, :]
        wanted = np.clip(planned, second.actions[:-1] - HALF, second.actions[:-1] + HALF)  # as near as residuals reach
        np.testing.assert_allclose(second.actions[:-1] + new[..., :-1, :], wanted, atol=1e-6)
        np.testing.assert_array_equal(new[..., -1, :], 0.0)  # nothing was planned there: the proposal itself
        assert np.mean(wanted == planned) > 0.5 and np.mean(np.abs(new[..., :-1, :] - old[..., 1:, :])) > 0.1


def test_an_episode_begins_at_what_is_proposed():
    for name in ("cem", "icem"):
        planner = planner_of(planners.CONFIGS[name]())
        for leaf in proposals.resume(proposals.init(planner, (HORIZON, 2)), proposal(3)):
            np.testing.assert_array_equal(leaf, 0.0)
