"""DQN, double by default: the yardstick for discrete actions (van Hasselt et al. 2016, arXiv:1509.06461).

after each step:  ``updates`` gradient steps on batches of replayed transitions

Observations are vectors, or grids such as MinAtar's, which a small convolution reads. Presets: ``small``, and ``paper``
with the numbers of MinAtar's own baseline (Young and Tian 2019, arXiv:1903.03176).
"""

from jaxmbrl.agents import off_policy
from jaxmbrl.agents.presets import Preset, choose
from jaxmbrl.config import configurable, option
from jaxmbrl.policies import dqn
from jaxmbrl.schedule import Schedule
from jaxmbrl.types import Agent, Environment, Spec


@configurable
class Config:
    """A learner, and how often it learns from how much."""

    policy: dqn.Config = option(dqn.Config(), "what learns from transitions")
    batch_size: int = option(32, "transitions of a gradient step (B)", low=1)
    updates: int = option(1, "gradient steps after each interaction", low=1)


def make(spec: Spec, config: Config | None = None, *, env: Environment | None = None) -> Agent:
    """Bind the learner to an environment. Raises ValueError as `policies.dqn.make` does."""
    del env
    config = config or Config()
    return off_policy.model_free(dqn.make(spec, config.policy), config.batch_size, config.updates)


def preset(name: str, spec: Spec) -> Preset:
    """``small``: minutes on a laptop's CPU. ``paper``: five million steps, for accelerators. Raises ConfigError."""
    return choose(name, spec, {"small": _small, "paper": _paper})


def _small(spec: Spec) -> Preset:
    policy = dqn.Config(
        hidden=(128,) if spec.is_grid else (64, 64),
        optimiser="adam",
        learning_rate=1e-3,
        target_every=1,
        target_rate=0.01,
        last_epsilon=0.05,
        decay=3000,
    )
    return Preset(
        Config(policy=policy, batch_size=64), Schedule(epochs=25 if spec.is_grid else 45, prefill=1000, epoch_steps=200)
    )


def _paper(spec: Spec) -> Preset:
    return Preset(Config(), Schedule(epochs=500, prefill=5000, epoch_steps=10_000, capacity=100_000))
