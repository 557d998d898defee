"""PlaNet: planning in the latent space of a recurrent state-space model (Hafner et al. 2019, arXiv:1811.04551, Alg. 1).

    each fit:   ``updates`` gradient steps of the model on replayed sequences
    each step:  filter what is seen; CEM on imagined rewards from there, always anew; take the first action, and noise

Differs from the paper: see `models.rssm`; imagination also ends where the model thinks that the episode does, since
tasks here may terminate; fitting is due at fixed steps rather than at the end of each episode; CEM's Gaussian begins
with a quarter of the actions' range and stays within it (see `planners.cem`), where the paper's begins with half the
range and is cut off; pixels keep their 8 bits, where the paper's have 5.
"""

from functools import partial
from typing import Any, NamedTuple

import jax

from jaxmbrl import planners
from jaxmbrl.agents import latent
from jaxmbrl.agents.latent import Learning, Memory, ModelState
from jaxmbrl.agents.presets import Preset, choose
from jaxmbrl.config import configurable, option
from jaxmbrl.models import latent_model, optimisers, rssm
from jaxmbrl.models.latent_model import LatentModel
from jaxmbrl.planners import cem, receding
from jaxmbrl.planners.candidates import supported
from jaxmbrl.replay import Replay
from jaxmbrl.schedule import Schedule
from jaxmbrl.types import Agent, Array, Environment, Key, Metrics, Planner, Spec, TimeStep


@configurable
class Config:
    """A latent model, and a planner on it; the defaults are the paper's (App. A) and the released code's."""

    horizon: int = option(12, "steps that are planned ahead (H)", low=1)
    updates: int = option(100, "gradient steps of the model, each time that it is fitted", low=1)
    action_noise: float = option(0.3, "std of the noise added to actions, in units of half the range", low=0.0)
    model: rssm.Config = option(rssm.Config(), "what is planned on")
    fit: latent.Fit = option(latent.Fit(), "how the model learns")
    planner: Any = option(
        cem.Config(population=1000, elites=100, iterations=10, alpha=0.0),
        "how plans are found, anew at each step",
        parts=planners.CONFIGS,
    )


class _Parts(NamedTuple):
    """What the functions below are bound to."""

    spec: Spec
    config: Config
    model: LatentModel
    learning: Learning
    planner: Planner


def make(spec: Spec, config: Config | None = None, *, env: Environment | None = None) -> Agent:
    """Bind PlaNet to an environment. Raises ConfigError, or ValueError where actions are discrete."""
    del env
    config = config or Config()
    model = rssm.make(spec, config.model)
    planner = planners.make((config.horizon, spec.box.size), spec.box.low, spec.box.high, config.planner)
    parts = _Parts(spec, config, model, latent.learning(model, config.fit), planner)
    return Agent(
        init=parts.learning.init,
        memory=lambda state, key: latent.nothing_seen(model, spec),
        act=partial(_act, parts),
        fit=partial(_fit, parts),
        improve=lambda state, key, replay: (state, {}),
        foresee=lambda state, *seen, **options: latent_model.foresee(model, state.params, *seen, **options),
        window=parts.learning.window,
    )


def _act(
    parts: _Parts, state: ModelState, key: Key, memory: Memory, timestep: TimeStep, *, explore: bool
) -> tuple[Array, Memory, tuple[()]]:
    key_perceive, key_plan, key_noise = jax.random.split(key, 3)
    belief = latent.perceive(parts.model, state.params, key_perceive, memory, timestep)
    objective = receding.objective(parts.model.world, state.params, belief)
    solution, _, info = parts.planner.plan(key_plan, objective, parts.planner.init())
    action = supported(solution[0], info)
    if explore:
        action = latent.disturb(key_noise, action, parts.spec.box, parts.config.action_noise)
    return action, latent.remember(belief, action), ()


def _fit(parts: _Parts, state: ModelState, key: Key, replay: Replay) -> tuple[ModelState, Metrics]:
    def step(state: ModelState, key: Key) -> tuple[ModelState, Metrics]:
        state, metrics, _, _ = parts.learning.update(state, key, replay)
        return state, metrics

    state, metrics = jax.lax.scan(step, state, jax.random.split(key, parts.config.updates))
    return state, latent.mean_of(metrics)


def preset(name: str, spec: Spec) -> Preset:
    """``small``: minutes on a laptop's CPU. ``paper``: the paper's sizes, for accelerators. Raises ConfigError."""
    return choose(name, spec, {"small": _small, "paper": _paper})


def small_model(spec: Spec) -> rssm.Config:
    """A model for two cores."""
    return rssm.Config(
        deter=128,
        stoch=16,
        hidden=64,
        layers=(64, 64),
        embedding=64,
        depth=16,
        activation="swish",
        norm=True,
        free_nats=1.0,
        dynamics_scale=1.0,
        representation_scale=0.1,
        # Numbers of a vector shall be told to within a tenth.
        observation_scale=1.0 if spec.is_image or spec.is_grid else 10.0,
        reward_scale=10.0,
    )


SMALL_FIT = latent.Fit(optimiser=optimisers.Config(learning_rate=2e-3), batch_size=16, length=32)


def _small(spec: Spec) -> Preset:
    agent = Config(
        horizon=20,
        updates=200,
        action_noise=0.1,
        model=small_model(spec),
        fit=SMALL_FIT,
        planner=cem.Config(population=100, elites=10, iterations=4),
    )
    return Preset(agent, Schedule(epochs=45, prefill=1000, epoch_steps=200))


def _paper(spec: Spec) -> Preset:
    """Actions are repeated by the environment (``action_repeat``): 8 times for cart-pole, 2 to 4 for others."""
    steps = spec.episode_length
    return Preset(Config(), Schedule(epochs=1000, prefill=5 * steps, epoch_steps=steps))
