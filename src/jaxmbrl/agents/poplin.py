"""POPLIN: planning around a policy, and distilling what was planned into it (Wang and Ba 2019, arXiv:1906.08649).

    fill the replay store with one episode of random actions
    each epoch:  fit the bootstrapped ensemble to all data, and the policy to what was planned
                 each step:  CEM on the imagined return, take the first action, shift the plan

What CEM searches is the variant: residuals of the actions that the policy proposes (A), along one imagined rollout
(INIT) or along each candidate's own (REPLAN); or perturbations of the policy's parameters (P), one a step (SEP) or one
for the whole horizon (UNI). What the policy learns is the distillation: the actions taken (AR, PR: ``real``), the
planned rollouts (AI, PI: ``imagined``), or the mean of the planned perturbations (P only: ``average``).

Differs from the paper: residuals stay within half the actions' range, actions within their bounds, perturbations within
two of their first standard deviations; the next step goes on from the planned actions (INIT), where the released code
carries over residuals of a proposal that is made anew (`planners.proposals`); imagined data are the planned rollouts,
where the released code keeps the elites' first actions; what cloning learns from is all that was ever planned;
averaging leaves the policy's inputs as they are, cloning normalises them. Not built: distillation by a GAN.
"""

import dataclasses
import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxmbrl import planners
from jaxmbrl import replay as replays
from jaxmbrl.agents import mpc, pets
from jaxmbrl.agents.presets import Preset, choose
from jaxmbrl.config import ConfigError, configurable, option
from jaxmbrl.models import ensemble, fitting, rollouts
from jaxmbrl.models.fitting import Fitter
from jaxmbrl.planners import cem, proposals, receding
from jaxmbrl.planners.candidates import supported
from jaxmbrl.planners.proposals import Proposal
from jaxmbrl.planners.receding import Steering
from jaxmbrl.policies import imitation
from jaxmbrl.policies.demonstrations import Pairs
from jaxmbrl.policies.imitation import Student
from jaxmbrl.replay import Replay
from jaxmbrl.types import Agent, Array, Environment, Key, Metrics, Planner, PyTree, Spec, TimeStep, WorldModel

VARIANTS = ("a_init", "a_replan", "p_sep", "p_uni")
DISTILLATIONS = ("real", "imagined", "average")


@configurable
class Config:
    """A model, a policy, and how CEM and distillation mend it; the released code's defaults."""

    variant: str = option("a_init", "what is searched", choices=VARIANTS)
    distillation: str = option("real", "what the policy learns from", choices=DISTILLATIONS)
    control: str = option("planner", "what acts where nothing is explored", choices=("planner", "policy"))
    horizon: int = option(30, "steps that are planned ahead (H)", low=1)
    discount: float = option(1.0, "of rewards along the plan, a step", low=0.0, high=1.0)
    deviation: float = option(math.sqrt(0.1), "standard deviation of the first perturbations of parameters", above=0.0)
    model: Any = option(ensemble.Config(propagation="expectation", particles=5), "planned on", parts=mpc.MODELS)
    fit: fitting.Config = option(fitting.Config(), "how the model learns")
    planner: cem.Config = option(cem.Config(), "how plans are found")
    policy: imitation.Config = option(imitation.Config(), "the policy, and how it learns from plans")

    def check(self) -> None:
        """Only perturbations of parameters can be averaged."""
        if self.distillation == "average" and self.variant.startswith("a_"):
            raise ConfigError(f"distillation: got average, needs real or imagined with variant {self.variant}")


class State(NamedTuple):
    """What is learned.

    Attributes:
        model: of the model's fitter.
        policy: of the policy's.
        fits: int32 [], number of fits so far.
    """

    model: PyTree
    policy: imitation.State
    fits: Array


class Planned(NamedTuple):
    """What is stored with a planned step; zeros with a random one.

    Attributes:
        fits: int32 [], number of fits at the time, from 1 on.
        lesson: for ``imagined`` the planned rollout's obs [H, O] and action [H, A]; for ``average`` the perturbation of
            this step [W]; for ``real`` nothing, since the transition says it all.
    """

    fits: Array
    lesson: PyTree


