"""Model-predictive control with a learned model: the composition that PETS and random shooting share.

each epoch:  fit the model, and the terminal value if there is one, to all data
each step:  plan from the model's belief, take the first action, shift the plan
"""

from functools import partial
from typing import Any, NamedTuple, Protocol

import jax

from jaxmbrl import planners
from jaxmbrl.config import ConfigError
from jaxmbrl.models import ensemble, fitting, simulator
from jaxmbrl.models.fitting import Fitter, State
from jaxmbrl.planners import receding
from jaxmbrl.replay import Replay
from jaxmbrl.types import Agent, Array, Environment, Key, Metrics, Planner, PyTree, Spec, TimeStep, WorldModel
from jaxmbrl.values import state_value
from jaxmbrl.values.state_value import StateValue

MODELS: dict[str, type] = {"ensemble": ensemble.Config, "simulator": simulator.Config}


class AgentState(NamedTuple):
    """What learns: the model's `fitting.State`, and the terminal value's state, () without one."""

    model: State
    value: PyTree


class Parts(Protocol):
    """The fields that the Config of a system that plans on a learned model has."""

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


class Valued(Parts, Protocol):
    """Those, and what counts beyond the horizon: the fields that the Config of a system made by `make` has."""

    @property
    def terminal_value(self) -> Any: ...  # noqa: D102


def make(spec: Spec, config: Valued, *, env: Environment | None = None) -> Agent:
    """Bind the composition to an environment.

    Args:
        spec: of an environment with vector observations and continuous actions.
        config: the system's ``Config``.
        env: the environment itself, needed only to plan on the true simulator.

    Raises:
        ConfigError: if the simulator is asked for without ``env``, or as `one_step.make` does.
    """
    learns_value = isinstance(config.terminal_value, state_value.Config)
    value = state_value.make(spec, config.terminal_value) if learns_value else None
    planner = planners.make((config.horizon, spec.box.size), spec.box.low, spec.box.high, config.planner)
    return compose(*world(spec, config, env=env), planner, discount=config.discount, terminal_value=value)


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
    terminal_value: StateValue | None = None,
) -> Agent:
    """An agent that plans on ``world`` at every step.

    Args:
        world: the model to plan on; its parameters are those that ``fitter`` keeps.
        fitter: how the model learns; `fitting.nothing` for one that needs no learning.
        planner: of action sequences [H, A].
        discount: [], gamma of the planned return.
        terminal_value: of the last imagined features (`state_value.make`, `state_value.known`), or None for 0.
    """

    def init(key: Key) -> AgentState:
        key_model, key_value = jax.random.split(key)
        return AgentState(fitter.init(key_model), terminal_value.init(key_value) if terminal_value else ())

    act = partial(_act, world, planner, discount, terminal_value)
    fit = partial(_fit, fitter, terminal_value)
    return Agent(init, lambda agent_state, key: planner.init(), act, fit, _improve)


def _act(
    world: WorldModel,
    planner: Planner,
    discount: float | Array,
    terminal_value: StateValue | None,
    agent_state: AgentState,
    key: Key,
    memory: PyTree,
    timestep: TimeStep,
    *,
    explore: bool,
) -> tuple[Array, PyTree, Any]:
    del explore  # what is uncertain explores by itself: the planner's samples are the only noise
    key_start, key_plan = jax.random.split(key)
    params = agent_state.model.params
    belief = world.start(params, key_start, timestep)
    value = partial(terminal_value.value, agent_state.value) if terminal_value else None
    objective = receding.objective(world, params, belief, discount=discount, terminal_value=value)
    action, plan, _ = receding.control(key_plan, objective, memory, planner=planner)
    return action, plan, ()


def _fit(
    fitter: Fitter, terminal_value: StateValue | None, agent_state: AgentState, key: Key, replay: Replay
) -> tuple[AgentState, Metrics]:
    key_model, key_value = jax.random.split(key)
    model, metrics = fitter.fit(agent_state.model, key_model, replay)
    if terminal_value is None:
        return agent_state._replace(model=model), metrics
    value, value_metrics = terminal_value.fit(agent_state.value, key_value, replay)
    return AgentState(model, value), metrics | value_metrics


def _improve(agent_state: AgentState, key: Key, replay: Replay) -> tuple[AgentState, Metrics]:
    return agent_state, {}
