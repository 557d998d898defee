"""Random shooting: draw candidates uniformly within the bounds, take the best one."""

import functools
from typing import Any, NamedTuple

import jax

from jaxmbrl.config import configurable, option
from jaxmbrl.planners.candidates import Objective, PlanInfo, bounds, evaluate, report, select
from jaxmbrl.types import Array, Key, Planner


@configurable
class Config:
    """Options of `make`; the default is the paper's half-cheetah."""

    population: int = option(1000, "candidates", low=1)


class Plan(NamedTuple):
    """Nothing: every search starts afresh."""


def search(
    key: Key, objective: Objective, plan: Plan, *, low: Array, high: Array, population: int = 1000
) -> tuple[Array, Plan, PlanInfo]:
    """Find the best of ``population`` uniform candidates.

    Args:
        key: consumed.
        objective: ``(key, candidates [N, *S]) -> scores [N]``, higher is better.
        plan: nothing.
        low: [*S].
        high: [*S].
        population: N.

    Returns:
        The best candidate [*S], the plan, and the info of one iteration.

    Source: Nagabandi et al. 2017, section IV-C, arXiv:1708.02596.
    """
    key_candidates, key_objective = jax.random.split(key)
    candidates = jax.random.uniform(key_candidates, (population, *low.shape), minval=low, maxval=high)
    scores = evaluate(objective, key_objective, candidates)
    best = select(candidates, scores, 1)[0]
    info = report(candidates, scores, low, high)
    return best, plan, jax.tree.map(lambda leaf: leaf[None], info)


def make(shape: tuple[int, ...], low: Any, high: Any, config: Config) -> Planner:
    """A random shooting `Planner` of arrays of ``shape`` within bounds that broadcast to it."""
    low, high = bounds(shape, low, high)
    return Planner(Plan, functools.partial(search, low=low, high=high, population=config.population))
