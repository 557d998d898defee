"""Model-predictive control with a learned model: the composition that PETS and random shooting share.

each epoch:  fit the model, and the terminal value and the prior where there are any, to all data
each step:  plan from the model's belief, take the first action, shift the plan

A prior is a policy, cloned from the steps that were planned. It proposes actions along its own imagined rollout, and
what is planned is how to mend them: POPLIN-A of Wang and Ba 2019 (arXiv:1906.08649, Sec. 4.1), for any planner. Actions
that were planned are carried over, whatever is proposed next (`planners.proposals`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxmbrl import planners
from jaxmbrl import replay as replays
from jaxmbrl.config import ConfigError, configurable
from jaxmbrl.models import ensemble, fitting, rollouts, simulator
from jaxmbrl.models.ensemble import Predictors
from jaxmbrl.models.fitting import Fitter, State
from jaxmbrl.planners import proposals, receding
from jaxmbrl.planners.candidates import supported
from jaxmbrl.planners.proposals import Proposal
from jaxmbrl.policies import imitation
from jaxmbrl.policies.demonstrations import Pairs
from jaxmbrl.policies.imitation import Student
from jaxmbrl.replay import Replay
from jaxmbrl.types import Agent, Array, Box, Environment, Key, Metrics, Planner, PyTree, Spec, TimeStep, WorldModel
from jaxmbrl.values import state_value
from jaxmbrl.values.state_value import StateValue


@configurable
class NoPrior:
    """Plans are not around any policy's."""


MODELS: dict[str, type] = {"ensemble": ensemble.Config, "simulator": simulator.Config}
PRIORS: dict[str, type] = {"none": NoPrior, "cloned": imitation.Config}


class AgentState(NamedTuple):
    """What learns: the model's `fitting.State`; the terminal value's state and the prior's, () where there is none."""

    model: State
    value: PyTree
    prior: PyTree = ()


class Prior(NamedTuple):
    """A policy that proposes actions, how it learns, their bounds, and how many it proposes (H)."""

    student: Student
    config: imitation.Config
    box: Box
    horizon: int


class Problem(NamedTuple):
    """What is planned at a step: the objective, how a solution acts, where to start, around what; what is stored."""

    objective: planners.Objective
    steering: receding.Steering
    start: PyTree
    proposal: Proposal | None
    extras: Any


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


class Whole(Parts, Protocol):
    """Those, what counts beyond the horizon, and what plans are around: the fields for `make`."""

    @property
    def terminal_value(self) -> Any: ...  # noqa: D102
    @property
    def prior(self) -> Any: ...  # noqa: D102


def make(spec: Spec, config: Whole, *, env: Environment | None = None) -> Agent:
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
    box, prior = spec.box, None
    if isinstance(config.prior, imitation.Config):
        prior = Prior(imitation.student(spec, config.prior), config.prior, spec.box, config.horizon)
        half = (box.high - box.low) / 2
        box = Box(-half, half)
    planner = planners.make((config.horizon, box.size), box.low, box.high, config.planner)
    parts = world(spec, config, env=env)
    agent = compose(*parts, planner, discount=config.discount, terminal_value=value, prior=prior)
    return agent._replace(predictors=predictors(spec, config))


def world(spec: Spec, config: Parts, *, env: Environment | None = None) -> tuple[WorldModel, Fitter]:
    """The model that ``config`` plans on, and how it learns. Raises ConfigError as `make` does."""
    if isinstance(config.model, simulator.Config):
        if env is None:
            raise ConfigError("model: got simulator, needs the environment: pass env=")
        true = simulator.make(env)
        return true, fitting.nothing(true)
    model = ensemble.make(spec, config.model)
    return model.world, fitting.make(model, config.fit)


def predictors(spec: Spec, config: Parts) -> Callable[[Any], Predictors] | None:
    """The field of `Agent`; None where nothing is learned."""
    if isinstance(config.model, simulator.Config):
        return None
    model = ensemble.make(spec, config.model)
    return lambda agent_state: ensemble.predictors(model, agent_state.model.params)


