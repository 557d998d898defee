"""``metrics.jsonl``: one JSON object a line, one line for each seed and epoch."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Row: TypeAlias = dict[str, Any]

# Means over the episodes that an epoch completed; without any they say nothing.
OF_EPISODES = ("episode_return", "episode_length")


def rows(seeds: Sequence[int], epoch: int, metrics: Mapping[str, Any], wall_seconds: float) -> list[Row]:
    """One row for each seed.

    Args:
        seeds: the S seeds of a run.
        epoch: completed epochs.
        metrics: what an epoch reports: [S] arrays, or [] arrays for one seed.
        wall_seconds: since the run began, resumed parts added up.

    Returns:
        S rows of plain numbers; None stands for what is not a number, or was not measured.
    """
    columns = {name: np.atleast_1d(np.asarray(value)) for name, value in metrics.items()}
    shown = {name: measured(name, metrics) for name in metrics}
    return [
        {
            "seed": seed,
            "epoch": epoch,
            **{name: _number(column[i]) if shown[name][i] else None for name, column in columns.items()},
            "wall_seconds": round(wall_seconds, 3),
        }
        for i, seed in enumerate(seeds)
    ]


def measured(name: str, metrics: Mapping[str, Any]) -> np.ndarray:
    """Where a metric means something: [S] bool."""
    source = "episodes" if name in OF_EPISODES and "episodes" in metrics else name
    column = np.atleast_1d(np.asarray(metrics[source]))
    return column > 0 if source == "episodes" and name != source else np.ones(column.shape, bool)


def append(path: Path, new: Sequence[Row]) -> None:
    """Add rows, and have them on disk before a checkpoint of the same epoch can be."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in new)
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[Row]:
    """All rows. A last line that was cut off in the middle, as by a killed process, is left out."""
    if not path.exists():
        return []
    result = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            result.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return result


def truncate(path: Path, epoch: int) -> list[Row]:
    """Drop the rows after ``epoch``, which will be computed again, and return those that stay."""
    kept = [row for row in read(path) if row["epoch"] <= epoch]
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    part.replace(path)
    return kept


def _number(value: Any) -> int | float | None:
    number = value.item()
    return number if math.isfinite(number) else None
