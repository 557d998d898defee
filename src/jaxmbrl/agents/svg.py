r"""SVG(1) and SVG(inf): stochastic value gradients along real trajectories (Heess et al. 2015, arXiv:1510.09142).

    each fit:         fit the model to all data
    after each step:  ``updates`` gradient steps; for windows of T replayed steps, infer the noise of the policy and of
                      the model with which they give what really happened, and climb

.. math:: w \, \Big[ \sum_{t<T} D_t \, r(s_t, \pi(s_t, \eta_t)) + D_T \hat V(s_T) \Big], \qquad
    s_{t+1} = f(s_t, \pi(s_t, \eta_t), \xi_t)

by the gradient through policy, model and reward. SVG(1) is T = 1 with a value (Alg. 2): the gradient of V is taken at
real next states, and w is the importance weight of the action. SVG(inf) has long windows and no value (Alg. 1), and
w = 1: it is on-policy. Noise is inferred for the present policy, so that along an old window it makes up for whatever
the policy has learned since; the gradient there never fades, and pushes the policy into the bounds of its actions.
Hence ``recent``, and a schedule that acts between updates: the preset ``small_inf``.

Differs from the paper: V is read off SAC's critics, which need no importance weights, and the entropy's bonus keeps the
policy random; SVG(inf) learns from windows of the newest steps rather than from whole episodes; importance weights are
at most 1; known rewards and terminations are used rather than learned.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxmbrl import replay as replays
from jaxmbrl.agents import expansion, off_policy
from jaxmbrl.agents.expansion import Parts, State
from jaxmbrl.agents.mve import SMALL, SMALL_SCHEDULE
from jaxmbrl.agents.presets import Preset, choose
from jaxmbrl.config import ConfigError, configurable, option
from jaxmbrl.models import ensemble, fitting, one_step
from jaxmbrl.policies import sac
from jaxmbrl.policies.actor_critic import PolicyLoss, one_step_examples
from jaxmbrl.replay import Replay
from jaxmbrl.schedule import Schedule
from jaxmbrl.types import Agent, Array, Environment, Key, Metrics, PyTree, Spec, TimeStep, Transition


def _one_network(hidden: tuple[int, ...], spec: Spec | None = None) -> ensemble.Members:
    member = one_step.Config(hidden=hidden)
    member = one_step.complete(member, spec) if spec else member
    return ensemble.Members(member=member, size=1, elites=1)


@configurable
class Config:
    """A learner, a model, and along how many real steps the gradient goes."""

    horizon: int = option(1, "steps of a window (T)", low=1)
    bootstrap: bool = option(True, "a value of the last state: true for SVG(1), false for SVG(inf)")
    recent: int = option(0, "steps of each environment that windows are of, the newest; 0 takes all", low=0)
    max_weight: float = option(1.0, "bound on the importance weight, for windows of one step", above=0.0)
    policy: Any = option(
        sac.Config(hidden=(100, 100)), "what learns from transitions; noise is its own", parts={"sac": sac.Config}
    )
    model: ensemble.Members = option(_one_network((100, 100)), "what is learned of the world")
    fit: fitting.Config = option(fitting.Config(batch_size=128, passes=20, bootstrap=False), "how the model learns")
    batch_size: int = option(128, "windows of a gradient step (B)", low=1)
    updates: int = option(1, "gradient steps after each interaction", low=1)

    def check(self) -> None:
        """A window fits into what is recent."""
        if 0 < self.recent < self.horizon:
            raise ConfigError(f"recent: got {self.recent}, needs 0 (all steps) or at least horizon ({self.horizon})")


def make(spec: Spec, config: Config | None = None, *, env: Environment | None = None) -> Agent:
    """Bind SVG to an environment. Raises ConfigError as `one_step.make` does."""
    del env
    config = config or Config()
    parts = expansion.make_parts(spec, config)
    agent = expansion.compose(parts, partial(_improve, parts, config))
    return agent._replace(act=partial(_act, parts, spec.box.size), window=config.horizon)


def _act(
    parts: Parts, size: int, agent_state: State, key: Key, memory: PyTree, timestep: TimeStep, *, explore: bool
) -> tuple[Array, PyTree, Array]:
    """Act, and store the log-density of the action relative to the uniform one's; 0 is right for random actions."""
    noise = jax.random.normal(key, (size,)) if explore else jnp.zeros(size)
    action, log_prob = parts.learner.policy(agent_state.policy.actor, noise, timestep.obs)
    return action, memory, log_prob + size * jnp.log(2.0)


def _improve(parts: Parts, config: Config, state: State, key: Key, replay: Replay) -> tuple[State, Metrics]:
    member = jax.tree.map(lambda leaf: leaf[0], ensemble.elite_members(state.model.params))

    def update(policy: Any, key: Key, windows: Transition) -> tuple[Any, Metrics]:
        key_target, key_learn = jax.random.split(key)
        first = jax.tree.map(lambda leaf: leaf[:, 0], windows)
        examples = one_step_examples(parts.learner, policy, key_target, first)
        objective = partial(policy_loss, parts, config, member, windows)
        return parts.learner.learn(policy, key_learn, first.obs, examples, objective=objective)

    def draw(key_real: Key, key_other: Key) -> Transition:
        newest = config.recent or None
        return replays.sample_sequences(key_real, replay, config.batch_size, config.horizon, newest=newest)

    policy, metrics = off_policy.improve(update, draw, config.updates, state.policy, key)
    return state._replace(policy=policy), metrics