def compose(
    world: WorldModel,
    fitter: Fitter,
    planner: Planner,
    *,
    discount: float | Array = 1.0,
    terminal_value: StateValue | None = None,
    prior: Prior | None = None,
) -> Agent:
    """An agent that plans on ``world`` at every step.

    Args:
        world: the model to plan on; its parameters are those that ``fitter`` keeps.
        fitter: how the model learns; `fitting.nothing` for one that needs no learning.
        planner: of action sequences [H, A]; with a prior, of what is added to its actions.
        discount: [], gamma of the planned return.
        terminal_value: of the last imagined features (`state_value.make`, `state_value.known`), or None for 0.
        prior: a policy that plans are around, or None.
    """

    def init(key: Key) -> AgentState:
        key_model, key_value, key_prior = jax.random.split(key, 3)
        return AgentState(
            fitter.init(key_model),
            terminal_value.init(key_value) if terminal_value else (),
            imitation.init(prior.student, prior.config, key_prior) if prior else (),
        )

    def memory(agent_state: AgentState, key: Key) -> PyTree:
        return proposals.init(planner, (prior.horizon, prior.box.size)) if prior else planner.init()

    problem = partial(_problem, world, discount, terminal_value, prior)
    act, plan = partial(_act, problem, planner), partial(_plan, problem, planner, memory)
    fit = partial(_fit, fitter, terminal_value, prior)
    return Agent(init, memory, act, fit, _improve, plan=plan)


def _act(
    problem: Callable[..., Problem],
    planner: Planner,
    agent_state: AgentState,
    key: Key,
    memory: PyTree,
    timestep: TimeStep,
    *,
    explore: bool,
) -> tuple[Array, PyTree, Any]:
    del explore  # what is uncertain explores by itself: the planner's samples are the only noise
    key_start, key_plan, key_propose = jax.random.split(key, 3)
    objective, steering, start, proposal, extras = problem(agent_state, key_start, key_propose, memory, timestep)
    action, plan, info = receding.control(key_plan, objective, start, planner=planner, steering=steering)
    return supported(action, info), proposals.carry(plan, proposal) if proposal else plan, extras


def _plan(
    problem: Callable[..., Problem],
    planner: Planner,
    memory: Callable[[AgentState, Key], PyTree],
    agent_state: AgentState,
    key: Key,
    timestep: TimeStep,
    *,
    world: WorldModel | None = None,
) -> Array:
    """What is planned from ``timestep`` on, without a warm start: actions [H, A]."""
    key_start, key_plan, key_propose = jax.random.split(key, 3)
    fresh = memory(agent_state, key)
    objective, steering, start, *_ = problem(agent_state, key_start, key_propose, fresh, timestep, judge=world)
    solution, _, _ = planner.plan(key_plan, objective, start)
    return steering.controls(solution)


def _problem(
    world: WorldModel,
    discount: float | Array,
    terminal_value: StateValue | None,
    prior: Prior | None,
    agent_state: AgentState,
    key_start: Key,
    key_propose: Key,
    memory: PyTree,
    timestep: TimeStep,
    *,
    judge: WorldModel | None = None,
) -> Problem:
    """What there is to plan; ``judge``, a model without parameters, scores plans in place of the learned one."""
    params = agent_state.model.params
    belief = world.start(params, key_start, timestep)
    value = partial(terminal_value.value, agent_state.value) if terminal_value else None
    steering, start, proposal, extras = receding.OPEN_LOOP, memory, None, ()
    if prior:
        answer = partial(prior.student.action, agent_state.prior.params)
        actions = rollouts.propose(world, params, key_propose, belief, answer, prior.horizon)
        start, proposal = proposals.resume(memory, Proposal(actions, prior.box.low, prior.box.high))
        steering, extras = proposals.around(proposal), jnp.array(True)
    if judge:
        world, params, belief = judge, (), judge.start((), key_start, timestep)
    objective = receding.objective(world, params, belief, discount=discount, terminal_value=value, steering=steering)
    return Problem(objective, steering, start, proposal, extras)


def _fit(
    fitter: Fitter,
    terminal_value: StateValue | None,
    prior: Prior | None,
    agent_state: AgentState,
    key: Key,
    replay: Replay,
) -> tuple[AgentState, Metrics]:
    key_model, key_value, key_prior = jax.random.split(key, 3)
    model, metrics = fitter.fit(agent_state.model, key_model, replay)
    agent_state = agent_state._replace(model=model)
    if terminal_value:
        value, more = terminal_value.fit(agent_state.value, key_value, replay)
        agent_state, metrics = agent_state._replace(value=value), metrics | more
    if prior:
        cloned, more = _clone(prior, agent_state.prior, key_prior, replay)
        agent_state, metrics = agent_state._replace(prior=cloned), metrics | more
    return agent_state, metrics


def _clone(prior: Prior, state: imitation.State, key: Key, replay: Replay) -> tuple[imitation.State, Metrics]:
    """Fit the prior to the steps that were planned: their ``extras`` is true, that of random steps false."""
    data, filled = replays.flatten(replay)
    weight = (filled & data.extras).astype(jnp.float32)
    return imitation.fit(prior.student, prior.config, state, key, Pairs(data.obs, data.action, weight))


def _improve(agent_state: AgentState, key: Key, replay: Replay) -> tuple[AgentState, Metrics]:
    return agent_state, {}
