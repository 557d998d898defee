"""gymnax's environments (MinAtar and classic control, most with discrete actions) as `Environment` records.

They need the extra ``jaxmbrl[gymnax]``, which is imported when an environment is made: it takes seconds. Its own
automatic reset, which loses an episode's last observation, is left aside, and so is its time limit, which becomes ours.
MinAtar's observations are 10 x 10 grids with a channel for each kind of thing: floats of 0 and 1 there, bool here,
which takes a quarter of the memory where they are stored.
"""

import importlib
import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl.config import ConfigError, near
from jaxmbrl.envs.quiet import quiet
from jaxmbrl.envs.wrappers import shapes, strongly_typed
from jaxmbrl.types import Array, Box, Discrete, Environment, Key, Spec, TimeStep

PREFIX = "gymnax/"
INSTALLED = importlib.util.find_spec("gymnax") is not None
EPISODE_LENGTHS: dict[str, int] = {  # gymnax's own defaults, with its names
    "Acrobot-v1": 500,
    "Asterix-MinAtar": 1000,
    "Breakout-MinAtar": 1000,
    "CartPole-v1": 500,
    "Freeway-MinAtar": 2500,
    "MountainCar-v0": 200,
    "MountainCarContinuous-v0": 999,
    "Pendulum-v1": 200,
    "Seaquest-MinAtar": 1000,
    "SpaceInvaders-MinAtar": 1000,
}
TIME_LIMIT = "max_steps_in_episode"  # is left to ``episode_length``
ALL: tuple[str, ...] = tuple(PREFIX + name for name in EPISODE_LENGTHS)
NAMES: tuple[str, ...] = ALL if INSTALLED else ()


def options(name: str) -> dict[str, Any]:
    """What `make` takes by name: nothing that is listed here, but from Python what ``EnvParams`` has."""
    del name
    return {}


def episode_length(name: str) -> int:
    """Steps of an episode by default."""
    return EPISODE_LENGTHS[name.removeprefix(PREFIX)]


def make(name: str, **params: Any) -> Environment:
    """Make an environment, as yet without a time limit.

    Args:
        name: one of `ALL`.
        **params: fields of the environment's ``EnvParams`` but for its time limit, which may be tracers.

    Raises:
        ConfigError: gymnax is not installed, or an unknown name or field.
    """
    if name not in ALL:
        raise ConfigError(f"env: got {name!r}, needs one of {', '.join(ALL)}{near(name, ALL)}")
    if not INSTALLED:
        raise ConfigError(f"env: got {name!r}, which needs pip install 'jaxmbrl[gymnax]'")
    with quiet():
        gymnax: Any = importlib.import_module("gymnax")
        env, defaults = gymnax.make(name.removeprefix(PREFIX))
    fields = {field: value for field, value in vars(defaults).items() if field != TIME_LIMIT}
    for field in params:
        if field not in fields:
            raise ConfigError(f"env.{field}: no such option{near(field, fields)}; {name} takes {', '.join(fields)}")
        if not isinstance(params[field], int | float) and not hasattr(params[field], "dtype"):
            raise ConfigError(f"env.{field}: got {params[field]!r}, needs a number")
    return from_gymnax(env, defaults.replace(**params), name=name, boolean=name.endswith("-MinAtar"))


def from_gymnax(env: Any, params: Any, *, name: str, boolean: bool = False) -> Environment:
    """Adapt a gymnax ``Environment`` with its ``EnvParams``, as yet without a time limit.

    Args:
        env: the environment; its actions are one discrete choice or one box.
        params: its physical parameters.
        name: shown to users.
        boolean: whether observations are of 0 and 1 only, and become bool.

    Raises:
        ConfigError: actions of another kind.
    """

    def told(obs: Array) -> Array:
        return obs.astype(bool) if boolean else obs

    def reset(key: Key) -> TimeStep:
        obs, state = env.reset_env(key, params)
        return TimeStep(state, told(obs), jnp.zeros(()), jnp.zeros((), bool), jnp.zeros((), bool))

    def step(key: Key, timestep: TimeStep, action: Array) -> TimeStep:
        obs, state, reward, terminated, _ = env.step_env(key, timestep.state, action, params)
        return TimeStep(state, told(obs), reward, terminated, timestep.truncated)

    spec = Spec(
        name=name,
        observation=shapes(lambda key: told(env.reset_env(key, params)[0]), jax.random.key(0)),
        action=_actions(env.action_space(params), name),
        episode_length=int(params.max_steps_in_episode),
    )
    return strongly_typed(Environment(spec, reset, step))


def _actions(space: Any, name: str) -> Box | Discrete:
    with quiet():
        spaces: Any = importlib.import_module("gymnax.environments.spaces")
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n))
    if not isinstance(space, spaces.Box):
        raise ConfigError(f"env: got {name!r} with actions {space}, needs a discrete choice or a box")
    shape = (int(np.prod(space.shape)),)
    low, high = (np.broadcast_to(np.asarray(end, np.float32), shape).copy() for end in (space.low, space.high))
    return Box(low, high)
