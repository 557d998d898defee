"""MBPO: model-based policy optimisation by short branched rollouts (Janner et al. 2019, arXiv:1906.08253, Alg. 2).

    at each fit:      fit the ensemble to all data, then let the policy act in it for a few steps at a time, from
                      replayed states, a random elite each step; keep what the last few fits imagined
    after each step:  ``updates`` gradient steps of SAC on batches that are mostly imagined

Differs from the paper: an imagined rollout that ends early is followed by another one from a replayed state, and while
rollouts are shorter than they will become, there are more of them, so that every fit imagines the same number of
transitions; targets of the model are normalised; a known reward is used rather than learned; the held-out loss is the
likelihood, where the released code looks at the squared error, and a fit that improves no member changes none.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl import policies
from jaxmbrl import replay as replays
from jaxmbrl.agents import off_policy
from jaxmbrl.agents.presets import Preset, choose
from jaxmbrl.agents.sac import SMALL_POLICY
from jaxmbrl.config import ConfigError, configurable, option
from jaxmbrl.envs import imagined
from jaxmbrl.models import ensemble, fitting, one_step
from jaxmbrl.models.ensemble import Ensemble
from jaxmbrl.models.fitting import Fitter
from jaxmbrl.policies import sac
from jaxmbrl.policies.actor_critic import ActorCritic
from jaxmbrl.replay import Replay
from jaxmbrl.schedule import Schedule
from jaxmbrl.types import Agent, Array, Environment, Key, Metrics, PyTree, Spec, Transition


@configurable
class Config:
    """The paper's settings (App. C), but for what it sets by task: see `preset`."""

    policy: Any = option(sac.Config(target_entropy=-0.5), "what learns from transitions", parts=policies.CONFIGS)
    model: ensemble.Members = option(ensemble.Members(size=7, elites=5), "what is learned of the world")
    fit: fitting.Config = option(
        fitting.Config(batch_size=256, passes=100, holdout_every=5, validation_size=5000, patience=5),
        "how the model learns",
    )
    batch_size: int = option(256, "transitions of a gradient step (B)", low=1)
    real_ratio: float = option(0.05, "share of a batch that is real", low=0.0, high=1.0)
    updates: int = option(20, "gradient steps after each interaction", low=1)
    rollouts: int = option(100_000, "imagined side by side after each fit, a multiple of the model's elites", low=1)
    keep: int = option(4, "fits whose rollouts are kept", low=1)
    first_length: int = option(1, "steps of an imagined rollout until the fit ``grow_from``", low=1)
    last_length: int = option(1, "steps of an imagined rollout from the fit ``grow_to`` on", low=1)
    grow_from: int = option(80, "fits before rollouts begin to grow", low=0)
    grow_to: int = option(400, "fits after which rollouts have their last length", low=0)

    def check(self) -> None:
        """Rollouts are dealt to the elites in equal shares, and they do not shrink."""
        if self.rollouts % self.model.elites:
            raise ConfigError(f"rollouts: got {self.rollouts}, needs a multiple of elites ({self.model.elites})")
        if self.last_length < self.first_length:
            needs = f"at least first_length ({self.first_length})"
            raise ConfigError(f"last_length: got {self.last_length}, needs {needs}")
        if self.grow_to < self.grow_from:
            raise ConfigError(f"grow_to: got {self.grow_to}, needs at least grow_from ({self.grow_from})")


class State(NamedTuple):
    """What MBPO carries.

    Attributes:
        policy: the learner's state.
        model: the ensemble and its optimiser.
        imagined: a row for each of the last fits, all that it imagined.
        fits: int32 [], so far.
    """

    policy: Any
    model: fitting.State
    imagined: Replay
    fits: Array


class _Parts(NamedTuple):
    """What the functions below are bound to."""

    spec: Spec
    config: Config
    learner: ActorCritic
    model: Ensemble
    fitter: Fitter


