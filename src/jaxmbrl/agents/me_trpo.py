"""ME-TRPO: model-ensemble trust-region policy optimisation (Kurutach et al. 2018, arXiv:1802.10592, Alg. 2).

    each epoch:  fit an ensemble of deterministic networks to all data
                 repeat:  imagine episodes, a random member for each step; improve the policy by TRPO on them
                 until the policy improves in less than 70% of the members
                 each step:  act by the stochastic policy

Nothing is learned between two epochs. The loop ends at ``max_updates`` at the latest.

Differs from the paper: imagined episodes start from replayed observations; the policy is a Gaussian squashed into the
bounds of the actions; the baseline is a network rather than a linear function of features; there is no noise on the
policy's parameters, its own noise explores; models and the policy's standard deviation go on from one epoch to the
next, where the released code starts them anew. The loop ends, as the paper says, at the first look that finds too few
members improved; the released code goes on for 25 updates, at most 400 an epoch, and returns to the best policy. An
imagined episode in which the model breaks (see `envs.imagined`) is cut there; the critic tells what follows, and two
looks at the members are compared by the starts from which the model broke at neither.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl import replay as replays
from jaxmbrl.agents.presets import Preset, choose
from jaxmbrl.config import ConfigError, configurable, option
from jaxmbrl.envs import imagined
from jaxmbrl.models import ensemble, fitting, one_step
from jaxmbrl.models.ensemble import Ensemble
from jaxmbrl.policies import trpo
from jaxmbrl.replay import Replay
from jaxmbrl.schedule import Schedule
from jaxmbrl.types import Agent, Array, Environment, Key, Learner, Metrics, PyTree, Spec, TimeStep, Transition


def _ensemble(hidden: tuple[int, ...], spec: Spec | None = None) -> ensemble.Members:
    """Five least-squares networks."""
    member = one_step.Config(hidden=hidden, activation="relu", family="deterministic")
    return ensemble.Members(member=one_step.complete(member, spec) if spec else member)


@configurable
class Config:
    """The half-cheetah's settings of the paper (App. A)."""

    horizon: int = option(100, "imagined steps of an episode (H)", low=1)
    rollouts: int = option(500, "imagined episodes an update of the policy, side by side (P)", low=1)
    bootstrap: bool = option(False, "there is value beyond the horizon; the paper's objective ends there")
    validate_every: int = option(5, "updates of the policy between two looks at the members", low=1)
    max_updates: int = option(100, "most updates of the policy an epoch", low=1)
    min_improved: float = option(0.7, "share of the members in which the policy has to improve", low=0.0, high=1.0)
    model: ensemble.Members = option(_ensemble((1024, 1024)), "what is imagined with")
    fit: fitting.Config = option(
        fitting.Config(
            batch_size=1000, passes=2000, bootstrap=False, holdout_every=3, patience=25, min_improvement=0.0
        ),
        "how the model learns",
    )
    policy: trpo.Config = option(trpo.Config(discount=1.0, lambda_=1.0), "how the policy learns")

    def check(self) -> None:
        """Rollouts are dealt to the members in equal shares, and rounds divide the updates."""
        if self.rollouts % self.model.elites:
            raise ConfigError(f"rollouts: got {self.rollouts}, needs a multiple of model.elites ({self.model.elites})")
        if self.max_updates % self.validate_every:
            needs = f"a multiple of validate_every ({self.validate_every})"
            raise ConfigError(f"max_updates: got {self.max_updates}, needs {needs}")


class State(NamedTuple):
    """The ensemble as fitting keeps it, and the policy as its learner keeps it."""

    model: fitting.State
    policy: PyTree


class Look(NamedTuple):
    """A policy's imagined returns in each of M members, from the same N starts in all of them.

    Attributes:
        returns: [M, N], undiscounted, of the policy without noise.
        sound: bool [M, N], whether the member did not break.
    """

    returns: Array
    sound: Array


class _Round(NamedTuple):
    """Carry of the loop over rounds.

    ``broken`` is the sum over updates of the share of steps that broke; ``metrics`` are the last update's.
    """

    policy: PyTree
    look: Look
    improved: Array
    number: Array
    broken: Array
    metrics: Metrics


