"""Receding horizon: plan with a world model, take the first action, shift the plan, plan again."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxmbrl import sharding
from jaxmbrl.planners.candidates import Objective
from jaxmbrl.types import Array, Key, Planner, Prediction, PyTree, WorldModel

TerminalValue: TypeAlias = Callable[[Array], Array]  # features of a belief of shape S -> values S


class Steering(NamedTuple):
    """How a planner's solution steers a rollout: actions themselves, or what is added to a policy.

    Attributes:
        controls: ``(solution [*S]) -> [H, C]``, what steers each step.
        action: ``(features, control [C]) -> action [A]``, or [*S, A] where each particle of a belief acts for itself.
    """

    controls: Callable[[Array], Array]
    action: Callable[[Array, Array], Array]


OPEN_LOOP = Steering(lambda solution: solution, lambda features, control: control)
"""The solution is the actions [H, A], whatever they lead to."""


def shift(plan: PyTree, fresh: PyTree, ndim: int = 2) -> PyTree:
    """Move a plan one step on in time.

    Args:
        plan: every leaf [..., *S], where the first axis of S is time.
        fresh: like ``plan``, most often ``planner.init()``; its last step fills the gap at the end.
        ndim: number of axes of S.

    Returns:
        The plan as the next step needs it: what was planned for t + 1 is now planned for t.
    """

    def move(old: Array, new: Array) -> Array:
        axis = old.ndim - ndim
        rest = jax.lax.slice_in_dim(old, 1, None, axis=axis)
        return jnp.concatenate([rest, jax.lax.slice_in_dim(new, -1, None, axis=axis)], axis=axis)

    return jax.tree.map(move, plan, fresh)


def control(
    key: Key, objective: Objective, plan: PyTree, *, planner: Planner, steering: Steering = OPEN_LOOP
) -> tuple[Array, PyTree, Any]:
    """Plan, and take the first step of the solution.

    Args:
        key: consumed.
        objective: ``(key, candidates [N, H, A]) -> scores [N]``.
        plan: the warm start; ``planner.init()`` at the start of an episode.
        planner: of solutions [H, A].
        steering: what makes actions of a solution, without a look at the state.

    Returns:
        The first action [A], the shifted plan for the next call, and the planner's info.
    """
    solution, plan, info = planner.plan(key, objective, plan)
    return steering.controls(solution)[0], shift(plan, planner.init(), solution.ndim), info


def discounted_return(
    params: PyTree,
    key: Key,
    state: PyTree,
    solution: Array,
    *,
    model: WorldModel,
    discount: float | Array = 1.0,
    terminal_value: TerminalValue | None = None,
    steering: Steering = OPEN_LOOP,
) -> Array:
    r"""The imagined return of one solution, averaged over the belief.

    :math:`\sum_{t=0}^{H-1} \gamma^t \left(\prod_{k<t} d_k\right) r_t + \gamma^H \left(\prod_{k<H} d_k\right) V(s_H)`

    where d is the model's prediction that the episode goes on. What lies beyond a certain end counts as 0, even
    where the model's prediction there is not finite.

    Args:
        params: the model's.
        key: consumed.
        state: the model's belief, of shape S: () for one state, [M, P/M] for a particle cloud.
        solution: [H, A], or whatever ``steering`` takes.
        model: the world model.
        discount: [], gamma.
        terminal_value: features -> values S, or None for 0.
        steering: how the solution acts.

    Returns:
        [], not finite where any particle's return is not.
    """

    def advance(key: Key, state: PyTree, control: Array) -> tuple[PyTree, Prediction]:
        return model.step(params, key, state, steering.action(model.features(params, state), control))

    controls = steering.controls(solution)
    beliefs = jax.eval_shape(advance, key, state, controls[0])[1].reward.shape
    weight = jnp.ones(beliefs, jnp.float32)  # gamma^t times the chance that the episode still runs

    def step(carry: tuple[PyTree, Array, Array], inputs: tuple[Key, Array]) -> tuple[tuple[PyTree, Array, Array], None]:
        state, weight, total = carry
        key, control = inputs
        state, prediction = advance(key, state, control)
        total += jnp.where(weight == 0, 0.0, weight * prediction.reward)
        return (state, weight * discount * prediction.discount, total), None

    start = (state, weight, jnp.zeros(beliefs, jnp.float32))
    (state, weight, total), _ = jax.lax.scan(step, start, (jax.random.split(key, len(controls)), controls))
    if terminal_value is not None:
        total += jnp.where(weight == 0, 0.0, weight * terminal_value(model.features(params, state)))
    return jnp.mean(total)


def objective(
    model: WorldModel,
    params: PyTree,
    state: PyTree,
    *,
    discount: float | Array = 1.0,
    terminal_value: TerminalValue | None = None,
    steering: Steering = OPEN_LOOP,
) -> Objective:
    """The objective of a planner that acts in ``state``: the imagined return of each solution.

    Args:
        model: the world model.
        params: the model's.
        state: the model's belief now, shared by all candidates.
        discount: [], gamma.
        terminal_value: features -> values of the belief's shape, or None for 0.
        steering: how a solution acts.

    Returns:
        ``(key, candidates [N, *S]) -> scores [N]``; a candidate with a particle whose return is not finite
        gets a score that is not finite, hence the worst.

    Differs from the papers: all candidates of a call share one key, so that the same noise meets each of them
    (common random numbers). It costs nothing, and differences between scores are then due to the actions.
    """
    score = functools.partial(
        discounted_return, model=model, discount=discount, terminal_value=terminal_value, steering=steering
    )

    def scores(key: Key, candidates: Array) -> Array:
        return sharding.vmap(score, in_axes=(None, None, None, 0))(params, key, state, candidates)

    return scores
