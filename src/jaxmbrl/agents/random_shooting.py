"""Random-shooting MPC: the model-based half of Nagabandi et al. 2017 (arXiv:1708.02596, Alg. 1).

    fill the replay store with random actions (ten episodes, one in the small preset)
    each epoch:  fit one deterministic network to all data
                 each step:  the best of K random action sequences, take its first action

Differs from the paper: no noise is added to the training data; minibatches are uniform over all data, where the
paper's prefer the newer (9 of 10); the controller's own episodes are not held apart from one that validates.
"""

from typing import Any

from jaxmbrl import planners
from jaxmbrl.agents import mpc
from jaxmbrl.agents.presets import Preset, choose
from jaxmbrl.config import configurable, option
from jaxmbrl.models import ensemble, fitting, one_step
from jaxmbrl.planners import random_shooting
from jaxmbrl.schedule import Schedule
from jaxmbrl.types import Agent, Environment, Spec
from jaxmbrl.values import state_value


def _network(hidden: tuple[int, ...], spec: Spec | None = None) -> ensemble.Config:
    """One least-squares network, planned on with its mean."""
    member = one_step.Config(hidden=hidden, activation="relu", family="deterministic")
    member = one_step.complete(member, spec) if spec else member
    return ensemble.Config(member=member, size=1, elites=1, particles=1, propagation="expectation")


@configurable
class Config:
    """The half-cheetah's settings of the paper (App. A)."""

    horizon: int = option(20, "steps that are planned ahead (H)", low=1)
    discount: float = option(1.0, "of rewards along the plan, a step", low=0.0, high=1.0)
    model: Any = option(_network((500,)), "what is planned on", parts=mpc.MODELS)
    fit: fitting.Config = option(fitting.Config(batch_size=512, passes=60, bootstrap=False), "how the model learns")
    planner: Any = option(random_shooting.Config(population=1000), "how plans are found", parts=planners.CONFIGS)
    terminal_value: Any = option(state_value.Nothing(), "what counts beyond the horizon", parts=state_value.PARTS)
    prior: Any = option(mpc.NoPrior(), "a policy that plans are around", parts=mpc.PRIORS)


def make(spec: Spec, config: Config | None = None, *, env: Environment | None = None) -> Agent:
    """Bind random-shooting MPC to an environment; see `mpc.make`."""
    return mpc.make(spec, config or Config(), env=env)


def preset(name: str, spec: Spec) -> Preset:
    """``small``: minutes on a laptop's CPU. ``paper``: the paper's sizes, for accelerators. Raises ConfigError."""
    return choose(name, spec, {"small": _small, "paper": _paper})


def _small(spec: Spec) -> Preset:
    steps = min(spec.episode_length, 200)
    agent = Config(
        model=_network((64, 64), spec),
        fit=fitting.Config(batch_size=64, passes=20, bootstrap=False),
        planner=random_shooting.Config(population=500),
    )
    return Preset(agent, Schedule(epochs=11, prefill=steps, epoch_steps=steps))


# Horizon and candidates (Nagabandi et al. 2017, App. A).
_PAPER = {"brax/halfcheetah": (20, 1000), "brax/hopper": (40, 1000), "brax/ant": (5, 15000)}


def _paper(spec: Spec) -> Preset:
    """The paper's own where it has the task, and half-cheetah's for any other."""
    horizon, population = _PAPER.get(spec.name, _PAPER["brax/halfcheetah"])
    agent = Config(
        horizon=horizon,
        model=_network((500,), spec),
        planner=random_shooting.Config(population=population),
    )
    steps = spec.episode_length
    return Preset(agent, Schedule(epochs=7, prefill=10 * steps, epoch_steps=9 * steps))
