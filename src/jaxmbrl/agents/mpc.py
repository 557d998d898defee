"""Model-predictive control with a learned model: the composition that PETS and random shooting share.

each epoch:  fit the model to all data
each step:  plan from the model's belief, take the first action, shift the plan
"""

from functools import partial
from typing import Any, Protocol

import jax

from jaxmbrl import planners
from jaxmbrl.config import ConfigError
from jaxmbrl.models import ensemble, fitting, simulator
from jaxmbrl.models.fitting import Fitter, State
from jaxmbrl.planners import receding
from jaxmbrl.replay import Replay
from jaxmbrl.types import Agent, Array, Environment, Key, Metrics, Planner, PyTree, Spec, TimeStep, WorldModel

MODELS: dict[str, type] = {"ensemble": ensemble.Config, "simulator": simulator.Config}


class Parts(Protocol):
    """The fields that the Config of a system made by `make` has."""

    @property
    def horizon(self) -> int: ...  # noqa: D102
    @property
    def discount(self) -> float: ...  # noqa: D102
    @property
    def model(self) -> Any: ...  # noqa: D102
    @property
    def fit(self) -> fitting.Config: ...  # noqa: D102
    @property
    def planner(self) -> Any: ...  # noqa: D102


def make(spec: Spec, config: Parts, *, env: Environment | None = None) -> Agent:
    """Bind the composition to an environment.

    Args:
        spec: of an environment with vector observations and continuous actions.
        config: the system's ``Config``.
        env: the environment itself, needed only to plan on the true simulator.

    Raises:
        ConfigError: if the simulator is asked for without ``env``, or as `one_step.make` does.
    """
    planner = planners.make((config.horizon, spec.box.size), spec.box.low, spec.box.high, config.planner)
    return compose(*world(spec, config, env=env), planner, discount=config.discount)


def world(spec: Spec, config: Parts, *, env: Environment | None = None) -> tuple[WorldModel, Fitter]:
    """The model that ``config`` plans on, and how it learns. Raises ConfigError as `make` does."""
    if isinstance(config.model, simulator.Config):
        if env is None:
            raise ConfigError("model: got simulator, needs the environment: pass env=")
        true = simulator.make(env)
        return true, fitting.nothing(true)
    model = ensemble.make(spec, config.model)
    return model.world, fitting.make(model, config.fit)


def compose(
    world: WorldModel,
    fitter: Fitter,
    planner: Planner,
    *,
    discount: float | Array = 1.0,
    terminal_value: receding.TerminalValue | None = None,
) -> Agent:
    """An agent that plans on ``world`` at every step.

    Args:
        world: the model to plan on; its parameters are those that ``fitter`` keeps.
        fitter: how the model learns; `fitting.nothing` for one that needs no learning.
        planner: of action sequences [H, A].
        discount: [], gamma of the planned return.
        terminal_value: values of the last imagined features, or None for 0.
    """
    act = partial(_act, world, planner, discount, terminal_value)
    return Agent(fitter.init, lambda agent_state, key: planner.init(), act, fitter.fit, _improve)


def _act(
    world: WorldModel,
    planner: Planner,
    discount: float | Array,
    terminal_value: receding.TerminalValue | None,
    agent_state: State,
    key: Key,
    memory: PyTree,
    timestep: TimeStep,
    *,
    explore: bool,
) -> tuple[Array, PyTree, Any]:
    del explore  # what is uncertain explores by itself: the planner's samples are the only noise
    key_start, key_plan = jax.random.split(key)
    belief = world.start(agent_state.params, key_start, timestep)
    objective = receding.objective(world, agent_state.params, belief, discount=discount, terminal_value=terminal_value)
    action, plan, _ = receding.control(key_plan, objective, memory, planner=planner)
    return action, plan, ()


def _improve(agent_state: State, key: Key, replay: Replay) -> tuple[State, Metrics]:
    return agent_state, {}
