"""MVE: critics on model-based value expansion (Feinberg et al. 2018, arXiv:1803.00101, Alg. 1).

    each fit:         fit the model to all data
    after each step:  ``updates`` gradient steps of an off-policy learner, its critics on H-step targets of a replayed
                      transition and of the H imagined ones that follow it (the TD-k trick)

Differs from the paper: the model is fitted once in a while to all data, rather than at every step; known rewards and
terminations are used rather than learned; a replayed transition whose imagined targets are not finite counts with the
one-step target.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxmbrl.agents import expansion
from jaxmbrl.agents.expansion import Expansion, Parts
from jaxmbrl.agents.presets import Preset, choose
from jaxmbrl.agents.sac import SMALL_POLICY
from jaxmbrl.config import ConfigError, configurable, option
from jaxmbrl.models import ensemble, fitting, one_step
from jaxmbrl.policies import CONFIGS, td3
from jaxmbrl.policies.actor_critic import Examples
from jaxmbrl.schedule import Schedule
from jaxmbrl.types import Agent, Environment, Metrics, Spec
from jaxmbrl.values.expansion import mve, reach

DDPG = td3.Config(
    hidden=(128,) * 4,
    critics=1,
    learning_rate=3e-4,
    exploration=0.1,
    target_noise=0.0,
    delay=1,
    saturation_penalty=1e-3,
)
"""The learner of Buckman et al. 2018, on which they run MVE too.

Differs from their released code: noise on every action, of a std of a tenth of half the range, where theirs replaces
an action's entry by a noisy one with probability 0.05; targets follow slowly, where theirs are copied now and then; the
actor climbs the first critic, where theirs climbs the mean; what is imagined is acted by the target policy, as in MVE's
Alg. 1, where theirs has none; the output layer is not one of the layers.
"""


def model_config(spec: Spec | None, hidden: tuple[int, ...], size: int, **options: Any) -> ensemble.Members:
    """``size`` least-squares networks that all predict, each by itself; ``options`` are those of `one_step.Config`."""
    member = one_step.Config(hidden=hidden, family="deterministic", **options)
    member = one_step.complete(member, spec) if spec else member
    return ensemble.Members(member=member, size=size, elites=size)


def paper_model(spec: Spec | None, size: int) -> ensemble.Members:
    """The transition networks of Buckman et al. 2018 (released code)."""
    return model_config(spec, (512,) * 8, size, activation="relu", weight_decay=(1e-4,) * 9)


PAPER_FIT = fitting.Config(learning_rate=3e-4, batch_size=512, passes=5)


@configurable
class Config:
    """A learner, a model, and how far it expands values."""

    horizon: int = option(3, "imagined steps (H)", low=0)
    policy: Any = option(DDPG, "what learns from transitions", parts=CONFIGS)
    model: ensemble.Members = option(paper_model(None, 1), "what is learned of the world")
    fit: fitting.Config = option(dataclasses.replace(PAPER_FIT, bootstrap=False), "how the model learns")
    batch_size: int = option(512, "transitions of a gradient step (B)", low=1)
    updates: int = option(4, "gradient steps after each interaction", low=1)
    every_state: bool = option(True, "critics learn on imagined states too (the TD-k trick)")

    def check(self) -> None:
        """One model expands: STEVE is what several are for."""
        if self.model.elites != 1:
            raise ConfigError(f"model.elites: got {self.model.elites}, needs 1; several models are the system steve")


def make(spec: Spec, config: Config | None = None, *, env: Environment | None = None) -> Agent:
    """Bind MVE to an environment. Raises ConfigError as `one_step.make` does."""
    del env
    config = config or Config()
    target = expanded if config.every_state else lambda parts, rows: _only_first(expanded(parts, rows))
    return expansion.make(spec, config, target)


def expanded(parts: Parts, rows: Expansion) -> tuple[Examples, Metrics]:
    """Examples [H + 1]: each state and action of an expansion by one model, with its target."""
    discount = parts.learner.discount * rows.continues  # [H + 1, M]
    reward, value = jnp.mean(rows.reward, axis=-1), jnp.min(rows.value, axis=-1)
    targets = mve(reward[:, 0], discount[:, 0], value[-1, 0])
    one_step_target = reward[0, 0] + jnp.where(discount[0, 0] == 0, 0.0, discount[0, 0] * value[0, 0])
    sound = jnp.all(jnp.isfinite(targets))
    is_first = jnp.arange(len(targets)) == 0
    examples = Examples(
        obs=jnp.where(sound | is_first[:, None], rows.obs[:, 0], 0.0),
        action=jnp.where(sound | is_first[:, None], rows.action[:, 0], 0.0),
        target=jnp.where(sound, targets, jnp.where(is_first, one_step_target, 0.0)),
        weight=jnp.where(sound | is_first, reach(rows.continues[:, 0]), 0.0),
    )
    return examples, {"broken_rollouts": 1.0 - sound.astype(jnp.float32)}


def _only_first(result: tuple[Examples, Metrics]) -> tuple[Examples, Metrics]:
    examples, metrics = result
    return Examples(*(leaf[:1] for leaf in examples)), metrics


def preset(name: str, spec: Spec) -> Preset:
    """``small``: minutes on a laptop's CPU. ``paper``: the paper's sizes, for accelerators. Raises ConfigError."""
    return choose(name, spec, {"small": _small, "paper": _paper})


SMALL: dict[str, Any] = {
    "policy": SMALL_POLICY,
    "fit": fitting.Config(learning_rate=3e-3, batch_size=64, passes=30),
    "batch_size": 128,
    "updates": 2,
}
SMALL_SCHEDULE = Schedule(epochs=18, prefill=400, epoch_steps=200, fits_per_epoch=2)
PAPER_SCHEDULE = Schedule(epochs=500, prefill=10_000, epoch_steps=1000, fits_per_epoch=4)


def _small(spec: Spec) -> Preset:
    return Preset(Config(model=model_config(spec, (64, 64), 1), **SMALL), SMALL_SCHEDULE)


def _paper(spec: Spec) -> Preset:
    return Preset(Config(model=paper_model(spec, 1)), PAPER_SCHEDULE)
