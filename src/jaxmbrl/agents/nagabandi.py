"""MB-MF: MPC, cloned into a policy that TRPO then fine-tunes (Nagabandi et al. 2017, arXiv:1708.02596, Sec. V).

    fill the replay store with random actions
    plan:       each fit:    the network to all data;  each step:  the best of K random action sequences
    imitate:    first fit:   the policy to what MPC did;  each step:  the policy
                each fit:    MPC labels what the policy met, the policy is fitted to all labels (DAgger)
    fine-tune:  every n-th fit:  the policy by TRPO on the steps since;  each step:  the policy

The three phases are one agent whose phase is the number of its fits (see `phases`), so that one schedule, one store
and one checkpoint hold the whole run. The model-based half is `random_shooting`.

Differs from the paper: the policy's Gaussian is squashed by tanh, and its inputs are normalised, as cloning found them;
the squared error is that of actions in units of half their range; a round of DAgger labels the newest steps only;
advantages are generalised (see `policies.trpo`).

Metrics of the phases that a fit is not in are 0, and those of an epoch are means over its fits.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl import replay as replays
from jaxmbrl.agents import random_shooting
from jaxmbrl.agents.phases import shared
from jaxmbrl.agents.presets import Preset, choose
from jaxmbrl.config import ConfigError, configurable, option
from jaxmbrl.models import simulator
from jaxmbrl.models.networks import MLP
from jaxmbrl.policies import demonstrations, gaussian, imitation, on_policy, trpo
from jaxmbrl.policies.demonstrations import Pairs
from jaxmbrl.policies.imitation import Student
from jaxmbrl.replay import Replay
from jaxmbrl.schedule import Schedule
from jaxmbrl.types import Agent, Array, Environment, Key, Learner, Metrics, PyTree, Spec, TimeStep, Transition

STD = 0.5  # of the policy's actions when fine-tuning begins (App. B)


@configurable
class Config:
    """The model-based half, the policy, and how many fits each phase takes; the paper's half-cheetah."""

    mpc: random_shooting.Config = option(random_shooting.Config(), "the model-based half, which is the expert too")
    plan_fits: int = option(7, "fits of the planning phase", low=1)
    dagger_rounds: int = option(3, "rounds of DAgger after the first cloning", low=0)
    round_steps: int = option(9000, "steps between two fits: the schedule's epoch_steps / fits_per_epoch", low=1)
    demonstrations: int = option(9000, "planned steps that the first cloning learns from, the newest", low=1)
    label_batch: int = option(64, "observations that MPC labels at once", low=1)
    batch_rounds: int = option(3, "rounds that TRPO's batch spans", low=1)
    cloning: imitation.Config = option(imitation.Config(learning_rate=1e-3, weight_decay=0.0), "how labels are fitted")
    tuning: trpo.Config = option(
        trpo.Config(hidden=(64, 64), init_log_std=math.log(STD), discount=0.995, max_kl=0.05),
        "the policy, and its fine-tuning",
    )

    def check(self) -> None:
        """Cloning learns from planned steps, the policy is TRPO's, and labels are asked for where no simulator is."""
        planned = self.plan_fits * self.round_steps
        if self.demonstrations > planned:
            raise ConfigError(
                f"demonstrations: got {self.demonstrations}, needs at most plan_fits * round_steps ({planned})"
            )
        for name in ("hidden", "activation", "family", "bound"):
            if getattr(self.cloning, name) != getattr(imitation.Config(), name):
                raise ConfigError(f"cloning.{name}: got {getattr(self.cloning, name)}, needs its default: see tuning")
        if isinstance(self.mpc.model, simulator.Config):
            raise ConfigError("mpc.model: got simulator, needs a learned one, which can label a replayed observation")
        if isinstance(self.mpc.prior, imitation.Config):
            raise ConfigError("mpc.prior: got cloned, needs none: MB-MF clones a policy of its own")


class State(NamedTuple):
    """What is learned.

    Attributes:
        expert: MPC's own state.
        policy: of TRPO.
        cloning: Adam's state of the imitation.
        labels: what MPC did, and would have done.
        fits: int32 [], number of fits so far, which is the phase.
    """

    expert: PyTree
    policy: on_policy.State
    cloning: PyTree
    labels: Pairs
    fits: Array


class _System(NamedTuple):
    """The static parts that the functions below are bound to."""

    spec: Spec
    config: Config
    expert: Agent
    student: Student
    learner: Learner


def make(spec: Spec, config: Config | None = None, *, env: Environment | None = None) -> Agent:
    """Bind MB-MF to an environment."""
    config = config or Config()
    expert, learner = random_shooting.make(spec, config.mpc, env=env), trpo.make(spec, config.tuning)
    system = _System(spec, config, expert, student(spec, config), learner)
    return Agent(
        init=partial(_init, system),
        memory=lambda agent_state, key: expert.memory(agent_state.expert, key),
        act=partial(_act, system),
        fit=partial(_fit, system),
        improve=lambda agent_state, key, replay: (agent_state, {}),
        steps_per_fit=config.round_steps,
        newest=max(config.demonstrations, config.batch_rounds * config.round_steps),
        predictors=_of_expert(expert.predictors),
        plan=_of_expert(expert.plan),
    )


