"""Episodes of the classic tasks as animated GIFs, drawn from observations alone."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageColor, ImageDraw

from jaxmbrl.config import ConfigError
from jaxmbrl.envs import classic

PIXELS = 300  # width and height of a frame
SUPERSAMPLING = 4  # drawn this many times larger and shrunk, which smooths the edges
FRAMES = 200  # at most; longer episodes skip steps

PAPER, INK, FAINT = "#fbfaf7", "#22303c", "#d5d9de"
RED, BLUE, GOLD, GREEN = "#cf4a5a", "#3274a1", "#e8a838", "#4f9d7c"
SERIES = (BLUE, RED, GREEN, GOLD, "#7d5ba6", "#6b7785", "#c97b63", "#2aa7b8")
# The outline of the mountain car: how far along the slope and above it.
CAR = ((-0.11, 0.03), (0.11, 0.03), (0.11, 0.08), (0.06, 0.08), (0.03, 0.13), (-0.06, 0.13), (-0.11, 0.08))

Point = Sequence[float] | np.ndarray


class View(NamedTuple):
    """The square of the world that a frame shows: its centre and half of its width, in metres."""

    x: float
    y: float
    half_width: float


class Canvas:
    """A frame to draw on in the world's coordinates (metres, y upwards)."""

    def __init__(self, view: View) -> None:
        side = PIXELS * SUPERSAMPLING
        self._view, self._scale = view, side / (2.0 * view.half_width)
        self._image = Image.new("RGB", (side, side), PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def _pixel(self, point: Point) -> tuple[float, float]:
        x, y, half_width = self._view
        return (point[0] - x + half_width) * self._scale, (y + half_width - point[1]) * self._scale

    def line(self, points: Sequence[Point], width: float, color: str) -> None:
        """Draw a line with round ends and corners, ``width`` pixels wide."""
        pixels = [np.array(self._pixel(point)) for point in points]
        radius = 0.5 * width * SUPERSAMPLING
        for start, end in itertools.pairwise(pixels):  # polygons, since Pillow's wide lines have ragged edges
            along = (end - start) / max(float(np.linalg.norm(end - start)), 1e-9)
            side = radius * np.array([-along[1], along[0]])
            self._draw.polygon(
                [tuple(corner) for corner in (start + side, end + side, end - side, start - side)], color
            )
        for x, y in pixels:
            self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)

    def disc(self, center: Point, radius: float, color: str, *, ring: bool = False) -> None:
        """Draw a disc, or with ``ring`` only its border, ``radius`` pixels wide."""
        x, y = self._pixel(center)
        radius *= SUPERSAMPLING
        corners = (x - radius, y - radius, x + radius, y + radius)
        if ring:
            self._draw.ellipse(corners, outline=color, width=2 * SUPERSAMPLING)
        else:
            self._draw.ellipse(corners, fill=color)

    def polygon(self, points: Sequence[Point], color: str) -> None:
        """Fill a polygon."""
        self._draw.polygon([self._pixel(point) for point in points], fill=color)

    def progress(self, fraction: float) -> None:
        """Draw how much of the episode has passed as a bar along the lower edge."""
        side = PIXELS * SUPERSAMPLING
        self._draw.rectangle((0, side - 3 * SUPERSAMPLING, fraction * side, side), fill=FAINT)

    def image(self) -> Image.Image:
        """The frame at its final size."""
        return self._image.resize((PIXELS, PIXELS), Image.Resampling.BOX)


class Drawing(NamedTuple):
    """How a task is drawn.

    Attributes:
        view: ``(observations [T, O], options) -> View``, the same for all frames of an episode.
        draw: ``(canvas, obs [O], options)``.
    """

    view: Callable[[np.ndarray, Mapping[str, Any]], View]
    draw: Callable[[Canvas, np.ndarray, Mapping[str, Any]], None]


