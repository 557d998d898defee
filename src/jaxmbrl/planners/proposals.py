"""Plans around proposed actions: what is searched is how to mend them, what is carried over is what was planned.

    plan      residuals r [H, A]:  actions are the proposal + r, within the bounds
    carry     the residuals, moved on by a step, and the proposal that they mended
    resume    where the last plan reached:  r = what was planned - what is proposed now;  elsewhere r = 0

A proposal is made anew at each step, from where the last one led. Residuals that were carried over by themselves would
mend another proposal than the one they were found for, and throw a good plan away wherever the two differ.

Source: Wang and Ba 2019, arXiv:1906.08649, Sec. 4.1 (POPLIN-A), whose released code carries over residuals; it notes
itself that they are not very good.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.planners.receding import OPEN_LOOP, Steering, shift
from jaxmbrl.types import Array, Planner, PyTree


class Proposal(NamedTuple):
    """Actions [H, A], within the bounds ``low`` and ``high`` [A], that a plan is to mend."""

    actions: Array
    low: Any
    high: Any


class Carried(NamedTuple):
    """The warm start of a search around a proposal.

    Attributes:
        plan: the planner's, every leaf [..., H, A] residuals from ``actions``.
        actions: [H, A], what was planned around.
        planned: bool [H], whether the last plan reached that step.
    """

    plan: PyTree
    actions: Array
    planned: Array


def around(proposal: Proposal) -> Steering:
    """A solution is what is added to the proposed actions."""
    return Steering(
        lambda solution: jnp.clip(proposal.actions + solution, proposal.low, proposal.high), OPEN_LOOP.action
    )


def init(planner: Planner, shape: tuple[int, int]) -> Carried:
    """Nothing planned as yet, of ``shape`` (H, A)."""
    return Carried(planner.init(), jnp.zeros(shape), jnp.zeros(shape[0], bool))


def carry(plan: PyTree, proposal: Proposal) -> Carried:
    """What the next step may go on from: a plan, already moved on by a step (`receding.shift`), and what it mends."""
    horizon = len(proposal.actions)
    return Carried(plan, shift(proposal.actions, proposal.actions), jnp.arange(horizon) < horizon - 1)


def resume(carried: Carried, proposal: Proposal) -> PyTree:
    """The planner's warm start: what was planned, as residuals from a new proposal, within half the actions' range."""
    actions, low, high = proposal
    half = (high - low) / 2

    def residual(old: Array) -> Array:
        planned = jnp.clip(carried.actions + old, low, high)
        return jnp.where(carried.planned[:, None], jnp.clip(planned - actions, -half, half), old)

    return jax.tree.map(residual, carried.plan)