def policy_loss(
    parts: Parts,
    config: Config,
    member: one_step.Params,
    windows: Transition,
    policy: Any,
    actor: PyTree,
    key: Key,
    obs: Array,
) -> PolicyLoss:
    """The actor's loss on windows [B, T]; ``obs`` [B, O] are the states that they begin with."""
    learner = parts.learner
    key_last, key_entropy = jax.random.split(key)
    last_noise, noise = (jax.random.normal(k, windows.action[:, 0].shape) for k in (key_last, key_entropy))
    value_of = partial(trajectory_value, parts, member, policy, actor, bootstrap=config.bootstrap)
    value, density = jax.vmap(value_of)(windows, last_noise)
    weight = jnp.ones(())
    if config.horizon == 1:  # the product of many would be all noise
        own = density + windows.action.shape[-1] * jnp.log(2.0)
        weight = jnp.minimum(jnp.exp(jax.lax.stop_gradient(own) - windows.extras[:, 0]), config.max_weight)
    # Entropy is that of fresh actions: inferred noise can be far from any that the policy draws.
    log_prob = jax.vmap(partial(learner.policy, actor))(noise, obs)[1]
    loss = learner.temperature(policy) * jnp.mean(log_prob) - jnp.mean(weight * value) / config.horizon
    return PolicyLoss(loss, log_prob)


def trajectory_value(
    parts: Parts,
    member: one_step.Params,
    policy: Any,
    actor: PyTree,
    window: Transition,
    noise: Array,
    *,
    bootstrap: bool,
) -> tuple[Array, Array]:
    """The value of a real window as a differentiable function of the actor.

    Args:
        parts: learner and model.
        member: the model's parameters.
        policy: the learner's state: the actor that noise is inferred for, critics, temperature.
        actor: the policy network's parameters.
        window: T consecutive transitions; what follows the end of an episode is left out. A termination has no value,
            a time limit has that of the true next state.
        noise: [A], of the action that values the last state.
        bootstrap: whether the last state has a value.

    Returns:
        The value [], and the log-density [] of the first action, the real one.
    """
    learner, base = parts.learner, parts.model.base
    temperature = learner.temperature(policy)
    policy_noise = jax.vmap(partial(learner.infer_noise, policy.actor))(window.obs, window.action)
    model_noise = jax.vmap(partial(base.infer_noise, member))(window)
    policy_noise, model_noise = jax.lax.stop_gradient((policy_noise, model_noise))

    def step(carry: tuple[Array, Array, Array], row: tuple[Array, ...]) -> tuple[Any, tuple[Array, Array]]:
        obs, weight, running = carry  # from the first end on, what is left of the window is of another episode
        policy_noise, model_noise, discount, ended = row
        action, log_prob = learner.policy(actor, policy_noise, obs)
        outcome = base.noisy_outcome(member, obs, action, model_noise)
        gain = jnp.where(running, weight * outcome.reward, 0.0)
        weight = jnp.where(running, weight * learner.discount * discount, weight)
        return (jnp.where(running, outcome.next_obs, obs), weight, running & ~ended), (gain, log_prob)

    rows = (policy_noise, model_noise, window.discount, window.terminated | window.truncated)
    start = (window.obs[0], jnp.ones(()), jnp.ones((), bool))
    (last, weight, _), (gains, log_probs) = jax.lax.scan(step, start, rows)
    value = jnp.sum(gains)
    if bootstrap:
        action, log_prob = learner.policy(policy.actor, noise, last)
        value += weight * (jnp.min(learner.values(policy.critics, last, action)) - temperature * log_prob)
    return value, log_probs[0]


def preset(name: str, spec: Spec) -> Preset:
    """``small``, ``paper``: SVG(1); ``small_inf``: SVG(inf). Raises ConfigError."""
    return choose(name, spec, {"small": _small, "small_inf": _small_inf, "paper": _paper})


def _small(spec: Spec) -> Preset:
    agent = Config(model=_one_network((64, 64), spec), **SMALL)
    return Preset(agent, SMALL_SCHEDULE)


def _small_inf(spec: Spec) -> Preset:
    """A few gradient steps along the newest two windows' worth of steps, then as many new steps as a window has."""
    window = 20
    agent, schedule = _small(spec)
    agent = dataclasses.replace(agent, horizon=window, bootstrap=False, recent=2 * window, updates=5)
    return Preset(agent, dataclasses.replace(schedule, epochs=50, interact=window))


def _paper(spec: Spec) -> Preset:
    agent = Config(model=_one_network((100, 100), spec))
    return Preset(agent, Schedule(epochs=500, prefill=5000, epoch_steps=1000, fits_per_epoch=4))
