"""Planning by gradient: Adam on the score of several plans at once, the best one wins."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmbrl.config import configurable, option
from jaxmbrl.planners.candidates import WORST, Objective, PlanInfo, bounds, evaluate, report
from jaxmbrl.types import Array, Key, Planner


@configurable
class Config:
    """Options of `make`."""

    restarts: int = option(8, "plans that are improved side by side; the first is the warm start", low=1)
    iterations: int = option(50, "evaluations of the objective and its gradient", low=1)
    learning_rate: float = option(0.1, "first step of Adam, as a share of half the range; falls to 0", above=0.0)


class Plan(NamedTuple):
    """The warm start.

    Attributes:
        solution: [*S], where the first restart begins.
    """

    solution: Array


def init(*, low: Array, high: Array) -> Plan:
    """Start from the middle of the bounds."""
    return Plan((low + high) / 2)


def ascend(objective: Objective, key: Key, candidates: Array) -> tuple[Array, Array]:
    """Scores [N], and the gradient [N, *S] of each with respect to its own candidate.

    The gradient of the sum is every candidate's own gradient, as no score depends on another candidate. A
    candidate whose score or gradient is not finite gets the gradient 0, and leaves the others alone.
    """

    def total(candidates: Array) -> tuple[Array, Array]:
        scores = evaluate(objective, key, candidates)
        return jnp.sum(jnp.where(scores > WORST, scores, 0.0)), scores

    gradients, scores = jax.grad(total, has_aux=True)(candidates)
    finite = jnp.all(jnp.isfinite(gradients), axis=tuple(range(1, gradients.ndim)), keepdims=True)
    return scores, jnp.where(finite, gradients, 0.0)


class _Search(NamedTuple):
    """Carry of the iterations; ``best`` and ``best_score`` are the best that each restart has visited."""

    candidates: Array
    optimiser: Any
    best: Array
    best_score: Array


def search(
    key: Key,
    objective: Objective,
    plan: Plan,
    *,
    low: Array,
    high: Array,
    restarts: int = 8,
    iterations: int = 50,
    learning_rate: float | Array = 0.1,
) -> tuple[Array, Plan, PlanInfo]:
    """Improve the warm start and ``restarts - 1`` uniform plans by projected Adam, with a cosine-shaped step size.

    Args:
        key: consumed; the objective gets a fresh key each iteration.
        objective: ``(key, candidates [N, *S]) -> scores [N]``, higher is better, differentiable, each score a
            function of its own candidate only.
        plan: the warm start.
        low: [*S].
        high: [*S].
        restarts: N.
        iterations: I.
        learning_rate: [], first step, as a share of half the range.

    Returns:
        The best plan [*S] that any restart has visited (so never worse than the warm start, if the objective is
        deterministic), the plan that holds it, and the info of each iteration.

    Source: Kingma and Ba 2015, arXiv:1412.6980; for planning in learned models, Bharadhwaj et al. 2020,
    arXiv:2004.08763.
    """
    half_range = (high - low) / 2
    adam = optax.adam(optax.cosine_decay_schedule(learning_rate, iterations))  # type: ignore[arg-type]

    def iterate(carry: _Search, key: Key) -> tuple[_Search, PlanInfo]:
        candidates = carry.candidates
        scores, gradients = ascend(objective, key, candidates)
        steps: Any
        steps, optimiser = adam.update(-gradients * half_range, carry.optimiser)  # Adam minimises
        better = scores > carry.best_score
        mask = better.reshape(-1, *(1,) * low.ndim)
        carry = _Search(
            candidates=jnp.clip(candidates + steps * half_range, low, high),
            optimiser=optimiser,
            best=jnp.where(mask, candidates, carry.best),
            best_score=jnp.where(better, scores, carry.best_score),
        )
        return carry, report(candidates, scores, low, high)

    key_restarts, key_iterations = jax.random.split(key)
    random = jax.random.uniform(key_restarts, (restarts - 1, *low.shape), minval=low, maxval=high)
    candidates = jnp.concatenate([plan.solution[None], random])
    start = _Search(candidates, adam.init(candidates), candidates, jnp.full(restarts, WORST, jnp.float32))
    carry, info = jax.lax.scan(iterate, start, jax.random.split(key_iterations, iterations))
    solution = carry.best[jnp.argmax(carry.best_score)]
    return solution, Plan(solution), info


def make(shape: tuple[int, ...], low: Any, high: Any, config: Config) -> Planner:
    """A gradient `Planner` of arrays of ``shape`` within bounds that broadcast to it."""
    low, high = bounds(shape, low, high)
    return Planner(
        init=functools.partial(init, low=low, high=high),
        plan=functools.partial(
            search,
            low=low,
            high=high,
            restarts=config.restarts,
            iterations=config.iterations,
            learning_rate=jnp.asarray(config.learning_rate, jnp.float32),
        ),
    )
