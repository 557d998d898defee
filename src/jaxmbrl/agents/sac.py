"""SAC, or TD3 with ``policy``: the model-free yardstick (Haarnoja et al. 2018, arXiv:1812.05905).

after each step:  ``updates`` gradient steps on batches of replayed transitions
"""

from typing import Any

from jaxmbrl import policies
from jaxmbrl.agents import off_policy
from jaxmbrl.agents.presets import Preset, choose
from jaxmbrl.config import configurable, option
from jaxmbrl.policies import sac
from jaxmbrl.schedule import Schedule
from jaxmbrl.types import Agent, Environment, Spec


@configurable
class Config:
    """A learner, and how often it learns from how much."""

    policy: Any = option(sac.Config(), "what learns from transitions", parts=policies.CONFIGS)
    batch_size: int = option(256, "transitions of a gradient step (B)", low=1)
    updates: int = option(1, "gradient steps after each interaction", low=1)


def make(spec: Spec, config: Config | None = None, *, env: Environment | None = None) -> Agent:
    """Bind the learner to an environment. Raises ValueError where actions are discrete."""
    del env
    config = config or Config()
    return off_policy.model_free(policies.make_actor_critic(spec, config.policy), config.batch_size, config.updates)


def preset(name: str, spec: Spec) -> Preset:
    """``small``: minutes on a laptop's CPU. ``paper``: the paper's sizes, for accelerators. Raises ConfigError."""
    return choose(name, spec, {"small": _small, "paper": _paper})


SMALL_POLICY = sac.Config(hidden=(64, 64), learning_rate=1e-3)


def _small(spec: Spec) -> Preset:
    return Preset(Config(policy=SMALL_POLICY, batch_size=128), Schedule(epochs=48, prefill=400, epoch_steps=200))


def _paper(spec: Spec) -> Preset:
    return Preset(Config(), Schedule(epochs=1000, prefill=5000, epoch_steps=1000, eval_episodes=10))