class _Parts(NamedTuple):
    """What the functions below are bound to: in ``train`` members change at each step, in ``judge`` they do not."""

    spec: Spec
    config: Config
    train: Ensemble
    judge: Ensemble
    fitter: fitting.Fitter
    learner: Learner


def make(spec: Spec, config: Config | None = None, *, env: Environment | None = None) -> Agent:
    """Bind ME-TRPO to an environment with vector observations and continuous actions; ``env`` is not needed.

    Raises:
        ConfigError: as `one_step.make` and `fitting.make` do.
    """
    del env
    config = config or Config()
    train = ensemble.members(spec, config.model, propagation="ts1")
    judge = ensemble.members(spec, config.model, propagation="tsinf")
    parts = _Parts(spec, config, train, judge, fitting.make(train, config.fit), trpo.make(spec, config.policy))
    return Agent(
        init=partial(_init, parts),
        memory=lambda agent_state, key: (),
        act=partial(_act, parts),
        fit=partial(_fit, parts),
        improve=lambda agent_state, key, replay: (agent_state, {}),
        predictors=lambda state: ensemble.predictors(train, state.model.params),
    )


def _init(parts: _Parts, key: Key) -> State:
    key_model, key_policy = jax.random.split(key)
    return State(parts.fitter.init(key_model), parts.learner.init(key_policy))


def _act(
    parts: _Parts, state: State, key: Key, memory: PyTree, timestep: TimeStep, *, explore: bool
) -> tuple[Array, PyTree, Any]:
    return parts.learner.act(state.policy, key, timestep.obs, explore=explore), memory, ()


def _fit(parts: _Parts, state: State, key: Key, replay: Replay) -> tuple[State, Metrics]:
    """Fit the ensemble, then improve the policy in rounds until too few members see it improve."""
    key_model, key_judge, key_rounds = jax.random.split(key, 3)
    model, metrics = parts.fitter.fit(state.model, key_model, replay)
    look_at = partial(judge, parts, model.params, key_judge, replay)  # the same starts each time: returns compare
    rounds = parts.config.max_updates // parts.config.validate_every

    def run(progress: _Round) -> _Round:
        keys = jax.random.split(jax.random.fold_in(key_rounds, progress.number), parts.config.validate_every)
        update = partial(_update, parts, model.params, replay)
        policy, metrics = jax.lax.scan(update, progress.policy, keys)
        look = look_at(policy)
        improved = jnp.mean(improves(progress.look, look).astype(jnp.float32))
        broken = progress.broken + jnp.sum(metrics["imagined_broken"])
        last = jax.tree.map(lambda leaf: leaf[-1], metrics)
        return _Round(policy, look, improved, progress.number + 1, broken, last)

    def go_on(progress: _Round) -> Array:
        return (progress.number < rounds) & (progress.improved >= parts.config.min_improved)

    shapes = jax.eval_shape(partial(_update, parts, model.params, replay), state.policy, key_rounds)[1]
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    start = _Round(state.policy, look_at(state.policy), jnp.ones(()), jnp.zeros((), jnp.int32), jnp.zeros(()), blank)
    end = jax.lax.while_loop(go_on, run, start)
    updates = (end.number * parts.config.validate_every).astype(jnp.float32)  # at least one round's
    metrics |= end.metrics
    metrics |= {
        "imagined_broken": end.broken / updates,
        "policy_updates": updates,
        "improved_members": end.improved,
        "imagined_return": _mean_where(end.look.sound, end.look.returns),
    }
    return State(model, end.policy), metrics


def improves(before: Look, after: Look) -> Array:
    """Whether each member [M] sees ``after`` as better: by the mean over the starts from which it broke at neither.

    Cut short, a broken episode looks good wherever steps cost something. A member with no such start tells by how often
    it breaks.
    """
    both = before.sound & after.sound
    rise = _mean_where(both, after.returns - before.returns, axis=1)
    breaks_less = jnp.sum(after.sound, axis=1) > jnp.sum(before.sound, axis=1)
    return jnp.where(jnp.any(both, axis=1), rise > 0.0, breaks_less)


def _mean_where(mask: Array, value: Array, axis: int | None = None) -> Array:
    """Mean over where ``mask`` holds, 0 if nowhere."""
    return jnp.sum(jnp.where(mask, value, 0.0), axis) / jnp.maximum(jnp.sum(mask, axis), 1)


