"""The systems: a module for each, with ``Config``, ``make(spec, config)`` and ``preset(name, spec)``."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jaxmbrl.config import ConfigError, describe, near

if TYPE_CHECKING:
    from jaxmbrl.types import Agent, Environment

SYSTEMS: dict[str, str] = {
    "dqn": "DQN, double by default: the yardstick for discrete actions (van Hasselt et al. 2016)",
    "dreamer": "Dreamer: an actor-critic in a latent model's imagination (Hafner et al. 2020, 2023)",
    "ivg": "Imagined Value Gradients: tasks that share one latent model (Byravan et al. 2019)",
    "mbpo": "MBPO: SAC on short rollouts branched from replayed states (Janner et al. 2019)",
    "me_trpo": "ME-TRPO: TRPO in an ensemble, until its members disagree (Kurutach et al. 2018)",
    "mve": "MVE: critics on values that a model expands (Feinberg et al. 2018)",
    "nagabandi": "MB-MF: MPC, then a policy that imitates it, then TRPO (Nagabandi et al. 2017)",
    "pets": "PETS: CEM on a probabilistic ensemble (Chua et al. 2018)",
    "planet": "PlaNet: CEM in the latent space of a recurrent model (Hafner et al. 2019)",
    "poplin": "POPLIN: CEM around a policy, or in its parameters, with distillation (Wang and Ba 2019)",
    "random_shooting": "random-shooting MPC on a deterministic network (Nagabandi et al. 2017)",
    "sac": "SAC or TD3, without a model: the yardstick (Haarnoja et al. 2018)",
    "sac_svg": "SAC-SVG: an actor that climbs a model's value (Amos et al. 2020)",
    "steve": "STEVE: value expansion weighed by an ensemble's agreement (Buckman et al. 2018)",
    "svg": "SVG: value gradients along real trajectories (Heess et al. 2015)",
    "world_models": "World Models: a small controller, evolved in a recurrent model's dreams (Ha and Schmidhuber 2018)",
}


def load(name: str) -> ModuleType:
    """Import a system's module. Raises ConfigError with near matches if there is none."""
    if name not in SYSTEMS:
        raise ConfigError(f"system: got {name!r}, needs one of {', '.join(SYSTEMS)}{near(name, SYSTEMS)}")
    return importlib.import_module(f"{__name__}.{name}")


def compose(name: str, env: "Environment", config: Any) -> "Agent":
    """The agent of a system on an environment.

    Raises:
        ConfigError: some part does not fit another; the field is named in full, as on the command line.
    """
    try:
        return load(name).make(env.spec, config, env=env)
    except ConfigError as error:
        raise ConfigError(_located(config, str(error))) from error
    except ValueError as error:  # Such as Spec.box, where a system needs continuous actions.
        raise ConfigError(f"{name} does not fit {env.spec.name}: {error}") from error


def _located(config: Any, message: str) -> str:
    """``message``, which a part of ``config`` begins with a field of its own, with that field's whole path."""
    field, colon, rest = message.partition(":")
    paths = [path for path, *_ in describe(config, "agent.") if path.endswith(f".{field}")]
    exact = [path for path in paths if path == f"agent.{field}"]
    path = exact or paths
    return f"{path[0]}{colon}{rest}" if len(path) == 1 else message