def _of_expert(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """A function of the expert's state as one of the system's."""
    return function and (lambda state, *rest, **options: function(state.expert, *rest, **options))


def student(spec: Spec, config: Config) -> Student:
    """The mean of TRPO's policy as a `Student`, whose parameters are (gaussian.Params, gaussian.Scale)."""
    network = MLP(config.tuning.hidden, spec.box.size, config.tuning.activation)
    half = (spec.box.high - spec.box.low) / 2

    def init(key: Key) -> PyTree:
        return gaussian.init(network, key, spec, log_std=config.tuning.init_log_std), gaussian.init_scale(spec)

    def calibrate(params: PyTree, obs: Array, weight: Array) -> PyTree:
        seen = jax.vmap(partial(gaussian.inputs, gaussian.init_scale(spec), angles=spec.angles))(obs)
        share = (weight / jnp.maximum(jnp.sum(weight), 1.0))[:, None]
        mean = jnp.sum(share * seen, axis=0)
        return params[0], gaussian.Scale(jnp.sum(weight), mean, jnp.sum(share * jnp.square(seen - mean), axis=0))

    def mean(params: PyTree, obs: Array) -> gaussian.Gaussian:
        seen = gaussian.inputs(jax.lax.stop_gradient(params[1]), obs, spec.angles)
        return gaussian.distribution(network, params[0], seen)

    def action(params: PyTree, obs: Array) -> Array:
        return gaussian.squash(spec.box, mean(params, obs).mean)

    def sample(params: PyTree, key: Key, obs: Array) -> Array:
        return gaussian.squash(spec.box, gaussian.sample(mean(params, obs), key))

    def loss(params: PyTree, obs: Array, target: Array) -> Array:
        return jnp.mean(jnp.square((target - action(params, obs)) / half))

    def penalty(params: PyTree) -> Array:
        return imitation.decay(params[0].network, config.cloning.weight_decay)

    return Student(init, calibrate, action, sample, loss, penalty)


def _init(system: _System, key: Key) -> State:
    key_expert, key_policy = jax.random.split(key)
    config, policy = system.config, system.learner.init(key_policy)
    cloning = imitation.optimiser(config.cloning).init((policy.policy, policy.scale))
    labels = demonstrations.no_pairs(system.spec, config.demonstrations + config.dagger_rounds * config.round_steps)
    return State(system.expert.init(key_expert), policy, cloning, labels, jnp.zeros((), jnp.int32))


def _act(
    system: _System, agent_state: State, key: Key, memory: PyTree, timestep: TimeStep, *, explore: bool
) -> tuple[Array, PyTree, Any]:
    def plan(key: Key) -> tuple[Array, PyTree]:
        return system.expert.act(agent_state.expert, key, memory, timestep, explore=explore)[:2]

    def answer(key: Key) -> tuple[Array, PyTree]:
        return system.learner.act(agent_state.policy, key, timestep.obs, explore=explore), memory

    action, memory = jax.lax.cond(shared(agent_state.fits) <= system.config.plan_fits, plan, answer, key)
    return action, memory, ()


def _fit(system: _System, agent_state: State, key: Key, replay: Replay) -> tuple[State, Metrics]:
    """What this fit of the run is for: MPC's model, the first cloning, DAgger, TRPO, or waiting for its batch."""
    config = system.config
    work = [partial(branch, system, replay) for branch in (_model, _clone, _dagger, _tune)]
    kinds = [jax.eval_shape(branch, agent_state, key)[1] for branch in work]
    names = {name: jnp.zeros((), leaf.dtype) for kind in kinds for name, leaf in kind.items()}

    def filled(branch: Callable[..., tuple[State, Metrics]]) -> Callable[..., tuple[State, Metrics]]:
        def run(agent_state: State, key: Key) -> tuple[State, Metrics]:
            agent_state, metrics = branch(agent_state, key)
            return agent_state, names | metrics

        return run

    wait = lambda agent_state, key: (agent_state, {})  # noqa: E731
    fits = shared(agent_state.fits)
    tuning = fits - config.plan_fits - config.dagger_rounds  # rounds that the policy acted in since it last imitated
    index = jnp.sum(fits > jnp.array([config.plan_fits - 1, config.plan_fits, config.plan_fits + config.dagger_rounds]))
    index = jnp.where((tuning > 0) & (tuning % config.batch_rounds != 0), 4, index)
    agent_state, metrics = jax.lax.switch(index, [filled(branch) for branch in (*work, wait)], agent_state, key)
    phase = jnp.array([0.0, 1.0, 1.0, 2.0, 2.0])[index]
    return agent_state._replace(fits=agent_state.fits + 1), metrics | {"phase": phase}


def _model(system: _System, replay: Replay, agent_state: State, key: Key) -> tuple[State, Metrics]:
    expert, metrics = system.expert.fit(agent_state.expert, key, replay)
    return agent_state._replace(expert=expert), metrics


def _clone(system: _System, replay: Replay, agent_state: State, key: Key) -> tuple[State, Metrics]:
    """The first cloning, of what MPC did; the model learns from its last steps before it becomes the expert."""
    key_model, key_clone = jax.random.split(key)
    agent_state, metrics = _model(system, replay, agent_state, key_model)
    steps = _flat(_latest(replay, system.config.demonstrations))
    done = Pairs(steps.obs, steps.action, jnp.ones(len(steps.action)))
    agent_state, cloned = _imitate(system, agent_state, key_clone, done, jnp.zeros((), jnp.int32))
    return agent_state, metrics | cloned


def _dagger(system: _System, replay: Replay, agent_state: State, key: Key) -> tuple[State, Metrics]:
    """Label what the policy met, and fit the policy to all labels."""
    config = system.config
    key_label, key_fit, key_memory = jax.random.split(key, 3)

    def expert(key: Key, obs: Array) -> Array:
        start = TimeStep((), obs, jnp.zeros(()), jnp.array(False), jnp.array(False))
        return system.expert.act(agent_state.expert, key, memory, start, explore=False)[0]

    memory = system.expert.memory(agent_state.expert, key_memory)
    met = _flat(_latest(replay, config.round_steps)).obs
    fresh = demonstrations.relabel(key_label, met, expert, batch_size=config.label_batch)
    done = agent_state.fits - config.plan_fits - 1
    return _imitate(system, agent_state, key_fit, fresh, config.demonstrations + done * config.round_steps)


def _imitate(system: _System, agent_state: State, key: Key, fresh: Pairs, slot: Array) -> tuple[State, Metrics]:
    labels, policy = demonstrations.aggregate(agent_state.labels, fresh, slot), agent_state.policy
    start = imitation.State((policy.policy, policy.scale), agent_state.cloning)
    end, metrics = imitation.fit(system.student, system.config.cloning, start, key, labels)
    policy = policy._replace(policy=end.params[0], scale=end.params[1])
    return agent_state._replace(policy=policy, cloning=end.optimiser, labels=labels), metrics


def _tune(system: _System, replay: Replay, agent_state: State, key: Key) -> tuple[State, Metrics]:
    """A step of TRPO on the newest trajectories, all of the policy that acts now.

    The inputs' statistics stay those of cloning: moving them would change the policy, whatever the trust region.
    """
    newest = _latest(replay, system.config.round_steps * system.config.batch_rounds)
    batch = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), newest)
    policy, metrics = system.learner.update(agent_state.policy, key, batch)
    return agent_state._replace(policy=policy._replace(scale=agent_state.policy.scale)), metrics


