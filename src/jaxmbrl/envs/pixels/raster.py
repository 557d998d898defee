"""A rasteriser in pure JAX: shapes painted over one another, each by its signed distance, with smooth edges.

A shape is a function of points, ``(x, y, pixel) -> coverage``, in the world's coordinates (metres, y upwards), where
``pixel`` is the width of a pixel: 1 inside, 0 outside, and at the edge the share of the pixel that is covered, as if
the edge were straight and square to the grid:

    coverage = clip(1/2 - distance / pixel, 0, 1)

What is thinner than a pixel, w wide, covers w / pixel of it at most. A picture costs about 20 operations for each pixel
and shape, and XLA makes one loop of it all.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp

from jaxmbrl.types import Array

CHANNELS = 3
Point: TypeAlias = Array | Sequence[float | Array]  # [2]
Shape: TypeAlias = Callable[[Array, Array, Array], Array]  # (x [W], y [H, 1], pixel []) -> coverage [H, W]
Paint: TypeAlias = (
    Array | Sequence[float | Array] | Callable[[Array, Array, Array], Array]
)  # one colour, or one a point


class View(NamedTuple):
    """The square of the world that a picture shows, in metres.

    Attributes:
        x: [], of its middle.
        y: [], of its middle.
        half_width: [], half of its side.
    """

    x: Array | float
    y: Array | float
    half_width: Array | float


class Layer(NamedTuple):
    """A shape and its colour.

    Attributes:
        shape: what it covers.
        paint: its colour, [3] within [0, 1], or a function of points, as a shape is, to colours [H, W, 3].
    """

    shape: Shape
    paint: Paint


class Scene(NamedTuple):
    """What a picture shows.

    Attributes:
        view: where the camera looks.
        layers: from the farthest to the nearest.
        background: the colour behind them, [3] within [0, 1].
    """

    view: View
    layers: Sequence[Layer]
    background: Array | Sequence[float]


def draw(scene: Scene, size: int) -> Array:
    """Paint a scene, the farthest layer first.

    Args:
        scene: what to draw.
        size: pixels along each side of the picture (H = W).

    Returns:
        uint8 [H, W, 3], the top row first.
    """
    view, pixel = scene.view, jnp.asarray(2.0 * scene.view.half_width / size)
    offset = (jnp.arange(size) - 0.5 * (size - 1)) * pixel
    x, y = view.x + offset, (view.y - offset)[:, None]
    image = jnp.broadcast_to(jnp.asarray(scene.background, jnp.float32), (size, size, CHANNELS))
    for shape, paint in scene.layers:  # one after another in the program, which makes one fused loop of them
        color = paint(x, y, pixel) if callable(paint) else jnp.asarray(paint)
        image = image + shape(x, y, pixel)[..., None] * (color - image)
    return jnp.clip(255.0 * image + 0.5, 0.0, 255.0).astype(jnp.uint8)


def capsule(start: Point, end: Point, radius: Array | float) -> Shape:
    """All points within ``radius`` of the segment from ``start`` to ``end``; a disc where these are equal."""

    def cover(x: Array, y: Array, pixel: Array) -> Array:
        return _solid(segment_distance(start, end, x, y), radius, pixel)

    return cover


def disc(center: Point, radius: Array | float) -> Shape:
    """All points within ``radius`` of ``center``."""
    return lambda x, y, pixel: _solid(_length(x - center[0], y - center[1]), radius, pixel)


def ring(center: Point, radius: Array | float, width: float) -> Shape:
    """A circle drawn with a line of that width."""

    def cover(x: Array, y: Array, pixel: Array) -> Array:
        return _solid(jnp.abs(_length(x - center[0], y - center[1]) - radius), 0.5 * width, pixel)

    return cover


def box(center: Point, half_width: Array | float, half_height: Array | float, angle: Array | float = 0.0) -> Shape:
    """A rectangle turned counter-clockwise by ``angle`` (rad)."""
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return zonogon(center, [(half_width * cosine, half_width * sine), (-half_height * sine, half_height * cosine)])


def zonogon(center: Point, sides: Sequence[Point] | Array) -> Shape:
    """The parallelogram, or hexagon, ``center + sum_i t_i sides_i`` with all t_i in [-1, 1]: a box seen from anywhere.

    Its edges are parallel to the ``sides`` [2] or [3] x [2], so that it is where two or three slabs meet; outside of
    its corners the distance to the nearest slab stands for that to the corner.
    """

    def cover(x: Array, y: Array, pixel: Array) -> Array:
        return _solid(slab_distance(center, sides, x, y), 0.0, pixel, thin=False)

    return cover


def polygon(points: Sequence[Point]) -> Shape:
    """The convex polygon with these corners, counter-clockwise; corners as in `zonogon`."""

    def cover(x: Array, y: Array, pixel: Array) -> Array:
        distances = []
        for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
            length = _length(x1 - x0, y1 - y0)
            distances.append(((x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)) / length)
        distance = distances[0]
        for other in distances[1:]:
            distance = jnp.maximum(distance, other)
        return _solid(distance, 0.0, pixel, thin=False)

    return cover


def below(height: Callable[[Array], Array], slope: Callable[[Array], Array]) -> Shape:
    """All points under the graph of a function of x, whose derivative is ``slope``."""

    def cover(x: Array, y: Array, pixel: Array) -> Array:
        distance = (y - height(x)) / jnp.sqrt(1.0 + slope(x) ** 2)
        return _solid(distance, 0.0, pixel, thin=False)

    return cover


def stripes(period: float, first: Sequence[float], second: Sequence[float]) -> Paint:
    """Colours that change every ``period`` metres along x."""

    def color(x: Array, y: Array, pixel: Array) -> Array:
        del y
        return mix(square_wave(x, period, pixel), first, second)

    return color


def square_wave(position: Array, period: float, pixel: Array | float) -> Array:
    """1 and -1 in turn, each for ``period`` metres, averaged over a pixel; 0 where that is too fine."""
    phase = position / period - jnp.floor(position / period)  # the flank is the distance to the nearest change
    odd = 2.0 * (jnp.floor(position / period) % 2.0) - 1.0
    flank = jnp.minimum(phase, 1.0 - phase) * period
    return -odd * jnp.clip(flank / (0.5 * pixel), 0.0, 1.0) * jnp.clip(2.0 - pixel / period, 0.0, 1.0)


def segment_distance(start: Point, end: Point, x: Array, y: Array) -> Array:
    """Distance of the points (x, y) from a segment, [H, W]."""
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    to_x, to_y = x - start[0], y - start[1]
    # The addend is for discs, whose segment has no length: the share along it is then 0, not 0 / 0.
    share = jnp.clip((to_x * along_x + to_y * along_y) / (along_x**2 + along_y**2 + 1e-12), 0.0, 1.0)
    return _length(to_x - share * along_x, to_y - share * along_y)


def slab_distance(center: Point, sides: Sequence[Point] | Array, x: Array, y: Array) -> Array:
    """Signed distance of the points (x, y) from a zonogon, below 0 inside, [H, W]."""
    to_x, to_y = x - center[0], y - center[1]
    worst = -jnp.inf
    for along_x, along_y in sides:
        length = _length(along_x, along_y) + 1e-9
        normal_x, normal_y = -along_y / length, along_x / length
        reach = sum(jnp.abs(normal_x * side[0] + normal_y * side[1]) for side in sides)
        distance = jnp.abs(normal_x * to_x + normal_y * to_y) - reach
        worst = jnp.maximum(worst, jnp.where(length > 1e-6, distance, -jnp.inf))  # a side seen end-on has no edge
    return jnp.asarray(worst)


def _length(x: Array | float, y: Array | float) -> Array:
    return jnp.sqrt(x * x + y * y)  # unlike hypot, without care for overflow, which costs as much again


def _solid(distance: Array, radius: Array | float, pixel: Array, *, thin: bool = True) -> Array:
    """Coverage of what lies within ``radius`` of a point, a line or (``thin=False``) an area."""
    most = jnp.minimum(1.0, 2.0 * radius / pixel) if thin else 1.0
    return jnp.clip((radius - distance) / pixel + 0.5, 0.0, most)


def mix(wave: Array, first: Sequence[float], second: Sequence[float]) -> Array:
    """Of two colours, ``first`` where the wave is 1 and ``second`` where it is -1."""
    high, low = jnp.asarray(first), jnp.asarray(second)
    return 0.5 * (high + low) + 0.5 * wave[..., None] * (high - low)
