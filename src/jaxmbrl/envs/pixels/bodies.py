"""Brax's bodies as pictures: MuJoCo's geoms, seen by a camera that follows the root body.

The camera looks along +y and down by an elevation, without perspective, so that the outlines of spheres, capsules and
boxes are discs, capsules and hexagons, exactly. What is nearer, by the middle of the geom, is painted over what is
farther. The floor is a checkerboard that ends at a horizon: on it one sees the body move.
"""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl.envs.pixels import raster
from jaxmbrl.envs.pixels.palette import GREY, SERIES, Color, from_hex
from jaxmbrl.envs.pixels.raster import Layer, Scene, View
from jaxmbrl.envs.quiet import quiet
from jaxmbrl.types import Array

PLANE, SPHERE, CAPSULE, ELLIPSOID, CYLINDER, BOX, MESH = 0, 2, 3, 4, 5, 6, 7  # MuJoCo's mjtGeom
ROUND = (SPHERE, CAPSULE, ELLIPSOID, CYLINDER)
SKY, FLOOR, TILE = from_hex("#e9eff4"), from_hex("#d9d4c7"), from_hex("#bfb9a9")
TILE_WIDTH, DEPTH = 0.5, 3.0  # of a tile of the floor, and of the floor behind the body, in half widths of the picture


class Camera(NamedTuple):
    """Where the camera is; what it does not say is taken from the body's size.

    Attributes:
        elevation: degrees that it looks down by: 0 from the side, 90 from above.
        follows: whether it moves along with the root body.
        half_width: of the picture, m, or None.
    """

    elevation: float = 15.0
    follows: bool = True
    half_width: float | None = None


class Geometry(NamedTuple):
    """The visible geoms of a model, on the host, each in the frame of its link.

    Attributes:
        link: int [G], that it moves with; -1 is the world.
        position: [G, 3], of its middle, m.
        axis: [G, 3], from the middle to the centre of a capsule's end; 0 of a sphere.
        radius: [G], 0 of a box.
        sides: [G, 3, 3], from the middle to the faces of a box, 0 of others.
        is_box: bool [G].
        color: [G, 3].
        floor: height of the floor, m, or None.
    """

    link: np.ndarray
    position: np.ndarray
    axis: np.ndarray
    radius: np.ndarray
    sides: np.ndarray
    is_box: np.ndarray
    color: np.ndarray
    floor: float | None


def geometry(model: Any) -> Geometry:
    """Read the geoms of a MuJoCo model.

    Ellipsoids and cylinders are drawn as capsules of their length, meshes as their bounding boxes, walls not at all.
    """
    seen = [index for index in range(model.ngeom) if model.geom_rgba[index, 3] > 0.0]
    planes = [float(model.geom_pos[index, 2]) for index in seen if _is_floor(model, index)]
    shapes = [_shape(model, index) for index in seen if model.geom_type[index] in (*ROUND, BOX, MESH)]
    link, position, axis, radius, sides = (np.array(part, np.float32) for part in zip(*shapes, strict=True))
    link = link.astype(int)
    return Geometry(
        link=link,
        position=position,
        axis=axis,
        radius=radius,
        sides=sides,
        is_box=np.any(sides != 0.0, axis=(1, 2)),
        color=np.array([_color(one) for one in link], np.float32),
        floor=min(planes, default=None),
    )


def scene(model: Any, camera: Camera) -> Callable[[Array, Array], Scene]:
    """Bind a model and a camera to a function from the poses of links to a picture.

    Returns:
        ``(positions [L, 3] in m, rotations [L, 4] as quaternions, w first) -> Scene``.
    """
    geoms, basis = geometry(model), _basis(camera)
    half_width, height = _frame(model, geoms, camera)

    def look(position: Array, rotation: Array) -> Scene:
        # The camera follows the root over the ground, at the height that it had at the start.
        root = position[0] * jnp.array([1.0, 1.0, 0.0]) if camera.follows else jnp.zeros(3)
        x, y, _ = basis @ (root + jnp.array([0.0, 0.0, height]))
        layers = [] if geoms.floor is None else [_floor(geoms.floor, root[1], basis, half_width)]
        layers += _paint(geoms, *_posed(geoms, position, rotation), basis)
        return Scene(View(x, y, half_width), layers, SKY)

    return look


def _is_floor(model: Any, index: int) -> bool:
    """Whether a geom is a plane that lies level, rather than a wall."""
    return model.geom_type[index] == PLANE and float(_matrix(model.geom_quat[index])[2, 2]) > 0.99