def _update(parts: _Parts, params: ensemble.Params, replay: Replay, policy: PyTree, key: Key) -> tuple[PyTree, Metrics]:
    """One update of the policy on fresh imagined episodes."""
    key_imagine, key_update = jax.random.split(key)
    shape = (parts.train.num_elites, parts.config.rollouts // parts.train.num_elites)
    env = _imagined(parts, parts.train, params, partial(_starts, replay, shape))
    batch = imagined.gather(
        env, lambda key, obs: parts.learner.act(policy, key, obs, explore=True), key_imagine, parts.config.horizon
    )
    broken = jnp.mean(batch.extras.astype(jnp.float32))
    if not parts.config.bootstrap:
        batch = without_beyond(batch)
    policy, metrics = parts.learner.update(policy, key_update, batch)
    return policy, metrics | {"imagined_broken": broken}


def without_beyond(batch: Transition) -> Transition:
    """Imagined episodes [B, T] that are worth nothing beyond their horizon, which then is an end like any other.

    A step at which the model broke (``extras``) stays a truncation, whose value the learner's critic tells: ended at 0,
    it would beat whatever costs more.
    """
    return batch._replace(terminated=batch.terminated | (batch.truncated & ~batch.extras))


def judge(parts: _Parts, params: ensemble.Params, key: Key, replay: Replay, policy: PyTree) -> Look:
    """How the policy without noise does in each member."""
    key = jax.random.clone(key)  # used again on purpose: returns of one epoch compare
    members = parts.judge.num_elites
    shape = (members, parts.config.rollouts // members)

    def begin(key: Key) -> Array:
        starts = _starts(replay, shape[1:], key)
        return jnp.broadcast_to(starts, shape + starts.shape[1:])

    env = _imagined(parts, parts.judge, params, begin)
    batch = imagined.gather(
        env, lambda key, obs: parts.learner.act(policy, key, obs, explore=False), key, parts.config.horizon
    )
    return Look(*(leaf.reshape(shape) for leaf in first_episodes(batch)))


def first_episodes(batch: Transition) -> tuple[Array, Array]:
    """Of each row's first episode, [B, T] -> ([B], bool [B]): the undiscounted return, and whether it did not break."""
    ended = (batch.terminated | batch.truncated).astype(jnp.int32)
    first = jnp.cumsum(ended, axis=1) - ended == 0
    return jnp.sum(jnp.where(first, batch.reward, 0.0), axis=1), ~jnp.any(first & batch.extras, axis=1)


def _starts(replay: Replay, shape: tuple[int, ...], key: Key) -> Array:
    return replays.take(replay, replays.uniform_index(key, shape, replays.num_transitions(replay))).obs


def _imagined(parts: _Parts, model: Ensemble, params: ensemble.Params, begin: Any) -> Environment:
    return imagined.make(parts.spec, model.world, params, begin, horizon=parts.config.horizon)


def preset(name: str, spec: Spec) -> Preset:
    """``small``: minutes on a laptop's CPU. ``paper``: the paper's sizes, for accelerators. Raises ConfigError."""
    return choose(name, spec, {"small": _small, "paper": _paper})


def _small(spec: Spec) -> Preset:
    """Sized for two cores."""
    agent = Config(
        horizon=50,
        rollouts=100,
        bootstrap=True,
        max_updates=50,
        model=_ensemble((64, 64), spec),
        fit=fitting.Config(learning_rate=3e-3, batch_size=64, passes=60, bootstrap=False, holdout_every=5, patience=10),
        policy=trpo.Config(max_kl=0.03, lambda_=0.95),
    )
    steps = min(spec.episode_length, 200)
    return Preset(agent, Schedule(epochs=12, prefill=2 * steps, epoch_steps=steps, eval_episodes=4))


# Widths of the model, imagined steps of an episode (Kurutach et al. 2018, App. A, and the released settings).
_PAPER = {"brax/halfcheetah": (1024, 100), "brax/swimmer": (512, 200)}


def _paper(spec: Spec) -> Preset:
    """The paper's own where it differs, and half-cheetah's for any other task."""
    width, horizon = _PAPER.get(spec.name, _PAPER["brax/halfcheetah"])
    agent = Config(horizon=horizon, model=_ensemble((width, width), spec))
    return Preset(agent, Schedule(epochs=100, prefill=3000, epoch_steps=3000))