class _System(NamedTuple):
    """The static parts that the functions below are bound to."""

    spec: Spec
    config: Config
    world: WorldModel
    fitter: Fitter
    student: Student
    planner: Planner


def make(spec: Spec, config: Config | None = None, *, env: Environment | None = None) -> Agent:
    """Bind POPLIN to an environment. Raises ConfigError as `mpc.make` does."""
    config = config or Config()
    student = imitation.student(spec, config.policy)
    world, fitter = mpc.world(spec, config, env=env)
    system = _System(spec, config, world, fitter, student, _planner(spec, config, student))
    return Agent(
        init=partial(_init, system),
        memory=lambda agent_state, key: _memory(system),
        act=partial(_act, system),
        fit=partial(_fit, system),
        improve=lambda agent_state, key, replay: (agent_state, {}),
        predictors=mpc.predictors(spec, config),
    )


def _planner(spec: Spec, config: Config, student: Student) -> Planner:
    """A search of residuals [H, A], or of perturbations [H, W] or [W]; CEM's first deviation is half its bound."""
    if config.variant.startswith("a_"):
        half = (spec.box.high - spec.box.low) / 2
        return planners.make((config.horizon, spec.box.size), -half, half, config.planner)
    size = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(student.init, jax.random.key(0)).network))
    shape = (config.horizon, size) if config.variant == "p_sep" else (size,)
    return planners.make(shape, -2.0 * config.deviation, 2.0 * config.deviation, config.planner)


def _steering(system: _System, params: imitation.Params) -> Steering:
    """How a solution mends the policy as it acts, or its parameters."""
    box, horizon = system.spec.box, system.config.horizon
    weights, unravel = ravel_pytree(params.network)

    def mended(obs: Array, residual: Array) -> Array:
        return jnp.clip(system.student.action(params, obs) + residual, box.low, box.high)

    def perturbed(obs: Array, perturbation: Array) -> Array:
        return system.student.action(params._replace(network=unravel(weights + perturbation)), obs)

    each = partial(jnp.vectorize, signature="(o),(c)->(a)")  # every particle of a belief acts for itself
    return {
        "a_replan": Steering(lambda solution: solution, each(mended)),
        "p_sep": Steering(lambda solution: solution, each(perturbed)),
        "p_uni": Steering(lambda solution: jnp.broadcast_to(solution, (horizon, len(weights))), each(perturbed)),
    }[system.config.variant]


def _init(system: _System, key: Key) -> State:
    key_model, key_policy = jax.random.split(key)
    policy = imitation.init(system.student, system.config.policy, key_policy)
    return State(system.fitter.init(key_model), policy, jnp.zeros((), jnp.int32))


def _memory(system: _System) -> PyTree:
    if system.config.variant == "a_init":
        return proposals.init(system.planner, (system.config.horizon, system.spec.box.size))
    return system.planner.init()


def _act(
    system: _System, agent_state: State, key: Key, memory: PyTree, timestep: TimeStep, *, explore: bool
) -> tuple[Array, PyTree, Any]:
    params = agent_state.policy.params
    if system.config.control == "policy" and not explore:
        return system.student.action(params, timestep.obs), memory, ()
    key_start, key_plan, key_propose, key_lesson = jax.random.split(key, 4)  # the first three as `mpc` splits them
    belief = system.world.start(agent_state.model.params, key_start, timestep)
    proposal, plan = None, memory
    if system.config.variant == "a_init":
        answer, horizon, box = partial(system.student.action, params), system.config.horizon, system.spec.box
        actions = rollouts.propose(system.world, agent_state.model.params, key_propose, belief, answer, horizon)
        plan, proposal = proposals.resume(memory, Proposal(actions, box.low, box.high))
        steering = proposals.around(proposal)
    else:
        steering = _steering(system, params)
    objective = receding.objective(
        system.world, agent_state.model.params, belief, discount=system.config.discount, steering=steering
    )
    solution, plan, info = system.planner.plan(key_plan, objective, plan)
    if system.config.variant != "p_uni":  # its solution has no axis of time
        plan = receding.shift(plan, system.planner.init(), solution.ndim)
    if proposal is not None:
        plan = proposals.carry(plan, proposal)
    action = steering.action(timestep.obs, steering.controls(solution)[0])
    lesson = _lesson(system, agent_state, key_lesson, belief, steering, solution)
    return supported(action, info), plan, Planned(agent_state.fits, lesson)


