"""What fresh episodes of an agent tell of its model: drift, calibration, returns, regret.

The episodes are of no exploration and of their own random numbers, so the model has seen none of them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl import replay as replays
from jaxmbrl.diagnostics import calibration, horizon, mismatch, predictive
from jaxmbrl.models import ensemble, one_step, simulator
from jaxmbrl.models.angles import wrap
from jaxmbrl.replay import Replay
from jaxmbrl.training.evaluation import rollout
from jaxmbrl.training.loop import random_action
from jaxmbrl.training.runner import Program
from jaxmbrl.types import Agent, Array, Key, PyTree, Spec, TimeStep, Transition

HORIZON = 25  # steps that are imagined
CONTEXT = 5  # steps that a model which filters is shown before
WINDOWS = 64  # places that imagination starts from
STATES = 16  # that are planned from
REPLAYED = 256  # transitions of the training data, for comparison
PARTICLES, FEW_PARTICLES, LARGE = 40, 8, 256  # particles, and those of observations with more entries than LARGE
BROKEN = 1e3  # A particle further off than that, in standard deviations, counts as that far off.


class Episodes(NamedTuple):
    """B episodes of T steps; what lies beyond an end is a repetition.

    Attributes:
        timesteps: leaves [B, T + 1, ...].
        actions: [B, T, A].
        length: int32 [B], steps until the end.
    """

    timesteps: TimeStep
    actions: Array
    length: Array

    @property
    def running(self) -> Array:
        """Steps that were made, bool [B, T]."""
        return jnp.arange(self.actions.shape[1]) < self.length[:, None]


class OpenLoop(NamedTuple):
    """W stretches of H steps, imagined under the actions that were really taken.

    Attributes:
        square_error: [W, H], see `horizon.Drift`.
        var: [W, H].
        standstill: [W, H].
        below: [W, H, O], the particles' cumulative distribution at the truth.
        running: bool [W, H], steps within the episode.
        predicted: [W], the imagined return of the H steps.
        obtained: [W], the real one.
    """

    square_error: Array
    var: Array
    standstill: Array
    below: Array
    running: Array
    predicted: Array
    obtained: Array


class OneStep(NamedTuple):
    """Single steps, of fresh episodes and of the training data (R transitions).

    Attributes:
        surprise: [B, T], negative log-likelihood, nats an entry of the observation, in units of its typical change;
            nan for models without a density.
        replayed: [R], the same of the training data.
        below: [B, T, O], the predicted cumulative distribution at the truth.
        running: bool [B, T].
        stakes: [W, H], what a typical one-step error at each step of an imagined stretch changes its return by.
    """

    surprise: Array
    replayed: Array
    below: Array
    running: Array
    stakes: Array


class Findings(NamedTuple):
    """All of one seed; None for what does not apply to its system.

    Attributes:
        returns: [B], of the episodes.
        open_loop: imagination against truth.
        one_step: predictions of single steps.
        regret: of plans, see `mismatch.Regret`.
    """

    returns: Array
    open_loop: OpenLoop | None
    one_step: OneStep | None
    regret: mismatch.Regret | None


class Probe(NamedTuple):
    """Compiled on first use, and then the same for every seed of a run.

    Attributes:
        record: ``(agent_state, key) -> Episodes``.
        judge: ``(agent_state, replay, key, Episodes) -> Findings``.
    """

    record: Callable[[PyTree, Key], Episodes]
    judge: Callable[[PyTree, Replay, Key, Episodes], Findings]


def make(program: Program, episodes: int) -> Probe:
    """Bind a probe of ``episodes`` episodes a seed to a run's environment and agent."""
    env, agent = program.env, program.agent

    def record(agent_state: PyTree, key: Key) -> Episodes:
        keys = jax.random.split(key, episodes)
        timesteps, actions = jax.vmap(rollout(env, agent), in_axes=(None, 0))(agent_state, keys)
        ended = timesteps.terminated | timesteps.truncated
        return Episodes(timesteps, actions, jnp.argmax(ended, axis=1))  # an episode always ends

    return Probe(jax.jit(record), jax.jit(partial(_judge, program)))


