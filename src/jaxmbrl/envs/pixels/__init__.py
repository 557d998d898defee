"""Any environment as a picture: `render` shows what a camera sees of a simulator's state in place of its observation.

``envs.make("pixels/NAME")`` does it for the classic tasks but ``linear_quadratic``, Brax's and Playground's. Nothing
leaves the program: pictures are drawn under jit and vmap, on any accelerator, and only those that an agent sees (with
``action_repeat``, one an action).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl.config import ConfigError
from jaxmbrl.envs import brax, playground
from jaxmbrl.envs.classic import TASKS
from jaxmbrl.envs.pixels import bodies
from jaxmbrl.envs.pixels.classic import SCENES
from jaxmbrl.envs.pixels.raster import CHANNELS, Layer, Scene, View, draw
from jaxmbrl.envs.wrappers import Encoded, check_count
from jaxmbrl.types import Array, Environment, Key, TimeStep

__all__ = ["NAMES", "PREFIX", "SIZE", "Layer", "Scene", "View", "draw", "render", "scene"]

PREFIX = "pixels/"
SIZE = 64  # pixels along each side
NAMES: tuple[str, ...] = tuple(f"{PREFIX}{name}" for name in (*sorted(SCENES), *brax.NAMES, *playground.NAMES))
_SIDE, _ABOVE = (bodies.Camera(elevation=elevation, follows=False) for elevation in (0.0, 90.0))
CAMERAS: dict[str, bodies.Camera] = {  # others follow the body from the side, a little above
    "brax/ant": bodies.Camera(elevation=35.0),
    "brax/inverted_double_pendulum": _SIDE,
    "brax/inverted_pendulum": _SIDE,
    "brax/pusher": bodies.Camera(elevation=60.0, follows=False, half_width=1.0),
    "brax/reacher": _ABOVE,
    **{f"playground/Acrobot{task}": _SIDE for task in ("Swingup", "SwingupSparse")},
    "playground/BallInCup": _SIDE,
    **{f"playground/Cartpole{task}": _SIDE for task in ("Balance", "BalanceSparse", "Swingup", "SwingupSparse")},
    **{f"playground/Finger{task}": _SIDE for task in ("Spin", "TurnEasy", "TurnHard")},
    "playground/FishSwim": bodies.Camera(elevation=30.0, follows=False, half_width=0.7),
    "playground/PendulumSwingup": _SIDE,
    "playground/PointMass": _ABOVE._replace(half_width=0.35),
    **{f"playground/Reacher{task}": _ABOVE for task in ("Easy", "Hard")},
    "playground/SwimmerSwimmer6": bodies.Camera(elevation=60.0, half_width=1.0),
}


def scene(name: str, **options: Any) -> Callable[[TimeStep], Scene]:
    """How an environment is drawn.

    Args:
        name: of the environment itself, without ``pixels/``.
        **options: that it is made with; a picture keeps to lengths and limits.

    Returns:
        ``(TimeStep) -> Scene``, a pure function.

    Raises:
        ConfigError: nothing is known about how to draw it.
    """
    if name in SCENES:
        physical = {option: value for option, value in options.items() if option != "reward"}
        params = TASKS[name].parameters._replace(**physical)
        return lambda timestep: SCENES[name](params, timestep.obs)
    if name in brax.NAMES:
        kept = {option: value for option, value in options.items() if option != "forward_velocity"}
        model = brax.simulator(name, **kept).sys.mj_model
        return brax_scene(model, CAMERAS.get(name, bodies.Camera()))
    if name in playground.NAMES:
        return playground_scene(playground.simulator(name).mj_model, CAMERAS.get(name, bodies.Camera()))
    raise ConfigError(f"env: got {PREFIX + name!r}, which has no picture; needs one of {', '.join(NAMES)}")


def brax_scene(model: Any, camera: bodies.Camera) -> Callable[[TimeStep], Scene]:
    """How a Brax environment is drawn, a user's own (``env.sys.mj_model``) included."""
    look = bodies.scene(model, camera)
    return lambda timestep: look(timestep.state.pipeline_state.x.pos, timestep.state.pipeline_state.x.rot)


def playground_scene(model: Any, camera: bodies.Camera) -> Callable[[TimeStep], Scene]:
    """How a MuJoCo Playground environment is drawn."""
    look = bodies.scene(model, camera)
    moved = np.flatnonzero(model.body_mocapid >= 0)

    def see(timestep: TimeStep) -> Scene:
        data = timestep.state.data
        # A reset moves targets after the poses have been computed, which are of the step before.
        position = data.xpos.at[moved].set(data.mocap_pos[model.body_mocapid[moved]])
        return look(position[1:], data.xquat[1:])

    return see


def render(env: Environment, scene: Callable[[TimeStep], Scene], size: int = SIZE) -> Environment:
    """Show pictures in place of observations.

    Reward and termination are no known functions of pictures. Put `wrappers.action_repeat` inside, so that only what
    is seen is drawn.

    Args:
        env: any environment.
        scene: what a picture of a TimeStep shows.
        size: pixels along each side.

    Returns:
        An environment with observations uint8 [size, size, 3].

    Raises:
        ConfigError: ``size`` is below 1.
    """
    check_count("env.size", size)

    look = jax.jit(lambda timestep: draw(scene(timestep), size))  # one program for those who call outside of one, too

    def picture(timestep: TimeStep) -> TimeStep:
        return timestep._replace(state=Encoded(timestep.state, timestep.obs), obs=look(timestep))

    def step(key: Key, timestep: TimeStep, action: Array) -> TimeStep:
        inside = timestep._replace(state=timestep.state.inner, obs=timestep.state.obs)
        return picture(env.step(key, inside, action))

    spec = env.spec._replace(
        name=PREFIX + env.spec.name,
        observation=jax.ShapeDtypeStruct((size, size, CHANNELS), jnp.uint8),
        reward=None,
        termination=None,
        angles=(),
        tasks={},
    )
    return Environment(spec, lambda key: picture(env.reset(key)), step)