def animate(name: str, observations: ArrayLike, path: str | Path, **options: Any) -> Path:
    """Draw an episode into an animated GIF.

    Args:
        name: of the environment, as in ``envs.make(name)``; one without a drawing gets its observations over time.
        observations: [T, O], of one episode; about `FRAMES` of them are drawn.
        path: of the file to write; missing folders are made.
        **options: those that the environment was made with; the drawing keeps to lengths, limits and ``dt``.

    Returns:
        ``path``.

    Raises:
        ConfigError: ``observations`` is not a non-empty matrix of finite numbers.
    """
    observations = np.asarray(observations, np.float64)
    if observations.ndim != 2 or observations.size == 0 or not np.isfinite(observations).all():
        raise ConfigError(f"observations: got shape {observations.shape}, needs [T, O], finite and not empty")
    options = {**(classic.options(name) if name in DRAWINGS else {}), **options}
    steps = range(0, len(observations), -(-len(observations) // FRAMES))
    if name in DRAWINGS:
        images = [frame(name, observations, step, options) for step in steps]
    else:
        images = [series_frame(observations, step) for step in steps]
    seconds = float(options.get("dt", 0.04)) * steps.step
    return _write(images, Path(path), 1000.0 * float(np.clip(seconds, 0.02, 0.08)))


def frame(name: str, observations: np.ndarray, step: int, options: Mapping[str, Any]) -> Image.Image:
    """Draw one step of an episode of a classic task.

    Args:
        name: one of `DRAWINGS`.
        observations: [T, O], of the whole episode.
        step: which one to draw.
        options: all physical parameters of the task.
    """
    view, draw = DRAWINGS[name]
    canvas = Canvas(view(observations, options))
    canvas.progress((step + 1) / len(observations))
    draw(canvas, observations[step], options)
    return canvas.image()


def series_frame(observations: np.ndarray, step: int) -> Image.Image:
    """Draw the entries of the observations [T, O] (the first 8 of them) over time, up to a step."""
    shown = observations[:, : len(SERIES)]
    low, high = shown.min(), shown.max()
    heights = (shown - low) / max(high - low, 1e-9)
    times = np.linspace(0.0, 1.0, len(shown)) if len(shown) > 1 else np.zeros(1)
    canvas = Canvas(View(0.5, 0.5, 0.6))
    canvas.progress((step + 1) / len(shown))
    if low < 0.0 < high:
        canvas.line([(0.0, -low / (high - low)), (1.0, -low / (high - low))], 1.0, FAINT)
    for column, color in zip(heights.T, SERIES, strict=False):
        if step > 0:
            canvas.line(list(zip(times[: step + 1], column[: step + 1], strict=True)), 1.5, color)
        canvas.disc((times[step], column[step]), 3.5, color)
    return canvas.image()


def _write(images: list[Image.Image], path: Path, milliseconds: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    palette = _palette()
    first, *others = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    first.save(path, "GIF", save_all=True, append_images=others, duration=round(milliseconds), loop=0)
    return path


def _palette() -> Image.Image:
    """Every colour and its blends with what lies behind it; one palette for all frames keeps them from flickering."""
    inks = [ImageColor.getrgb(color) for color in (INK, FAINT, *SERIES)]
    grounds = [ImageColor.getrgb(color) for color in (PAPER, FAINT)]
    blends = [np.linspace(ground, ink, 9) for ground in grounds for ink in inks]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.unique(np.concatenate(blends).round().astype(np.uint8), axis=0).tobytes())
    return palette


def _fixed(x: float, y: float, half_width: float) -> Callable[..., View]:
    return lambda observations, options: View(x, y, half_width)


def _pendulum(canvas: Canvas, obs: np.ndarray, options: Mapping[str, Any]) -> None:
    # The angle grows counter-clockwise, as in Gymnasium's picture.
    cosine, sine, _ = obs
    length = float(options["length"])
    canvas.line([(0.0, 0.0), (-length * sine, length * cosine)], 14.0, RED)
    canvas.disc((0.0, length), 10.0, GREEN, ring=True)
    canvas.disc((0.0, 0.0), 5.0, INK)


def _cart(canvas: Canvas, x: float, tip: Point, size: float) -> None:
    """A cart of half-width ``size`` at x on a track at height 0, with a pole from its hinge to ``tip``."""
    low, high = -0.5 * size, 0.5 * size
    canvas.polygon([(x - size, low), (x + size, low), (x + size, high), (x - size, high)], INK)
    canvas.line([(x, 0.0), tip], 8.0, RED)
    canvas.disc((x, 0.0), 4.0, GOLD)


def _cartpole(canvas: Canvas, obs: np.ndarray, options: Mapping[str, Any]) -> None:
    x, _, angle, _ = obs
    length, limit = 2.0 * float(options["half_length"]), float(options["max_position"])
    canvas.line([(-limit, 0.0), (limit, 0.0)], 2.0, FAINT)
    for end in (-limit, limit):
        canvas.line([(end, -0.15), (end, 0.15)], 3.0, FAINT)
    _cart(canvas, x, (x + length * np.sin(angle), length * np.cos(angle)), 0.25)


def _cartpole_view(observations: np.ndarray, options: Mapping[str, Any]) -> View:
    return View(0.0, 0.4, 1.1 * float(options["max_position"]))


def _swingup(canvas: Canvas, obs: np.ndarray, options: Mapping[str, Any]) -> None:
    x, _, sine, cosine, _ = obs
    length = float(options["pole_length"])
    canvas.line([(-99.0, 0.0), (99.0, 0.0)], 2.0, FAINT)
    canvas.disc((0.0, length), 8.0, GREEN, ring=True)
    _cart(canvas, x, (x + length * sine, length * cosine), 0.25 * length)


def _swingup_view(observations: np.ndarray, options: Mapping[str, Any]) -> View:
    length = float(options["pole_length"])
    return View(0.0, 0.0, max(1.7 * length, np.abs(observations[:, 0]).max() + 0.5 * length))


def _acrobot(canvas: Canvas, obs: np.ndarray, options: Mapping[str, Any]) -> None:
    cosine, sine = obs[0], obs[1]
    folded_cosine, folded_sine = cosine * obs[2] - sine * obs[3], sine * obs[2] + cosine * obs[3]
    inner, outer = float(options["length_1"]), 2.0 * float(options["center_2"])
    elbow = inner * sine, -inner * cosine
    canvas.line([(-9.0, 1.0), (9.0, 1.0)], 2.0, GREEN)
    canvas.line([(0.0, 0.0), elbow], 11.0, BLUE)
    canvas.line([elbow, (elbow[0] + outer * folded_sine, elbow[1] - outer * folded_cosine)], 11.0, RED)
    canvas.disc((0.0, 0.0), 4.0, INK)
    canvas.disc(elbow, 4.0, INK)


def _mountain_car(canvas: Canvas, obs: np.ndarray, options: Mapping[str, Any]) -> None:
    x, goal = obs[0], float(options["goal_position"])
    track = np.linspace(-1.3, 0.7, 81)
    canvas.polygon([(-1.3, -2.0), *zip(track, _height(track), strict=True), (0.7, -2.0)], FAINT)
    canvas.line([(goal, _height(goal)), (goal, _height(goal) + 0.25)], 2.0, INK)
    top = _height(goal) + 0.25
    canvas.polygon([(goal, top), (goal + 0.11, top - 0.045), (goal, top - 0.09)], GREEN)
    slope = np.arctan(1.35 * np.cos(3.0 * x))
    along, up = np.array([np.cos(slope), np.sin(slope)]), np.array([-np.sin(slope), np.cos(slope)])
    ground = np.array([x, _height(x)])
    canvas.polygon([ground + s * along + h * up for s, h in CAR], RED)
    for s in (-0.06, 0.06):
        canvas.disc(ground + s * along + 0.035 * up, 5.5, INK)


def _height(x: Any) -> Any:
    return 0.45 * np.sin(3.0 * x)


def _reacher(canvas: Canvas, obs: np.ndarray, options: Mapping[str, Any]) -> None:
    (cosine, _), (sine, _), target, offset = obs[0:2], obs[2:4], obs[6:8], obs[8:10]
    elbow = float(options["length_1"]) * np.array([cosine, sine])
    canvas.disc(target, 9.0, GREEN, ring=True)
    canvas.line([(0.0, 0.0), elbow], 9.0, BLUE)
    canvas.line([elbow, target + offset], 9.0, RED)
    canvas.disc((0.0, 0.0), 4.0, INK)
    canvas.disc(elbow, 3.5, INK)


def _arm_view(observations: np.ndarray, options: Mapping[str, Any], *, lengths: tuple[str, ...]) -> View:
    return View(0.0, 0.0, 1.15 * sum(float(options[length]) for length in lengths))


DRAWINGS: dict[str, Drawing] = {
    "acrobot": Drawing(_fixed(0.0, 0.0, 2.3), _acrobot),
    "cartpole": Drawing(_cartpole_view, _cartpole),
    "cartpole_swingup": Drawing(_swingup_view, _swingup),
    "mountain_car": Drawing(_fixed(-0.3, 0.2, 0.95), _mountain_car),
    "pendulum": Drawing(functools.partial(_arm_view, lengths=("length",)), _pendulum),
    "reacher": Drawing(functools.partial(_arm_view, lengths=("length_1", "length_2")), _reacher),
}
