"""The classic tasks as pictures: a scene is a function of a task's physical parameters and its observation."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxmbrl.envs.pixels.palette import BLUE, FAINT, GOLD, GREEN, INK, PAPER, RED
from jaxmbrl.envs.pixels.raster import Layer, Scene, View, below, box, capsule, disc, polygon, ring, stripes
from jaxmbrl.types import Array

FAR = 99.0  # m, beyond every picture's edge
# The outline of the mountain car, body and cabin: how far along the slope and above it.
BODY = ((-0.11, 0.03), (0.11, 0.03), (0.11, 0.08), (-0.11, 0.08))
CABIN = ((-0.11, 0.079), (0.06, 0.079), (0.03, 0.13), (-0.06, 0.13))


def pendulum(params: Any, obs: Array) -> Scene:
    """The rod, and a ring where its tip should be. The angle grows counter-clockwise, as in Gymnasium's picture."""
    cosine, sine, _ = obs
    length = params.length
    layers = [
        Layer(ring((0.0, length), 0.08 * length, 0.04 * length), GREEN),
        Layer(capsule((0.0, 0.0), (-length * sine, length * cosine), 0.055 * length), RED),
        Layer(disc((0.0, 0.0), 0.04 * length), INK),
    ]
    return Scene(View(0.0, 0.0, 1.15 * length), layers, PAPER)


def cartpole(params: Any, obs: Array) -> Scene:
    """The whole track, which ends where episodes do; the camera stands still."""
    x, _, angle, _ = obs
    length, limit = 2.0 * params.half_length, params.max_position
    layers = [
        Layer(capsule((-limit, 0.0), (limit, 0.0), 0.03), FAINT),
        *[Layer(capsule((end, -0.15), (end, 0.15), 0.04), FAINT) for end in (-limit, limit)],
        *_cart(x, (x + length * jnp.sin(angle), length * jnp.cos(angle)), 0.25),
    ]
    return Scene(View(0.0, 0.4, 1.1 * limit), layers, PAPER)


def cartpole_swingup(params: Any, obs: Array) -> Scene:
    """A striped track without end, and a ring where the tip should be; the camera follows a cart that runs far."""
    x, _, sine, cosine, _ = obs
    length = params.pole_length
    margin = 1.2 * length
    layers = [
        Layer(capsule((-FAR, 0.0), (FAR, 0.0), 0.025 * length), stripes(0.4 * length, FAINT, PAPER)),
        Layer(ring((0.0, length), 0.1 * length, 0.04 * length), GREEN),
        *_cart(x, (x + length * sine, length * cosine), 0.25 * length),
    ]
    return Scene(View(x - jnp.clip(x, -margin, margin), 0.0, 1.7 * length), layers, PAPER)


def acrobot(params: Any, obs: Array) -> Scene:
    """Both links, and the line that the tip has to cross."""
    cosine, sine = obs[0], obs[1]
    folded_cosine, folded_sine = cosine * obs[2] - sine * obs[3], sine * obs[2] + cosine * obs[3]
    inner, outer = params.length_1, 2.0 * params.center_2
    elbow = inner * sine, -inner * cosine
    tip = elbow[0] + outer * folded_sine, elbow[1] - outer * folded_cosine
    layers = [
        Layer(capsule((-FAR, inner), (FAR, inner), 0.02 * inner), GREEN),
        *_arm(elbow, tip, 0.042 * (inner + outer)),
    ]
    return Scene(View(0.0, 0.0, 1.15 * (inner + outer)), layers, PAPER)


def mountain_car(params: Any, obs: Array) -> Scene:
    """The car on its valley's slope, before the flag."""
    x, goal = obs[0], params.goal_position
    angle = jnp.arctan(_slope(x))
    along, up = (jnp.cos(angle), jnp.sin(angle)), (-jnp.sin(angle), jnp.cos(angle))
    top = _height(goal) + 0.25

    def on_slope(s: float, h: float) -> tuple[Array, Array]:
        return x + s * along[0] + h * up[0], _height(x) + s * along[1] + h * up[1]

    layers = [
        Layer(below(_height, _slope), FAINT),
        Layer(capsule((goal, _height(goal)), (goal, top), 0.01), INK),
        Layer(polygon([(goal, top), (goal, top - 0.1), (goal + 0.13, top - 0.05)]), GREEN),
        *[Layer(polygon([on_slope(*corner) for corner in part]), RED) for part in (BODY, CABIN)],
        *[Layer(disc(on_slope(s, 0.035), 0.035), INK) for s in (-0.06, 0.06)],
    ]
    return Scene(View(-0.3, 0.2, 0.95), layers, PAPER)


def reacher(params: Any, obs: Array) -> Scene:
    """The arm from above, and its target."""
    (cosine, _), (sine, _), target, offset = obs[0:2], obs[2:4], obs[6:8], obs[8:10]
    reach = params.length_1 + params.length_2
    elbow = params.length_1 * cosine, params.length_1 * sine
    layers = [
        Layer(ring(target, 0.07 * reach, 0.03 * reach), GREEN),
        *_arm(elbow, target + offset, 0.035 * reach),
    ]
    return Scene(View(0.0, 0.0, 1.15 * reach), layers, PAPER)


SCENES: dict[str, Callable[[Any, Array], Scene]] = {
    "acrobot": acrobot,
    "cartpole": cartpole,
    "cartpole_swingup": cartpole_swingup,
    "mountain_car": mountain_car,
    "pendulum": pendulum,
    "reacher": reacher,
}


def _cart(x: Array, tip: Any, size: float | Array) -> list[Layer]:
    """A cart of half-width ``size`` at x on a track at height 0, with a pole from its hinge to ``tip``."""
    return [
        Layer(box((x, 0.0), size, 0.5 * size), INK),
        Layer(capsule((x, 0.0), tip, 0.28 * size), RED),
        Layer(disc((x, 0.0), 0.14 * size), GOLD),
    ]


def _arm(elbow: Any, tip: Any, radius: float | Array) -> list[Layer]:
    """Two links from the middle to an elbow and to a tip."""
    return [
        Layer(capsule((0.0, 0.0), elbow, radius), BLUE),
        Layer(capsule(elbow, tip, radius), RED),
        *[Layer(disc(joint, 0.4 * radius), INK) for joint in ((0.0, 0.0), elbow)],
    ]


def _height(x: Any) -> Any:
    return 0.45 * jnp.sin(3.0 * x)


def _slope(x: Any) -> Any:
    return 1.35 * jnp.cos(3.0 * x)
