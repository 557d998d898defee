"""Classic control in pure JAX: each task is a few pure functions of physical parameters that may be traced."""

from typing import Any

from jaxmbrl.config import ConfigError
from jaxmbrl.envs.classic import (
    acrobot,
    cartpole,
    cartpole_swingup,
    linear_quadratic,
    mountain_car,
    pendulum,
    reacher,
)
from jaxmbrl.envs.classic.task import USUAL, Task, bind
from jaxmbrl.types import Environment

__all__ = ["NAMES", "TASKS", "Task", "bind", "episode_length", "linear_quadratic", "make", "options"]

TASKS: dict[str, Task] = {
    module.TASK.name: module.TASK for module in (acrobot, cartpole, cartpole_swingup, mountain_car, pendulum, reacher)
}
NAMES: tuple[str, ...] = tuple(sorted([*TASKS, "linear_quadratic"]))

_LINEAR_QUADRATIC: dict[str, Any] = dict(linear_quadratic.random_system.__kwdefaults__ or {})
_AT_LEAST = {"state_size": 1, "action_size": 1, "seed": 0, "spectral_radius": 0.0}


def options(name: str) -> dict[str, Any]:
    """What `make` takes for a task, with the defaults.

    Physical parameters; ``reward``, the name of a reward, where there are others; for linear_quadratic, sizes too.
    """
    if name == "linear_quadratic":
        return dict(_LINEAR_QUADRATIC)
    task = TASKS[name]
    return {**task.parameters._asdict(), **({"reward": USUAL} if task.others else {})}


def episode_length(name: str) -> int:
    """Steps of an episode of a task by default."""
    return linear_quadratic.EPISODE_LENGTH if name == "linear_quadratic" else TASKS[name].episode_length


def make(name: str, **options: Any) -> Environment:
    """Make a classic task, as yet without a time limit.

    Args:
        name: one of `NAMES`.
        **options: some of `options`; floats may be tracers.

    Raises:
        ConfigError: a parameter is out of its bounds, or there is no such reward.
    """
    positive = ("action_cost",) if name == "linear_quadratic" else TASKS[name].positive
    for option, value in options.items():
        if not isinstance(value, int | float):  # an array or a tracer: unknown until it runs
            continue
        if option in positive and value <= 0:
            raise ConfigError(f"env.{option}: got {value!r}, needs a number above 0")
        if value < _AT_LEAST.get(option, value):
            raise ConfigError(f"env.{option}: got {value!r}, needs at least {_AT_LEAST[option]}")
    if name == "linear_quadratic":
        return linear_quadratic.make(linear_quadratic.random_system(**options))
    task, reward = TASKS[name], options.pop("reward", USUAL)
    if reward not in task.rewards:
        raise ConfigError(f"env.reward: got {reward!r}, needs one of {', '.join(task.rewards)}")
    return bind(task, task.parameters._replace(**options), reward)
