"""Episodes as animated GIFs: of the classic tasks, drawn from observations, and of pictures that were observed."""

import functools
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from jaxmbrl.config import ConfigError
from jaxmbrl.envs import classic
from jaxmbrl.envs.pixels.classic import SCENES
from jaxmbrl.envs.pixels.palette import FAINT, INK, PAPER, SERIES, Color
from jaxmbrl.envs.pixels.raster import CHANNELS, draw

PIXELS = 300  # width and height of a frame
SUPERSAMPLING = 4  # of plots: drawn this many times larger and shrunk, which smooths the edges
FRAMES = 200  # at most; longer episodes skip steps
MARGIN = 0.1  # around the plots of observations

Point = Sequence[float] | np.ndarray


class Canvas:
    """A frame to plot on: x and y from 0 to 1, y upwards, within margins."""

    def __init__(self) -> None:
        side = PIXELS * SUPERSAMPLING
        self._image = Image.new("RGB", (side, side), _bytes(PAPER))
        self._draw = ImageDraw.Draw(self._image)

    def _pixel(self, point: Point) -> tuple[float, float]:
        scale = PIXELS * SUPERSAMPLING / (1.0 + 2.0 * MARGIN)
        return (point[0] + MARGIN) * scale, (1.0 + MARGIN - point[1]) * scale

    def line(self, points: Sequence[Point], width: float, color: Color) -> None:
        """Draw a line with round ends and corners, ``width`` pixels wide."""
        pixels = [np.array(self._pixel(point)) for point in points]
        radius = 0.5 * width * SUPERSAMPLING
        for start, end in itertools.pairwise(pixels):  # polygons, since Pillow's wide lines have ragged edges
            along = (end - start) / max(float(np.linalg.norm(end - start)), 1e-9)
            side = radius * np.array([-along[1], along[0]])
            self._draw.polygon(
                [tuple(corner) for corner in (start + side, end + side, end - side, start - side)], _bytes(color)
            )
        for x, y in pixels:
            self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_bytes(color))

    def disc(self, center: Point, radius: float, color: Color) -> None:
        """Draw a disc, ``radius`` pixels wide."""
        x, y = self._pixel(center)
        radius *= SUPERSAMPLING
        self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_bytes(color))

    def image(self) -> Image.Image:
        """The frame at its final size."""
        return self._image.resize((PIXELS, PIXELS), Image.Resampling.BOX)