def _latest(replay: Replay, num: int) -> Transition:
    """The newest ``num`` transitions, leaves [rows, num_envs, ...]."""
    return replays.latest(replay, num // replay.data.shape[1])


def _flat(steps: Transition) -> Transition:
    return jax.tree.map(lambda leaf: leaf.reshape((-1, *leaf.shape[2:])), steps)


def preset(name: str, spec: Spec) -> Preset:
    """``small``: minutes on a laptop's CPU. ``paper``: the paper's sizes, for accelerators. Raises ConfigError."""
    return choose(name, spec, {"small": _small, "paper": _paper})


def _small(spec: Spec) -> Preset:
    """2,000 steps of planning and 1,000 of imitation by episodes of 200, then 60 batches of 10 episodes for TRPO."""
    steps = min(spec.episode_length, 200)
    agent, _ = random_shooting.preset("small", spec)
    config = Config(
        mpc=agent,
        plan_fits=10,
        dagger_rounds=4,
        round_steps=steps,
        demonstrations=5 * steps,
        batch_rounds=10,
        cloning=imitation.Config(learning_rate=3e-3, weight_decay=0.0),
        tuning=trpo.Config(hidden=(64, 64), init_log_std=math.log(STD), lambda_=0.95, max_kl=0.02),
    )
    return Preset(config, Schedule(epochs=62, prefill=steps, epoch_steps=10 * steps, fits_per_epoch=10))


def _paper(spec: Spec) -> Preset:
    """The model-based half as in `random_shooting`, then 3 rounds of DAgger and batches of at least 25,000 steps."""
    agent, schedule = random_shooting.preset("paper", spec)
    rounds = -(-25_000 // schedule.epoch_steps)
    config = Config(
        mpc=agent, round_steps=schedule.epoch_steps, demonstrations=schedule.epoch_steps, batch_rounds=rounds
    )
    return Preset(
        config, Schedule(epochs=11 + 100 * rounds, prefill=schedule.prefill, epoch_steps=schedule.epoch_steps)
    )
