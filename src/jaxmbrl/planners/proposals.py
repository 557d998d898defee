"""Plans around proposed actions: what is searched is how to mend them, what is carried over is what was planned.

    plan      residuals r [H, A]:  actions are the proposal + r, within the bounds
    carry     the residuals, moved on by a step, and the proposal that they mended
    resume    where the last plan reached, r = what was planned - what is proposed now, or the plan itself is what is
              proposed, should r be too large to be searched;  elsewhere r = 0

A proposal is made anew at each step, from where the last one led. Residuals that were carried over by themselves would
mend another proposal than the one they were found for, and throw a good plan away wherever the two differ.

Source: Wang and Ba 2019, arXiv:1906.08649, Sec. 4.1 (POPLIN-A). Its released code carries over residuals; a comment
there (``controllers/MPC.py``) doubts them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.planners.receding import OPEN_LOOP, Steering, shift
from jaxmbrl.types import Array, Planner, PyTree

SLACK = 1e-3  # of half the range: rounding is no lack of room


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


def resume(carried: Carried, proposal: Proposal) -> tuple[PyTree, Proposal]:
    """Go on from the last plan around a new proposal.

    What was planned, a, is now r away from what is proposed. A search that narrows towards its bounds, as CEM's does,
    could hardly move r where it is more than half way to them. There the plan takes the proposal's place, and r is 0;
    unless a is as near to a bound of the actions, as everywhere around the middle of these. So it does where the sum of
    the last proposal and residual was beyond those bounds: a step on, r would be pinned to them.

    Args:
        carried: the last plan; its first leaf is where a search starts.
        proposal: of the policy, for this step.

    Returns:
        The planner's warm start, and the proposal that it is around.
    """
    if not jax.tree.leaves(carried.plan):  # a planner that starts afresh
        return carried.plan, proposal
    actions, low, high = proposal
    half, known = (high - low) / 2, carried.planned[:, None]

    def planned(residual: Array) -> Array:
        return jnp.clip(carried.actions + residual, low, high)

    first = jax.tree.leaves(carried.plan)[0]
    start, beyond = planned(first), planned(first) != carried.actions + first
    room, enough = half - jnp.abs(start - actions), jnp.minimum(jnp.minimum(start - low, high - start), half / 2)
    actions = jnp.where(known & (beyond | (room < enough - SLACK * half)), start, actions)

    def moved(residual: Array) -> Array:
        return jnp.where(known, jnp.clip(planned(residual) - actions, -half, half), residual)

    return jax.tree.map(moved, carried.plan), proposal._replace(actions=actions)
