"""STEVE: stochastic ensemble value expansion (Buckman et al. 2018, arXiv:1807.01675, Sec. 3).

    each fit:         fit an ensemble of models to all data
    after each step:  ``updates`` gradient steps of an off-policy learner; a critic's target is the mean over all
                      horizons 0..H, each weighted by how well models, rewards and critics agree on it

Differs from the paper: a model's transition, reward and termination are one network, and the termination is the
model's own; known rewards and terminations are used rather than learned, so that reward functions disagree only where
the reward is learned; the models are fitted once in a while to all data, rather than at every step.
"""

import dataclasses
from functools import partial
from typing import Any

import jax.numpy as jnp

from jaxmbrl.agents import expansion
from jaxmbrl.agents.expansion import Expansion, Parts
from jaxmbrl.agents.mve import DDPG, PAPER_FIT, PAPER_SCHEDULE, SMALL, SMALL_SCHEDULE, model_config, paper_model
from jaxmbrl.agents.presets import Preset, choose
from jaxmbrl.config import configurable, option
from jaxmbrl.models import ensemble, fitting
from jaxmbrl.policies import CONFIGS
from jaxmbrl.policies.actor_critic import Examples
from jaxmbrl.types import Agent, Environment, Metrics, Spec
from jaxmbrl.values.expansion import candidate_targets, steve


@configurable
class Config:
    """A learner, models, and how far they expand values; the defaults are those of the released code."""

    horizon: int = option(3, "imagined steps at most (H)", low=0)
    policy: Any = option(dataclasses.replace(DDPG, critics=4), "what learns from transitions", parts=CONFIGS)
    model: ensemble.Members = option(paper_model(None, 4), "what is learned of the world")
    fit: fitting.Config = option(PAPER_FIT, "how the models learn")
    batch_size: int = option(512, "transitions of a gradient step (B)", low=1)
    updates: int = option(4, "gradient steps after each interaction", low=1)
    covariance: bool = option(False, "weigh horizons by their covariance, rather than by their variances alone")


def make(spec: Spec, config: Config | None = None, *, env: Environment | None = None) -> Agent:
    """Bind STEVE to an environment. Raises ConfigError as `one_step.make` does."""
    del env
    config = config or Config()
    return expansion.make(spec, config, partial(weighed, covariance=config.covariance), every_reward=True)


def weighed(parts: Parts, rows: Expansion, *, covariance: bool = False) -> tuple[Examples, Metrics]:
    """One example [1]: the replayed state and action, with the mean of all horizons' targets by their certainty."""
    discount = parts.learner.discount * rows.continues
    candidates = candidate_targets(rows.reward, discount, rows.value)  # [H + 1, M L K], by model first
    result = steve(candidates, covariance=covariance)
    of_model = jnp.swapaxes(candidates.reshape((*discount.shape, -1)), 0, 1)
    broken = ~jnp.all(jnp.isfinite(of_model), axis=(1, 2))
    examples = Examples(rows.obs[:1, 0], rows.action[:1, 0], result.target[None], jnp.ones(1))
    metrics = {"model_share": 1.0 - result.weight[0], "broken_rollouts": jnp.mean(broken.astype(jnp.float32))}
    return examples, metrics


def preset(name: str, spec: Spec) -> Preset:
    """``small``: minutes on a laptop's CPU. ``paper``: the paper's sizes, for accelerators. Raises ConfigError."""
    return choose(name, spec, {"small": _small, "paper": _paper})


def _small(spec: Spec) -> Preset:
    return Preset(Config(model=model_config(spec, (64, 64), 4), **SMALL), SMALL_SCHEDULE)


def _paper(spec: Spec) -> Preset:
    return Preset(Config(model=paper_model(spec, 4)), PAPER_SCHEDULE)
