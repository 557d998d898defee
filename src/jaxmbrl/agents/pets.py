"""PETS: probabilistic ensembles with trajectory sampling (Chua et al. 2018, arXiv:1805.12114, Alg. 1).

    fill the replay store with one episode of random actions
    each epoch:  fit the bootstrapped ensemble to all data
                 each step:  CEM on the particles' mean return, take the first action, shift the plan

Differs from the paper: targets are normalised as inputs are; each member bounds its log-variance by itself;
minibatches are drawn with replacement from lazily drawn bootstraps (see `models.fitting`); candidates share their noise
(see `planners.receding`).
"""

import dataclasses
from typing import Any

from jaxmbrl import planners
from jaxmbrl.agents import mpc
from jaxmbrl.agents.presets import Preset, choose
from jaxmbrl.config import configurable, option
from jaxmbrl.models import ensemble, fitting, one_step
from jaxmbrl.planners import cem, icem
from jaxmbrl.schedule import Schedule
from jaxmbrl.types import Agent, Environment, Spec
from jaxmbrl.values import state_value


@configurable
class Config:
    """A model, a planner on it, and how far it looks ahead."""

    horizon: int = option(25, "steps that are planned ahead (H)", low=1)
    discount: float = option(1.0, "of rewards along the plan, a step", low=0.0, high=1.0)
    model: Any = option(ensemble.Config(), "what is planned on", parts=mpc.MODELS)
    fit: fitting.Config = option(fitting.Config(), "how the model learns")
    planner: Any = option(cem.Config(population=400, elites=40), "how plans are found", parts=planners.CONFIGS)
    terminal_value: Any = option(state_value.Nothing(), "what counts beyond the horizon", parts=state_value.PARTS)
    prior: Any = option(mpc.NoPrior(), "a policy that plans are around", parts=mpc.PRIORS)


def make(spec: Spec, config: Config | None = None, *, env: Environment | None = None) -> Agent:
    """Bind PETS to an environment; see `mpc.make`."""
    return mpc.make(spec, config or Config(), env=env)


def preset(name: str, spec: Spec) -> Preset:
    """``small``: minutes on a laptop's CPU. ``paper``: the paper's sizes, for accelerators. Raises ConfigError."""
    return choose(name, spec, {"small": _small, "paper": _paper})


def _small(spec: Spec) -> Preset:
    """Sized for two cores. Where episodes may end at any step, the model is refitted every 25 steps."""
    agent = Config(
        horizon=25,
        model=ensemble.Config(member=one_step.complete(one_step.Config(hidden=(64, 64)), spec), particles=5),
        fit=fitting.Config(learning_rate=3e-3, batch_size=64, passes=100),
        planner=cem.Config(population=100, elites=10, iterations=4),
    )
    if spec.name == "brax/inverted_pendulum":
        return Preset(_valued(agent), Schedule(epochs=14, prefill=10, epoch_steps=200, fits_per_epoch=20))
    if spec.reward is not None and spec.termination is None:  # episodes never end early
        steps = min(spec.episode_length, 200)
        return Preset(agent, Schedule(epochs=11, prefill=steps, epoch_steps=steps))
    return Preset(agent, Schedule(epochs=8, prefill=25, epoch_steps=200, fits_per_epoch=8))


def _valued(agent: Config) -> Config:
    """For a task that pays for lasting: plans that survive the horizon are equal, but for the value of their ends.

    Those ends are worth asking about if they can be foreseen: the members' mean, since particles of an unstable pole
    part within the horizon, and `icem` with little noise, which keeps a plan until it finds a better one.
    """
    return dataclasses.replace(
        agent,
        model=dataclasses.replace(agent.model, propagation="expectation"),
        planner=icem.Config(population=100, decay=1.0, iterations=4, std=0.2),
        terminal_value=state_value.Config(expectile=0.5),
    )


# Hidden widths, weight decay of each layer, candidates, horizon, epochs, steps an episode (Chua et al. 2018, App. A.3,
# and the released configurations). Brax's reacher and pusher have episodes of 50 and 100 steps unless
# ``episode_length`` says 150; an epoch of 150 steps is then no single episode.
_PAPER = {
    "cartpole_swingup": ((500,) * 3, (1e-4, 2.5e-4, 2.5e-4, 5e-4), 400, 25, 50, 200),
    "brax/reacher": ((200,) * 4, (2.5e-4, 5e-4, 5e-4, 5e-4, 7.5e-4), 400, 25, 100, 150),
    "brax/pusher": ((200,) * 3, (2.5e-4, 5e-4, 5e-4, 7.5e-4), 500, 25, 100, 150),
    "brax/halfcheetah": ((200,) * 4, (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4), 500, 30, 300, 1000),
}


def _paper(spec: Spec) -> Preset:
    """The paper's own for its four tasks, and half-cheetah's for any other."""
    default = (*_PAPER["brax/halfcheetah"][:5], spec.episode_length)
    hidden, decay, population, horizon, epochs, steps = _PAPER.get(spec.name, default)
    agent = Config(
        horizon=horizon,
        model=ensemble.Config(member=one_step.complete(one_step.Config(hidden=hidden, weight_decay=decay), spec)),
        planner=cem.Config(population=population, elites=population // 10),
    )
    return Preset(agent, Schedule(epochs=epochs, prefill=steps, epoch_steps=steps))
