"""Planners: pure optimisers of any array of fixed shape, most often actions [H, A], under a batched objective.

    planner = planners.make((H, A), low, high, planners.cem.Config())
    solution, plan, info = planner.plan(key, objective, planner.init())

They know nothing of models; `receding` builds the objective from a world model and shifts the plan between steps.
"""

from types import ModuleType
from typing import Any

from jaxmbrl.config import ConfigError
from jaxmbrl.planners import cem, cmaes, es, gradient, icem, mppi, proposals, random_shooting, receding
from jaxmbrl.planners.candidates import Objective, PlanInfo
from jaxmbrl.types import Planner

__all__ = [
    "CONFIGS",
    "PLANNERS",
    "Objective",
    "PlanInfo",
    "cem",
    "cmaes",
    "es",
    "gradient",
    "icem",
    "make",
    "mppi",
    "proposals",
    "random_shooting",
    "receding",
]

PLANNERS: dict[str, ModuleType] = {
    "cem": cem,
    "cmaes": cmaes,
    "es": es,
    "gradient": gradient,
    "icem": icem,
    "mppi": mppi,
    "random_shooting": random_shooting,
}
CONFIGS: dict[str, type] = {name: module.Config for name, module in PLANNERS.items()}


def make(shape: tuple[int, ...], low: Any, high: Any, config: Any) -> Planner:
    """The planner whose ``Config`` this is.

    Args:
        shape: S of a solution; the first axis is time, where there is one.
        low: bounds that broadcast to S, for actions [A].
        high: like ``low``.
        config: one of `CONFIGS`.

    Raises:
        ConfigError: a config of no planner, or bad bounds.
    """
    for module in PLANNERS.values():
        if type(config) is module.Config:
            return module.make(shape, low, high, config)
    raise ConfigError(f"planner: got {config!r}, needs the Config of one of {', '.join(PLANNERS)}")
