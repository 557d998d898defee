"""Dreamer: a policy that learns in the imagination of a recurrent state-space model.

    after each interaction, ``updates`` times:
        one gradient step of the model on replayed sequences, which filters their beliefs
        one gradient step of actor and critic on trajectories imagined from each of these beliefs

Presets: ``v1`` (Hafner et al. 2020, arXiv:1912.01603: Gaussian latents, the actor's gradient through the model),
``paper`` (v3, Hafner et al. 2023, arXiv:2301.04104: classes, two-hot heads, REINFORCE) and ``small``.

Differs from the papers: see `models.rssm` and `policies.imagination`.
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax

from jaxmbrl.agents import latent
from jaxmbrl.agents.latent import Learning, Memory, ModelState
from jaxmbrl.agents.planet import SMALL_FIT, small_model
from jaxmbrl.agents.presets import Preset, choose
from jaxmbrl.config import ConfigError, configurable, option
from jaxmbrl.models import latent_model, optimisers, rssm
from jaxmbrl.models.latent_model import LatentModel
from jaxmbrl.policies import imagination
from jaxmbrl.policies.imagination import Behaviour
from jaxmbrl.replay import Replay
from jaxmbrl.schedule import Schedule
from jaxmbrl.types import Agent, Array, Box, Environment, Key, Metrics, Spec, TimeStep


@configurable
class Config:
    """A latent model, and an actor-critic that imagines in it; the defaults are Dreamer v1's."""

    updates: int = option(1, "gradient steps after each interaction", low=1)
    starts: int = option(0, "replayed beliefs that are imagined from in a gradient step; 0 for all", low=0)
    action_noise: float = option(
        0.3, "std of the noise added to continuous actions, in units of half the range", low=0.0
    )
    model: rssm.Config = option(
        rssm.Config(layers=(400, 400), activation="elu", reward_scale=1.0), "what is imagined in"
    )
    fit: latent.Fit = option(
        latent.Fit(optimiser=optimisers.Config(learning_rate=6e-4)), "how the model learns from replayed sequences"
    )
    policy: imagination.Config = option(imagination.Config(), "what learns in imagination")

    def check(self) -> None:
        """Imagination starts from beliefs that there are."""
        replayed = self.fit.batch_size * self.fit.length
        if self.starts > replayed:
            raise ConfigError(f"starts: got {self.starts}, needs at most fit.batch_size * fit.length = {replayed}")


class State(NamedTuple):
    """The model's state, and the behaviour's."""

    model: ModelState
    policy: imagination.State


class _Parts(NamedTuple):
    """What the functions below are bound to."""

    spec: Spec
    config: Config
    model: LatentModel
    learning: Learning
    behaviour: Behaviour


def make(spec: Spec, config: Config | None = None, *, env: Environment | None = None) -> Agent:
    """Bind Dreamer to an environment. Raises ConfigError as `imagination.make` and `rssm.make` do."""
    del env
    config = config or Config()
    model = rssm.make(spec, config.model)
    size = rssm.features(model.initial()).size
    behaviour = imagination.make(spec, model.world, size, config.policy)
    parts = _Parts(spec, config, model, latent.learning(model, config.fit), behaviour)
    return Agent(
        init=partial(_init, parts),
        memory=lambda state, key: latent.nothing_seen(model, spec),
        act=partial(_act, parts),
        fit=lambda state, key, replay: (state, {}),
        improve=partial(_improve, parts),
        foresee=lambda state, *seen, **options: latent_model.foresee(model, state.model.params, *seen, **options),
        window=parts.learning.window,
    )


def _init(parts: _Parts, key: Key) -> State:
    key_model, key_policy = jax.random.split(key)
    return State(parts.learning.init(key_model), parts.behaviour.init(key_policy))


def _act(
    parts: _Parts, state: State, key: Key, memory: Memory, timestep: TimeStep, *, explore: bool
) -> tuple[Array, Memory, tuple[()]]:
    key_perceive, key_policy, key_noise = jax.random.split(key, 3)
    belief = latent.perceive(parts.model, state.model.params, key_perceive, memory, timestep)
    action = parts.behaviour.act(state.policy, key_policy, rssm.features(belief), explore=explore)
    if explore and isinstance(parts.spec.action, Box):
        action = latent.disturb(key_noise, action, parts.spec.action, parts.config.action_noise)
    return action, latent.remember(belief, action), ()


