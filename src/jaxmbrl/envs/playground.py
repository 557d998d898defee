"""MuJoCo Playground's tasks of the DeepMind Control Suite as `Environment` records.

They need the extra ``jaxmbrl[playground]``, which is imported when an environment is made. Its physics is MJX on JAX
(``impl="jax"``; its own default, Warp, is slower on CPUs and has no gradients). Rewards are in [0, 1] a step; episodes
last 1000 steps and never terminate, unless a state is not a number.
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
from jaxmbrl.types import Array, Box, Environment, Key, Spec, TimeStep

PREFIX = "playground/"
INSTALLED = importlib.util.find_spec("mujoco_playground") is not None
EPISODE_LENGTH = 1000
ALL: tuple[str, ...] = tuple(
    PREFIX + name
    for name in (
        "AcrobotSwingup",
        "AcrobotSwingupSparse",
        "BallInCup",
        "CartpoleBalance",
        "CartpoleBalanceSparse",
        "CartpoleSwingup",
        "CartpoleSwingupSparse",
        "CheetahRun",
        "FingerSpin",
        "FingerTurnEasy",
        "FingerTurnHard",
        "FishSwim",
        "HopperHop",
        "HopperStand",
        "HumanoidRun",
        "HumanoidStand",
        "HumanoidWalk",
        "PendulumSwingup",
        "PointMass",
        "ReacherEasy",
        "ReacherHard",
        "SwimmerSwimmer6",
        "WalkerRun",
        "WalkerStand",
        "WalkerWalk",
    )
)
NAMES: tuple[str, ...] = ALL if INSTALLED else ()


def options(name: str) -> dict[str, Any]:
    """What `make` takes by name: nothing."""
    del name
    return {}


def episode_length(name: str) -> int:
    """Steps of an episode by default."""
    del name
    return EPISODE_LENGTH


def make(name: str) -> Environment:
    """Make an environment, as yet without a time limit.

    Args:
        name: one of `ALL`.

    Raises:
        ConfigError: an unknown name, or the extra is not installed.
    """
    return from_playground(simulator(name), name=name)


def simulator(name: str) -> Any:
    """Playground's ``MjxEnv`` itself, for its geometry.

    Raises:
        ConfigError: an unknown name, or the extra is not installed.
    """
    if name not in ALL:
        raise ConfigError(f"env: got {name!r}, needs one of {', '.join(ALL)}{near(name, ALL)}")
    if not INSTALLED:
        raise ConfigError(f"env: got {name!r}, which needs pip install 'jaxmbrl[playground]'")
    with quiet():
        suite: Any = importlib.import_module("mujoco_playground").dm_control_suite
        return suite.load(name.removeprefix(PREFIX), config_overrides={"impl": "jax"})


def from_playground(env: Any, *, name: str, episode_length: int = EPISODE_LENGTH) -> Environment:
    """Adapt a Playground ``MjxEnv``, as yet without a time limit.

    ``TimeStep.state`` is Playground's ``State``. Actions are the model's controls, within its own ranges.

    Args:
        env: the environment.
        name: shown to users.
        episode_length: steps after which an episode is truncated.
    """

    def show(state: Any, truncated: Array) -> TimeStep:
        return TimeStep(state, state.obs, state.reward, state.done != 0, truncated)

    def reset(key: Key) -> TimeStep:
        return show(env.reset(key), jnp.zeros((), bool))

    def step(key: Key, timestep: TimeStep, action: Array) -> TimeStep:
        del key  # the state holds one
        # Metrics and info are written into in place: mapping over the tree hands out a copy.
        state = jax.tree.map(lambda leaf: leaf, timestep.state)
        return show(env.step(state, action), timestep.truncated)

    low, high = np.asarray(env.mj_model.actuator_ctrlrange, np.float32).T
    spec = Spec(
        name=name,
        observation=shapes(lambda key: env.reset(key).obs, jax.random.key(0)),
        action=Box(low, high),
        episode_length=episode_length,
    )
    return strongly_typed(Environment(spec, reset, step))