def make(spec: Spec, config: Config | None = None, *, env: Environment | None = None) -> Agent:
    """Bind MBPO to an environment. Raises ConfigError as `one_step.make` does."""
    del env
    config = config or Config()
    model = ensemble.members(spec, config.model, propagation="ts1")  # a random elite each step
    learner = policies.make_actor_critic(spec, config.policy)
    parts = _Parts(spec, config, learner, model, fitting.make(model, config.fit))
    return Agent(
        init=partial(_init, parts),
        memory=off_policy.no_memory,
        act=partial(off_policy.act, learner.act, lambda state: state.policy),
        fit=partial(_fit, parts),
        improve=partial(_improve, parts),
        predictors=lambda state: ensemble.predictors(model, state.model.params),
    )


def _init(parts: _Parts, key: Key) -> State:
    key_policy, key_model = jax.random.split(key)
    spec, config = parts.spec, parts.config
    obs, flag = jnp.zeros(spec.obs_size), jnp.zeros((), bool)
    example = Transition(obs, jnp.zeros(spec.box.size), jnp.zeros(()), obs, flag, flag)
    num = config.rollouts * config.last_length
    store = replays.init(example, capacity=config.keep * num, num_envs=num)
    return State(parts.learner.init(key_policy), parts.fitter.init(key_model), store, jnp.zeros((), jnp.int32))


def _fit(parts: _Parts, state: State, key: Key, replay: Replay) -> tuple[State, Metrics]:
    key_fit, key_imagine = jax.random.split(key)
    model, metrics = parts.fitter.fit(state.model, key_fit, replay)
    length = rollout_length(parts.config, state.fits)
    transitions, broken = imagine(parts, model.params, state.policy, key_imagine, replay, length)
    metrics |= {"rollout_length": length.astype(jnp.float32), "broken_rollouts": broken}
    store = replays.add(state.imagined, transitions)
    return State(state.policy, model, store, state.fits + 1), metrics


def rollout_length(config: Config, fits: Array) -> Array:
    """Steps of an imagined rollout, int32 []: grows linearly with the fits (Janner et al. 2019, App. C)."""
    span = max(config.grow_to - config.grow_from, 1)
    share = jnp.clip((fits - config.grow_from) / span, 0.0, 1.0)
    growth = jnp.floor(share * (config.last_length - config.first_length)).astype(jnp.int32)
    return config.first_length + growth


