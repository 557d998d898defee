"""Open-loop prediction: what was seen beside what a model imagined, after a few steps that it was shown."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from jaxmbrl.diagnostics.animation import coloured

COLUMNS = 12  # frames in a still picture, at most
ZOOM = 4  # pixels a pixel, in an animation
SEEN, IMAGINED = "#3d5a6c", "#d1495b"


def draw(seen: ArrayLike, imagined: ArrayLike, context: int, path: Path, *, grid: bool = False) -> tuple[Path, ...]:
    """Write ``path``.png, and for images ``path``.gif as well.

    Args:
        seen: [T, O] or images [T, H, W, C] within [0, 1], of which the last three channels are shown.
        imagined: like ``seen``; the first ``context`` of them are reconstructions of what was shown.
        context: frames that were shown to the model.
        path: of the files, without suffix.
        grid: whether channels are kinds of things rather than colours, so that each gets a colour of its own.

    Returns:
        The files that were written.
    """
    seen, imagined = np.asarray(seen), np.clip(np.asarray(imagined), -1e6, 1e6)
    if seen.ndim == 2:
        return (_plot(seen, imagined, context, path.with_suffix(".png")),)
    imagined = np.clip(imagined, 0.0, 1.0)
    if grid:
        seen, imagined = coloured(seen), coloured(imagined)
    rows = {"seen": seen, "imagined": imagined, "error": 0.5 + 0.5 * (imagined - seen)}
    return (
        _still(rows, context, path.with_suffix(".png")),
        _animate(list(rows.values()), context, path.with_suffix(".gif")),
    )


def _plot(seen: np.ndarray, imagined: np.ndarray, context: int, path: Path) -> Path:
    """A panel for each entry of the observation."""
    columns = min(seen.shape[1], 4)
    rows = -(-seen.shape[1] // columns)
    height = 1.7 * rows + 0.5  # inches, the last half for what stands below
    figure, axes = plt.subplots(rows, columns, figsize=(2.6 * columns, height), squeeze=False, sharex=True)
    for entry, axis in enumerate(axes.flat):
        axis.set_visible(entry < seen.shape[1])
        if entry >= seen.shape[1]:
            continue
        axis.axvspan(0, context - 1, color="0.93")
        axis.plot(seen[:, entry], color=SEEN, label="seen")
        axis.plot(imagined[:, entry], color=IMAGINED, linestyle="--", label="imagined")
        axis.set_title(f"entry {entry}", fontsize=8)
        axis.tick_params(labelsize=7)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncols=2, fontsize=8, frameon=False)
    figure.supxlabel("step (shown to the model where grey)", fontsize=8, y=0.27 / height)
    figure.tight_layout(rect=(0, 0.3 / height, 1, 1))
    return _save(figure, path)


def _still(rows: dict[str, np.ndarray], context: int, path: Path) -> Path:
    length = len(rows["seen"])
    steps = np.unique(np.linspace(0, length - 1, COLUMNS).astype(int))
    figure, axes = plt.subplots(len(rows), len(steps), figsize=(0.9 * len(steps) + 0.6, 3.2), squeeze=False)
    for row, (name, frames) in enumerate(rows.items()):
        for column, step in enumerate(steps):
            axis = axes[row, column]
            axis.imshow(frames[step][..., -3:], vmin=0.0, vmax=1.0, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            if row == 0:
                axis.set_title(f"{step}" + ("\nshown" if step < context else ""), fontsize=7)
            if column == 0:
                axis.set_ylabel(name, fontsize=8)
    figure.tight_layout(pad=0.4)
    return _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def _animate(rows: Sequence[np.ndarray], context: int, path: Path) -> Path:
    """All rows side by side; a light bar above while the model is shown what is seen."""
    pictures = []
    for step in range(len(rows[0])):
        frame = np.concatenate([frames[step][..., -3:] for frames in rows], axis=1)
        bar = np.full((2, frame.shape[1], 3), 1.0 if step < context else 0.0)
        pixels = np.round(255 * np.concatenate([bar, frame])).astype(np.uint8)
        image = Image.fromarray(pixels)
        pictures.append(image.resize((image.width * ZOOM, image.height * ZOOM), Image.Resampling.NEAREST))
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, loop=0)
    return path
