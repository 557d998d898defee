r"""SAC-SVG(H): soft actor-critic whose actor climbs a model's value (Amos et al. 2020, arXiv:2008.12775, Alg. 1).

    each fit:         fit a deterministic model to all data
    after each step:  ``updates`` gradient steps of SAC; its critics keep the model-free target, its actor maximises

.. math:: \frac{1}{H} E \Big[ \sum_{t<H} D_t \, (r_t - \alpha \log \pi(a_t|s_t))
    + D_H \, (\min_c Q_c(s_H, a_H) - \alpha \log \pi(a_H|s_H)) \Big]

from replayed states, by the gradient through actions, model and critics; D_t is :math:`\gamma^t` times the chance to
get that far. With H = 0 it is SAC.

Differs from the paper: the model is a feed-forward network (the paper's is recurrent, trained on sequences), fitted
once in a while to all data rather than a little at every step; known rewards and terminations are used rather than
learned; the target of the entropy is SAC's, and no schedule of the task's. The horizon of the released code counts the
last state, so that its 3 is a step less.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxmbrl import policies
from jaxmbrl.agents import expansion, off_policy
from jaxmbrl.agents.expansion import Parts, State
from jaxmbrl.agents.mve import SMALL, SMALL_SCHEDULE, model_config
from jaxmbrl.agents.presets import Preset, choose
from jaxmbrl.config import configurable, option
from jaxmbrl.envs.imagined import LIMIT
from jaxmbrl.models import ensemble, fitting, one_step
from jaxmbrl.policies import sac
from jaxmbrl.policies.actor_critic import PolicyLoss, one_step_examples
from jaxmbrl.replay import Replay
from jaxmbrl.schedule import Schedule
from jaxmbrl.types import Agent, Array, Environment, Key, Metrics, PyTree, Spec, Transition


@configurable
class Config:
    """A learner, a model, and through how many steps of it the actor's gradient goes."""

    horizon: int = option(3, "imagined steps (H)", low=0)
    policy: Any = option(
        sac.Config(hidden=(512,) * 4, learning_rate=1e-4, initial_temperature=0.1),
        "what learns from transitions",
        parts=policies.CONFIGS,
    )
    model: ensemble.Members = option(model_config(None, (512, 512), 1), "what is learned of the world")
    fit: fitting.Config = option(fitting.Config(batch_size=1024, passes=5, bootstrap=False), "how the model learns")
    batch_size: int = option(1024, "transitions of a gradient step (B)", low=1)
    updates: int = option(1, "gradient steps after each interaction", low=1)


def make(spec: Spec, config: Config | None = None, *, env: Environment | None = None) -> Agent:
    """Bind SAC-SVG to an environment. Raises ConfigError as `one_step.make` does."""
    del env
    config = config or Config()
    parts = expansion.make_parts(spec, config)
    return expansion.compose(parts, partial(_improve, parts, config))


def _improve(parts: Parts, config: Config, state: State, key: Key, replay: Replay) -> tuple[State, Metrics]:
    objective = partial(policy_loss, parts, ensemble.elite_members(state.model.params))

    def update(policy: Any, key: Key, batch: Transition) -> tuple[Any, Metrics]:
        key_target, key_learn = jax.random.split(key)
        examples = one_step_examples(parts.learner, policy, key_target, batch)
        return parts.learner.learn(policy, key_learn, batch.obs, examples, objective=objective)

    draw = off_policy.replayed(replay, config.batch_size)
    policy, metrics = off_policy.improve(update, draw, config.updates, state.policy, key)
    return state._replace(policy=policy), metrics


def policy_loss(parts: Parts, members: one_step.Params, policy: Any, actor: PyTree, key: Key, obs: Array) -> PolicyLoss:
    """The actor's loss in states [B, O]: the mean of `imagined_value`, negated."""
    size = jax.eval_shape(lambda: parts.learner.act(policy, key, obs[0], explore=False)).shape
    noise = jax.random.normal(key, (obs.shape[0], parts.horizon + 1, *size))
    value, log_prob, broken = jax.vmap(partial(imagined_value, parts, members, policy, actor))(obs, noise)
    metrics = {"broken_rollouts": jnp.mean(broken.astype(jnp.float32))}
    return PolicyLoss(-jnp.mean(value) / max(parts.horizon, 1), log_prob, metrics)


def imagined_value(
    parts: Parts, members: one_step.Params, policy: Any, actor: PyTree, obs: Array, noise: Array
) -> tuple[Array, Array, Array]:
    """The model's value of following an actor from a state, differentiable in the actor.

    Args:
        parts: learner, model and horizon.
        members: of the model, leaves [M, ...]; the mean of their predictions is followed.
        policy: the learner's state: critics and temperature.
        actor: the policy network's parameters.
        obs: [O].
        noise: [H + 1, A], of the policy's actions.

    Returns:
        The value [], the first action's log-probability [], and whether the model broke, bool []: a prediction that is
        not finite or beyond any task's range ends the rollout, and what follows counts as 0.
    """
    learner, base = parts.learner, parts.model.base
    temperature = learner.temperature(policy)

    def step(carry: tuple[Array, Array], noise: Array) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
        obs, weight = carry
        action, log_prob = learner.policy(actor, noise, obs)
        outcomes = jax.vmap(base.mean_outcome, in_axes=(0, None, None))(members, obs, action)
        outcome = jax.tree.map(partial(jnp.mean, axis=0), outcomes)
        sound = jnp.all(jnp.abs(outcome.next_obs) <= LIMIT) & jnp.isfinite(outcome.reward)
        gain = weight * (jnp.where(sound, outcome.reward, 0.0) - temperature * log_prob)
        after = jnp.where(sound, outcome.next_obs, jax.lax.stop_gradient(obs))
        broken = (weight > 0) & ~sound  # and not after an end
        weight = jnp.where(sound, weight * learner.discount * outcome.discount, 0.0)
        return (after, weight), (gain, log_prob, broken)

    (last, weight), (gains, log_probs, broken) = jax.lax.scan(step, (obs, jnp.ones(())), noise[:-1])
    action, log_prob = learner.policy(actor, noise[-1], last)
    value = jnp.min(learner.values(policy.critics, last, action)) - temperature * log_prob
    return jnp.sum(gains) + weight * value, jnp.append(log_probs, log_prob)[0], jnp.any(broken)


def preset(name: str, spec: Spec) -> Preset:
    """``small``: minutes on a laptop's CPU. ``paper``: the paper's sizes, for accelerators. Raises ConfigError."""
    return choose(name, spec, {"small": _small, "paper": _paper})


def _small(spec: Spec) -> Preset:
    return Preset(Config(model=model_config(spec, (64, 64), 1), **SMALL), SMALL_SCHEDULE)


def _paper(spec: Spec) -> Preset:
    agent = Config(model=model_config(spec, (512, 512), 1))
    return Preset(agent, Schedule(epochs=1000, prefill=5000, epoch_steps=1000, fits_per_epoch=4))