def _judge(program: Program, agent_state: PyTree, replay: Replay, key: Key, episodes: Episodes) -> Findings:
    env, agent = program.env, program.agent
    key_start, key_imagine, key_replay, key_plan = jax.random.split(key, 4)
    imagination = _imagination(env.spec, agent, agent_state)
    steps = min(HORIZON, env.spec.episode_length - CONTEXT)
    open_loop = single = regret = None
    if imagination and steps > 0:
        windows = _windows(key_start, episodes, imagination.context + steps)
        open_loop = _open_loop(imagination, key_imagine, windows)
        if agent.predictors:
            single = _one_step(env.spec, agent.predictors(agent_state), key_replay, replay, episodes, windows)
    if agent.plan and agent.predictors:  # one that plans on the truth already has nothing to regret
        plan, truth = partial(agent.plan, agent_state), simulator.make(env)
        starts = _windows(key_start, episodes, 1, num=STATES).timesteps
        starts = jax.tree.map(lambda leaf: leaf[:, 0], starts)
        length = jax.eval_shape(plan, key_plan, jax.tree.map(lambda leaf: leaf[0], starts)).shape[0]
        randomly = lambda key: jax.vmap(partial(random_action, spec=env.spec))(jax.random.split(key, length))  # noqa: E731
        regret = mismatch.planner_regret(env, key_plan, starts, plan, partial(plan, world=truth), randomly)
    return Findings(jnp.sum(episodes.timesteps.reward, axis=1), open_loop, single, regret)


class Windows(NamedTuple):
    """W stretches of episodes: timesteps [W, T + 1, ...], actions [W, T, A], running bool [W, T]."""

    timesteps: TimeStep
    actions: Array
    running: Array


def _windows(key: Key, episodes: Episodes, steps: int, num: int = WINDOWS) -> Windows:
    """Random stretches, within their episode where it is long enough."""
    key_which, key_when = jax.random.split(key)
    which = jax.random.randint(key_which, (num,), 0, len(episodes.length))
    when = jax.random.randint(key_when, (num,), 0, jnp.maximum(episodes.length[which] - steps + 1, 1))

    def cut(leaf: Array, extra: int = 0) -> Array:
        one = lambda which, when: jax.lax.dynamic_slice_in_dim(leaf[which], when, steps + extra)  # noqa: E731
        return jax.vmap(one)(which, when)

    timesteps = jax.tree.map(partial(cut, extra=1), episodes.timesteps)
    return Windows(timesteps, cut(episodes.actions), cut(episodes.running))


class Imagined(NamedTuple):
    """One window: residual [P, H, O], start [O], truth [H, O], reward [P, H], discount [P, H]."""

    residual: Array
    start: Array
    truth: Array
    reward: Array
    discount: Array


class Imagination(NamedTuple):
    """How an agent's model imagines.

    Attributes:
        context: steps that it is shown first.
        run: ``(key, timesteps [C + H + 1], actions [C + H]) -> Imagined``.
    """

    context: int
    run: Callable[[Key, TimeStep, Array], Imagined]


