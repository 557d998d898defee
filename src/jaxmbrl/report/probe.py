"""What fresh episodes of an agent tell of its model: drift, calibration, returns, regret.

The episodes are of no exploration and of their own random numbers, so the model has seen none of them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl import replay as replays
from jaxmbrl.diagnostics import calibration, horizon, mismatch, predictive
from jaxmbrl.models import ensemble, one_step, simulator
from jaxmbrl.replay import Replay
from jaxmbrl.report import windows
from jaxmbrl.report.windows import Episodes, Imagination, Windows, cut_windows
from jaxmbrl.training import compiling
from jaxmbrl.training.evaluation import rollout
from jaxmbrl.training.loop import random_action
from jaxmbrl.training.runner import Program
from jaxmbrl.types import Array, Key, PyTree, Spec, TimeStep, Transition

HORIZON = 25  # steps that are imagined
WINDOWS = 64  # places that imagination starts from
STATES = 16  # that are planned from
REPLAYED = 256  # transitions of the training data, for comparison
Values: TypeAlias = Any  # an array of JAX within a program, of NumPy once `pool` has seen it

BROKEN = 1e3  # A particle further off than that, in standard deviations, counts as that far off.


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

    square_error: Values
    var: Values
    standstill: Values
    below: Values
    running: Values
    predicted: Values
    obtained: Values


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

    surprise: Values
    replayed: Values
    below: Values
    running: Values
    stakes: Values


class Findings(NamedTuple):
    """All of one seed; None for what does not apply to its system.

    Attributes:
        returns: [B], of the episodes.
        open_loop: imagination against truth.
        one_step: predictions of single steps.
        regret: of plans, see `mismatch.Regret`.
    """

    returns: Values
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

    options = compiling.options(env.spec)
    return Probe(jax.jit(record, compiler_options=options), jax.jit(partial(_judge, program), compiler_options=options))


def _judge(program: Program, agent_state: PyTree, replay: Replay, key: Key, episodes: Episodes) -> Findings:
    env, agent = program.env, program.agent
    key_start, key_imagine, key_replay, key_state, key_plan = jax.random.split(key, 5)
    imagination = windows.imagination(env.spec, agent, agent_state)
    steps = min(HORIZON, env.spec.episode_length - windows.CONTEXT)
    open_loop = single = regret = None
    if imagination and steps > 0:
        stretches = cut_windows(key_start, episodes, imagination.context + steps, WINDOWS)
        open_loop = _open_loop(imagination, key_imagine, stretches)
        if agent.predictors:
            single = _one_step(env.spec, agent.predictors(agent_state), key_replay, replay, episodes, stretches)
    if agent.plan and agent.predictors:  # one that plans on the truth already has nothing to regret
        plan, truth = partial(agent.plan, agent_state), simulator.make(env)
        starts = cut_windows(key_state, episodes, 1, STATES).timesteps
        starts = jax.tree.map(lambda leaf: leaf[:, 0], starts)
        length = jax.eval_shape(plan, key_plan, jax.tree.map(lambda leaf: leaf[0], starts)).shape[0]
        randomly = lambda key: jax.vmap(partial(random_action, spec=env.spec))(jax.random.split(key, length))  # noqa: E731
        regret = mismatch.planner_regret(env, key_plan, starts, plan, partial(plan, world=truth), randomly)
    return Findings(jnp.sum(episodes.timesteps.reward, axis=1), open_loop, single, regret)


def _open_loop(imagination: Imagination, key: Key, stretches: Windows) -> OpenLoop:
    keys = jax.random.split(key, WINDOWS)
    told = jax.lax.map(lambda window: imagination.run(*window), (keys, stretches.timesteps, stretches.actions))
    running = stretches.running[:, imagination.context :]
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
        obtained=jnp.sum(stretches.timesteps.reward[:, imagination.context + 1 :], axis=1),
    )


def _one_step(
    spec: Spec, predictors: ensemble.Predictors, key: Key, replay: Replay, episodes: Episodes, stretches: Windows
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
        stakes=jax.vmap(stakes)(stretches.timesteps, stretches.actions),
    )


def pool(findings: list[Findings]) -> Findings:
    """Several seeds as one, along the first axis of every array; on the host."""
    together: Any = jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves]), *findings)
    return together