def _improve(parts: _Parts, state: State, key: Key, replay: Replay) -> tuple[State, Metrics]:
    def step(state: State, key: Key) -> tuple[State, Metrics]:
        key_model, key_starts, key_policy = jax.random.split(key, 3)
        model, model_metrics, beliefs, frames = parts.learning.update(state.model, key_model, replay)
        beliefs, discount = jax.tree.map(lambda leaf: leaf.reshape((-1, *leaf.shape[2:])), (beliefs, frames.discount))
        if parts.config.starts:
            chosen = jax.random.choice(key_starts, len(discount), (parts.config.starts,), replace=False)
            beliefs, discount = jax.tree.map(lambda leaf: leaf[chosen], (beliefs, discount))
        policy, metrics = parts.behaviour.update(state.policy, key_policy, model.params, beliefs, discount)
        return State(model, policy), model_metrics | metrics

    state, metrics = jax.lax.scan(step, state, jax.random.split(key, parts.config.updates))
    return state, latent.mean_of(metrics)


def preset(name: str, spec: Spec) -> Preset:
    """``small``: minutes on a laptop's CPU. ``v1``, ``paper`` (v3): the papers' sizes. Raises ConfigError."""
    return choose(name, spec, {"small": _small, "paper": _paper, "v1": _v1})


def _small(spec: Spec) -> Preset:
    policy = imagination.Config(
        hidden=(64, 64),
        activation="swish",
        norm=True,
        gradient="dynamics" if isinstance(spec.action, Box) else "reinforce",
        distribution="normal",
        entropy=1e-3,
        scale_returns=True,
        discount=0.98,
        slow_rate=0.1,
        optimiser=optimisers.Config(learning_rate=1e-3),
    )
    agent = Config(starts=128, action_noise=0.0, model=small_model(spec), fit=SMALL_FIT, policy=policy)
    schedule = Schedule(epochs=45, prefill=1000, epoch_steps=200, interact=2)
    if spec.is_image:  # half the work of a gradient step; and returns of a sparser signal, told by classes
        agent = replace(
            agent,
            model=replace(agent.model, depth=8, reward_head="symexp_twohot"),
            fit=replace(agent.fit, length=16),
            policy=replace(policy, head="symexp_twohot", discount=0.97),
        )
    if spec.is_grid:  # a gradient step for each step in the world: with half of one it is no better than DQN
        agent = replace(agent, updates=2, starts=64, model=replace(agent.model, depth=8))
        schedule = replace(schedule, epochs=25)
    return Preset(agent, schedule)


def _v1(spec: Spec) -> Preset:
    """100 gradient steps after each 500; actions are repeated twice by the environment (``action_repeat``).

    The paper counts the simulator's steps, twice as many: 1,000 to 100 gradient steps, 5,000 at random before. The
    actor has three hidden layers, as the critic has, where the released code's has four; and there are no 100 gradient
    steps before the first interaction.
    """
    return Preset(Config(updates=100), Schedule(epochs=2000, prefill=2500, epoch_steps=500, interact=500))


def _paper(spec: Spec) -> Preset:
    """Dreamer v3 with the widths of its second smallest size, a gradient step for each environment step.

    18 million parameters in the model, since its recurrent path is one dense GRU rather than eight blocks.
    """
    laprop = optimisers.Config("laprop", learning_rate=4e-5, epsilon=1e-20, warmup=1000)
    model = rssm.Config(
        deter=2048,
        stoch=32,
        classes=16,
        hidden=256,
        layers=(256, 256, 256),
        embedding=256,
        depth=16,
        activation="swish",
        norm=True,
        free_nats=1.0,
        dynamics_scale=1.0,
        representation_scale=0.1,
        reward_scale=1.0,
        reward_head="symexp_twohot",
    )
    policy = imagination.Config(
        hidden=(256, 256, 256),
        activation="swish",
        norm=True,
        distribution="normal",
        gradient="reinforce",
        discount=1.0 - 1.0 / 333.0,
        entropy=3e-4,
        scale_returns=True,
        head="symexp_twohot",
        slow_rate=0.02,
        slow_bootstrap=False,
        optimiser=laprop,
    )
    fit = latent.Fit(optimiser=laprop, batch_size=16, length=64)
    agent = Config(action_noise=0.0, model=model, fit=fit, policy=policy)
    return Preset(agent, Schedule(epochs=500, prefill=1024, epoch_steps=1000))