def imagine(
    parts: _Parts, params: ensemble.Params, policy: PyTree, key: Key, replay: Replay, length: Array
) -> tuple[Transition, Array]:
    """Let the policy act in the model, from replayed states.

    Args:
        parts: spec, configuration, learner and model.
        params: the ensemble's.
        policy: the learner's state.
        key: consumed.
        replay: where rollouts start from; not empty.
        length: int32 [], steps of a rollout, at most ``last_length``.

    Returns:
        Imagined transitions [rollouts * last_length], and the share [] of those in which the model broke; they are
        left out, and others stand in their places. Where it broke in all, one of them does: a step that stays where it
        began, without reward.
    """
    config = parts.config
    elites = ensemble.Params(ensemble.elite_members(params), jnp.arange(config.model.elites))  # gathered once
    shape = (config.model.elites, config.rollouts // config.model.elites)

    def begin(key: Key) -> Array:
        return replays.take(replay, replays.uniform_index(key, shape, replays.num_transitions(replay))).obs

    dream = imagined.make(parts.spec, parts.model.world, elites, begin, horizon=length)
    act = partial(parts.learner.act, policy, explore=True)
    transitions = imagined.gather(dream, act, key, config.last_length)
    transitions = jax.tree.map(lambda leaf: leaf.reshape((-1, *leaf.shape[2:])), transitions)
    broken = transitions.extras
    sound = jnp.argsort(broken, stable=True)  # those that are sound first
    index = sound[jnp.arange(len(sound)) % jnp.maximum(jnp.sum(~broken), 1)]
    return jax.tree.map(lambda leaf: leaf[index], transitions._replace(extras=())), jnp.mean(broken, dtype=jnp.float32)


def _improve(parts: _Parts, state: State, key: Key, replay: Replay) -> tuple[State, Metrics]:
    size = parts.config.batch_size
    is_real = jnp.arange(size) < jnp.round(parts.config.real_ratio * size)

    def draw(key_real: Key, key_other: Key) -> Transition:
        real = replays.sample(key_real, replay, size)._replace(extras=())
        dreamt = replays.sample(key_other, state.imagined, size)
        return imagined.choose(is_real, real, dreamt)

    policy, metrics = off_policy.improve(parts.learner.update, draw, parts.config.updates, state.policy, key)
    return state._replace(policy=policy), metrics


def preset(name: str, spec: Spec) -> Preset:
    """``small``: minutes on a laptop's CPU. ``paper``: the paper's sizes, for accelerators. Raises ConfigError."""
    return choose(name, spec, {"small": _small, "paper": _paper})


def _small(spec: Spec) -> Preset:
    """Sized for two cores: small networks, a fit every 50 steps, rollouts of one step, faster targets."""
    agent = Config(
        policy=dataclasses.replace(SMALL_POLICY, target_rate=0.02),
        model=ensemble.Members(member=one_step.complete(one_step.Config(hidden=(64, 64)), spec), size=4, elites=4),
        fit=fitting.Config(learning_rate=3e-3, batch_size=64, passes=30),
        batch_size=128,
        updates=20,
        rollouts=2000,
        keep=4,
    )
    if spec.name == "cartpole_swingup":  # a long way up: the policy stays random for longer, and rollouts see further
        policy = dataclasses.replace(agent.policy, target_entropy=0.0)
        agent = dataclasses.replace(agent, policy=policy, rollouts=400, first_length=30, last_length=30)
        return Preset(agent, Schedule(epochs=24, prefill=200, epoch_steps=200, fits_per_epoch=4))
    return Preset(agent, Schedule(epochs=14, prefill=200, epoch_steps=200, fits_per_epoch=4))


WEIGHT_DECAY = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)  # of each layer, as PETS has it on half-cheetah

# Epochs of 1,000 steps, updates a step, first and last length of rollouts, epochs between which they grow, epochs that
# are kept, steps between fits, target entropy a dimension, width of the model (Janner et al. 2019, App. C, and the
# released code).
_PAPER = {
    "brax/halfcheetah": (400, 40, (1, 1), (20, 150), 1, 250, -0.5, 200),
    "brax/hopper": (125, 20, (1, 15), (20, 150), 1, 250, -1 / 3, 200),
    "brax/walker2d": (300, 20, (1, 1), (20, 150), 1, 250, -0.5, 200),
    "brax/ant": (300, 20, (1, 25), (20, 100), 1, 250, -0.5, 200),
    "brax/humanoid": (300, 20, (1, 25), (20, 300), 5, 1000, -2 / 17, 400),
}


def _paper(spec: Spec) -> Preset:
    """The paper's own where it has the task, and half-cheetah's for any other."""
    epochs, updates, length, grow, keep, every, entropy, width = _PAPER.get(spec.name, _PAPER["brax/halfcheetah"])
    fits = 1000 // every
    member = one_step.Config(hidden=(width,) * 4, weight_decay=WEIGHT_DECAY)
    agent = Config(
        policy=sac.Config(target_entropy=entropy),
        model=ensemble.Members(member=one_step.complete(member, spec), size=7, elites=5),
        updates=updates,
        keep=keep * fits,
        first_length=length[0],
        last_length=length[1],
        grow_from=grow[0] * fits,
        grow_to=grow[1] * fits,
    )
    return Preset(agent, Schedule(epochs=epochs, prefill=5000, epoch_steps=1000, fits_per_epoch=fits, eval_episodes=1))