def _imagination(spec: Spec, agent: Agent, agent_state: PyTree) -> Imagination | None:
    """Of an agent's one-step models or of its latent one; None where it has neither."""
    difference = _difference(spec)
    if agent.predictors:
        predictors = agent.predictors(agent_state)
        members = jax.tree.leaves(predictors.members)[0].shape[0]
        particles = -(-(PARTICLES if spec.obs_size <= LARGE else FEW_PARTICLES) // members)

        def travel(key: Key, timesteps: TimeStep, actions: Array) -> Imagined:
            told = horizon.forecast(predictors, key, timesteps.obs[0], actions, particles)
            told = jax.tree.map(lambda leaf: leaf.reshape((-1, *leaf.shape[2:])), told)
            truth = timesteps.obs[1:]
            return Imagined(difference(told.obs, truth), timesteps.obs[0], truth, told.reward, told.discount)

        return Imagination(0, travel)
    if agent.foresee:
        size = sum(leaf.size for leaf in jax.tree.leaves(spec.observation))
        particles = PARTICLES if size <= LARGE else FEW_PARTICLES

        def foresee(key: Key, timesteps: TimeStep, actions: Array) -> Imagined:
            assert agent.foresee is not None  # asked above
            known = partial(agent.foresee, agent_state, context=CONTEXT + 1)
            told = jax.vmap(known, in_axes=(0, None, None))(jax.random.split(key, particles), timesteps, actions)
            seen, imagined = (leaf.reshape((*leaf.shape[:2], -1)) for leaf in (told.seen, told.imagined))
            truth = seen[0, CONTEXT + 1 :]
            residual = difference(imagined[:, CONTEXT + 1 :], truth)
            return Imagined(residual, seen[0, CONTEXT], truth, told.reward, told.discount)

        return Imagination(CONTEXT, foresee)
    return None


def _difference(spec: Spec) -> Callable[[Array, Array], Array]:
    """Of observations [..., O], angles within half a turn."""
    return lambda a, b: jnp.vectorize(partial(wrap, angles=spec.angles), signature="(o)->(o)")(a - b)


def _open_loop(imagination: Imagination, key: Key, windows: Windows) -> OpenLoop:
    keys = jax.random.split(key, WINDOWS)
    told = jax.lax.map(lambda window: imagination.run(*window), (keys, windows.timesteps, windows.actions))
    running = windows.running[:, imagination.context :]
    weight = running[..., None] / jnp.maximum(jnp.sum(running), 1)
    mean = jnp.sum(weight * told.truth, axis=(0, 1))
    std = jnp.sqrt(jnp.sum(weight * jnp.square(told.truth - mean), axis=(0, 1)))
    scale = jnp.where(std < one_step.MIN_STD, 1.0, std)
    residual = jnp.nan_to_num(told.residual / scale, nan=BROKEN, posinf=BROKEN, neginf=-BROKEN)
    residual = jnp.clip(residual, -BROKEN, BROKEN)
    change = (told.truth - told.start[:, None]) / scale
    drift = jax.vmap(horizon.drift, in_axes=(0, 0, None))(residual, change, jnp.ones_like(scale))
    return OpenLoop(
        *drift,
        below=jax.vmap(calibration.rank_of)(residual, jnp.zeros_like(told.truth)),
        running=running,
        predicted=jax.vmap(horizon.imagined_return)(told.reward, told.discount),
        obtained=jnp.sum(windows.timesteps.reward[:, imagination.context + 1 :], axis=1),
    )


def _one_step(
    spec: Spec, predictors: ensemble.Predictors, key: Key, replay: Replay, episodes: Episodes, windows: Windows
) -> OneStep:
    seen, running = episodes.timesteps, episodes.running
    fresh = Transition(
        jax.tree.map(lambda leaf: leaf[:, :-1], seen.obs),
        episodes.actions,
        *jax.tree.map(lambda leaf: leaf[:, 1:], (seen.reward, seen.obs, seen.terminated, seen.truncated)),
    )
    judge = partial(predictive.judge, predictors)
    judged = jax.vmap(jax.vmap(judge))(fresh)
    share = running[..., None] / jnp.maximum(jnp.sum(running), 1)
    mean_square = lambda x: jnp.sum(share * jnp.square(x), axis=(0, 1))  # noqa: E731
    scale = jnp.sqrt(mean_square(judged.change))
    scale = jnp.where(scale < one_step.MIN_STD, 1.0, scale)
    error = jnp.sqrt(mean_square(jnp.mean(judged.mean, axis=2) - judged.change))

    def surprise(judged: predictive.Judged) -> Array:
        mean, std, change = (leaf / scale for leaf in judged)
        density = predictive.log_likelihood(mean, jnp.where(std > 0, std, 1.0), change) / change.shape[-1]
        return jnp.where(jnp.all(std > 0), -density, jnp.nan)

    def stakes(timesteps: TimeStep, actions: Array) -> Array:  # mean over the members
        def one(member: one_step.Params) -> Array:
            slope = mismatch.value_sensitivity(partial(predictors.base.mean_outcome, member), timesteps.obs[0], actions)
            return jnp.sqrt(jnp.sum(jnp.square(slope * error), axis=-1))

        return jnp.mean(jax.vmap(one)(predictors.members), axis=0)

    return OneStep(
        surprise=jax.vmap(jax.vmap(surprise))(judged),
        replayed=jax.vmap(surprise)(jax.vmap(judge)(replays.sample(key, replay, REPLAYED)._replace(extras=()))),
        below=jax.vmap(jax.vmap(predictive.probability_below))(*judged),
        running=running,
        stakes=jax.vmap(stakes)(windows.timesteps, windows.actions),
    )


def pool(findings: list[Findings]) -> Findings:
    """Several seeds as one, along the first axis of every array; on the host."""
    together: Any = jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves]), *findings)
    return together