def _lesson(
    system: _System, agent_state: State, key: Key, belief: PyTree, steering: Steering, solution: Array
) -> PyTree:
    """What the policy may learn from a solution (see `Planned`)."""
    if system.config.distillation == "real":
        return ()
    controls = steering.controls(solution)
    if system.config.distillation == "average":
        return controls[0]
    world, params = system.world, agent_state.model.params
    imagined = rollouts.steer(world, params, key, belief, controls, steering.action)
    obs = rollouts.first_particle(jax.vmap(partial(world.features, params))(imagined.state))
    return obs, jnp.broadcast_to(rollouts.first_particle(imagined.action), (len(obs), system.spec.box.size))


def _fit(system: _System, agent_state: State, key: Key, replay: Replay) -> tuple[State, Metrics]:
    key_model, key_policy = jax.random.split(key)
    model, metrics = system.fitter.fit(agent_state.model, key_model, replay)
    policy, lessons = _distil(system, agent_state, key_policy, replay)
    return State(model, policy, agent_state.fits + 1), metrics | lessons


def _distil(system: _System, agent_state: State, key: Key, replay: Replay) -> tuple[imitation.State, Metrics]:
    """Teach the policy what was planned; random steps teach nothing."""
    data, filled = replays.flatten(replay)
    planned, state = data.extras, agent_state.policy
    weight = (filled & (planned.fits > 0)).astype(jnp.float32)
    if system.config.distillation == "average":  # only what was added to these very parameters
        weight *= planned.fits == agent_state.fits
        mean = weight @ planned.lesson / jnp.maximum(jnp.sum(weight), 1.0)
        weights, unravel = ravel_pytree(state.params.network)
        network = unravel(weights + mean)
        return state._replace(params=state.params._replace(network=network)), {"policy_step": jnp.linalg.norm(mean)}
    obs, action, group = data.obs, data.action, 1
    if system.config.distillation == "imagined":
        group = system.config.horizon
        obs, action = (leaf.reshape((-1, leaf.shape[-1])) for leaf in planned.lesson)
        weight = jnp.repeat(weight, group)
    return imitation.fit(system.student, system.config.policy, state, key, Pairs(obs, action, weight), group=group)


def preset(name: str, spec: Spec) -> Preset:
    """``small``, ``paper``: POPLIN-A; ``small_p``, ``paper_p``: POPLIN-P. Raises ConfigError."""
    table = {"small": _small, "small_p": partial(_small, parameters=True), "paper": _paper}
    return choose(name, spec, table | {"paper_p": partial(_paper, parameters=True)})


def _small(spec: Spec, *, parameters: bool = False) -> Preset:
    """PETS' ``small``, planned on with the expectation."""
    agent, schedule = pets.preset("small", spec)
    model = dataclasses.replace(agent.model, propagation="expectation")
    config = Config(horizon=agent.horizon, model=model, fit=agent.fit, planner=agent.planner)
    if parameters:
        policy = imitation.Config(hidden=(16,))
        config = dataclasses.replace(config, variant="p_uni", distillation="real", policy=policy)
    return Preset(config, schedule)


def _paper(spec: Spec, *, parameters: bool = False) -> Preset:
    """PETS' network for the task, H = 30, 500 candidates, 50 epochs (Wang and Ba 2019, released configuration)."""
    agent, schedule = pets.preset("paper", spec)
    model = dataclasses.replace(agent.model, propagation="expectation")
    config = Config(model=model, fit=agent.fit)
    if parameters:
        policy = imitation.Config(hidden=(32,))
        config = dataclasses.replace(config, variant="p_sep", distillation="average", policy=policy)
    return Preset(config, dataclasses.replace(schedule, epochs=50))