def animate(name: str, observations: ArrayLike, path: str | Path, **options: Any) -> Path:
    """Write an episode into an animated GIF.

    Args:
        name: of the environment, as in ``envs.make(name)``; one without a picture gets its observations over time.
        observations: [T, O], of one episode, or pictures, uint8 [T, H, W, 3], or grids, bool [T, H, W, C]; about
            `FRAMES` of them are shown.
        path: of the file to write; missing folders are made.
        **options: those that the environment was made with; the drawing keeps to lengths, limits and ``dt``.

    Returns:
        ``path``.

    Raises:
        ConfigError: ``observations`` are neither, not finite or none at all.
    """
    observations = np.asarray(observations)
    if observations.dtype == np.bool_ and observations.ndim == 4:
        observations = np.round(255 * coloured(observations)).astype(np.uint8)
    if observations.dtype == np.uint8 and observations.ndim == 4 and observations.shape[-1] == CHANNELS:
        if not len(observations):
            raise ConfigError("observations: got no pictures, needs at least one")
        stride = -(-len(observations) // FRAMES)
        film = [_enlarged(frame).quantize(dither=Image.Dither.NONE) for frame in observations[::stride]]
        return _write(film, path, options, stride)
    observations = observations.astype(np.float64)
    if observations.ndim != 2 or observations.size == 0 or not np.isfinite(observations).all():
        raise ConfigError(f"observations: got shape {observations.shape}, needs [T, O], finite and not empty")
    steps = range(0, len(observations), -(-len(observations) // FRAMES))
    if name in SCENES:
        options = {**classic.options(name), **options}
        images = [Image.fromarray(frame) for frame in pictures(name, observations[:: steps.step], options)]
    else:
        images = [series_frame(observations, step) for step in steps]
    shown = [_progress(image, (step + 1) / len(observations)) for step, image in zip(steps, images, strict=True)]
    palette = _palette()
    flat = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in shown]
    return _write(flat, path, options, steps.step)


def coloured(grids: ArrayLike) -> np.ndarray:
    """Grids [..., H, W, C], or the chances of what lies in their cells, as pictures [..., H, W, 3] within [0, 1].

    Each channel has a colour, and each cell the brightest of those that lie in it.
    """
    chances = np.asarray(grids, np.float32)
    colors = np.array([SERIES[channel % len(SERIES)] for channel in range(chances.shape[-1])], np.float32)
    return np.max(chances[..., None] * colors, axis=-2)


def pictures(name: str, observations: ArrayLike, options: Mapping[str, Any]) -> np.ndarray:
    """Draw steps of a classic task, uint8 [T, PIXELS, PIXELS, 3].

    Args:
        name: one of `SCENES`.
        observations: [T, O].
        options: physical parameters of the task.
    """
    defaults = classic.TASKS[name].parameters
    params = defaults._replace(**{option: options[option] for option in defaults._fields if option in options})
    draw_one = jax.jit(lambda obs: draw(SCENES[name](params, obs), PIXELS))
    return np.stack([draw_one(obs) for obs in jnp.asarray(observations, jnp.float32)])


def series_frame(observations: np.ndarray, step: int) -> Image.Image:
    """Draw the entries of the observations [T, O] (the first 8 of them) over time, up to a step."""
    shown = observations[:, : len(SERIES)]
    low, high = shown.min(), shown.max()
    heights = (shown - low) / max(high - low, 1e-9)
    times = np.linspace(0.0, 1.0, len(shown)) if len(shown) > 1 else np.zeros(1)
    canvas = Canvas()
    if low < 0.0 < high:
        canvas.line([(0.0, -low / (high - low)), (1.0, -low / (high - low))], 1.0, FAINT)
    for column, color in zip(heights.T, SERIES, strict=False):
        if step > 0:
            canvas.line(list(zip(times[: step + 1], column[: step + 1], strict=True)), 1.5, color)
        canvas.disc((times[step], column[step]), 3.5, color)
    return canvas.image()


def _progress(image: Image.Image, fraction: float) -> Image.Image:
    """With a bar along the lower edge: how much of the episode has passed."""
    ImageDraw.Draw(image).rectangle((0, PIXELS - 3, fraction * PIXELS, PIXELS), fill=_bytes(FAINT))
    return image


def _enlarged(picture: np.ndarray) -> Image.Image:
    """A picture at about the size of a frame, each of its pixels a square."""
    height, width, _ = picture.shape
    scale = max(PIXELS // max(height, width), 1)
    return Image.fromarray(picture).resize((width * scale, height * scale), Image.Resampling.NEAREST)


def _write(images: list[Image.Image], path: str | Path, options: Mapping[str, Any], steps: int) -> Path:
    """Write frames that are ``steps`` steps of the environment apart."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    seconds = float(np.clip(float(options.get("dt", 0.04)) * steps, 0.02, 0.08))
    first, *others = images
    first.save(path, "GIF", save_all=True, append_images=others, duration=round(1000.0 * seconds), loop=0)
    return path


@functools.cache
def _palette() -> Image.Image:
    """Every colour and its blends with what lies behind it; one palette for all frames keeps them from flickering."""
    inks = [_bytes(color) for color in (INK, FAINT, *SERIES)]
    grounds = [_bytes(color) for color in (PAPER, FAINT)]
    blends = [np.linspace(ground, ink, 9) for ground in grounds for ink in inks]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.unique(np.concatenate(blends).round().astype(np.uint8), axis=0).tobytes())
    return palette


def _bytes(color: Color) -> tuple[int, int, int]:
    red, green, blue = (round(255.0 * part) for part in color)
    return red, green, blue