def _shape(model: Any, index: int) -> tuple[int, np.ndarray, np.ndarray, float, np.ndarray]:
    """Link, middle, axis, radius and sides of a geom in the frame of its link."""
    kind, size = int(model.geom_type[index]), model.geom_size[index]
    turn, position = np.asarray(_matrix(model.geom_quat[index])), np.array(model.geom_pos[index])
    axis, radius, sides = np.zeros(3), float(size[0]), np.zeros((3, 3))
    if kind == CAPSULE:
        axis = size[1] * turn[:, 2]
    elif kind == CYLINDER:
        axis = max(size[1] - size[0], 0.0) * turn[:, 2]
    elif kind == ELLIPSOID:
        longest = int(np.argmax(size))
        radius = float(np.mean(np.delete(size, longest)))
        axis = (size[longest] - radius) * turn[:, longest]
    elif kind in (BOX, MESH):
        middle, size = (np.zeros(3), size) if kind == BOX else np.split(model.geom_aabb[index], 2)
        radius, sides, position = 0.0, (turn * size).T, position + turn @ middle
    return int(model.geom_bodyid[index]) - 1, position, axis, radius, sides


def _color(link: int) -> Color:
    """Each link has its own, since most models paint all of theirs alike."""
    return GREY if link < 0 else SERIES[link % len(SERIES)]


def _basis(camera: Camera) -> np.ndarray:
    """The picture's right, its up, and away from the camera, as rows [3, 3]."""
    angle = np.deg2rad(camera.elevation)
    sine, cosine = np.sin(angle), np.cos(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, sine, cosine], [0.0, cosine, -sine]], np.float32)


def _frame(model: Any, geoms: Geometry, camera: Camera) -> tuple[float, float]:
    """Half width of the picture and height of its middle, such that the body at the model's start fits well."""
    with quiet():
        mujoco: Any = importlib.import_module("mujoco")  # untyped
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    links = data.xpos[1:], data.xquat[1:]
    middle, axis, sides = (np.asarray(part) for part in _posed(geoms, *(jnp.asarray(part) for part in links)))
    reach = np.abs(axis) + geoms.radius[:, None] + np.abs(sides).sum(axis=1)
    root = links[0][0] * [1.0, 1.0, 0.0] if camera.follows else np.zeros(3)
    low, high = (middle - root - reach).min(axis=0), (middle - root + reach).max(axis=0)
    height = 0.5 * (low[2] + high[2])
    corners = np.maximum(np.abs(low), np.abs(high))
    corners[2] = 0.5 * (high[2] - low[2])
    half_width = 1.25 * float(np.max(np.abs(_basis(camera)[:2]) @ corners))
    return camera.half_width or half_width, float(height)


def _posed(geoms: Geometry, position: Array, rotation: Array) -> tuple[Array, Array, Array]:
    """Middles [G, 3], axes [G, 3] and sides [G, 3, 3] in the world."""
    position = jnp.concatenate([position, jnp.zeros((1, 3))])  # the world, as link -1
    rotation = jnp.concatenate([rotation, jnp.array([[1.0, 0.0, 0.0, 0.0]])])
    turn = jax.vmap(_matrix)(rotation)[geoms.link]
    middle = position[geoms.link] + jnp.einsum("gij,gj->gi", turn, geoms.position)
    return middle, jnp.einsum("gij,gj->gi", turn, geoms.axis), jnp.einsum("gij,gkj->gki", turn, geoms.sides)


def _matrix(rotation: Array | np.ndarray) -> Array:
    """The matrix [3, 3] of a unit quaternion [4], w first."""
    w, x, y, z = rotation
    return jnp.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _paint(geoms: Geometry, middle: Array, axis: Array, sides: Array, basis: np.ndarray) -> list[Layer]:
    """A layer for each geom, the farthest first: an order that varies with the state, so the numbers are sorted."""
    seen = middle @ basis.T
    order = jnp.argsort(-seen[:, 2])
    seen, axis, sides = seen[order, :2], (axis @ basis[:2].T)[order], (sides @ basis[:2].T)[order]
    radius, color, is_box = (jnp.asarray(part)[order] for part in (geoms.radius, geoms.color, geoms.is_box))

    def shape(index: int) -> raster.Shape:
        round_one = raster.capsule(seen[index] - axis[index], seen[index] + axis[index], radius[index])
        if not geoms.is_box.any():
            return round_one
        square_one = raster.zonogon(seen[index], [sides[index, side] for side in range(3)])
        return lambda x, y, pixel: jnp.where(is_box[index], square_one(x, y, pixel), round_one(x, y, pixel))

    return [Layer(shape(index), color[index]) for index in range(len(order))]


def _floor(height: float, root_y: Array, basis: np.ndarray, half_width: float) -> Layer:
    """The checkerboard up to its horizon, on the plane at a height."""
    sine, cosine = max(float(basis[1, 1]), 1e-3), float(basis[1, 2])
    tile = TILE_WIDTH * half_width

    def color(x: Array, y: Array, pixel: Array) -> Array:
        across = raster.square_wave(x, tile, pixel)
        deep = raster.square_wave((y - cosine * height) / sine, tile, pixel / sine)
        return raster.mix(across * deep, FLOOR, TILE)

    horizon = sine * (root_y + DEPTH * half_width) + cosine * height
    return Layer(raster.below(lambda x: horizon, jnp.zeros_like), color)
