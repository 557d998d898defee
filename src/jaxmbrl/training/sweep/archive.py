"""Read what a sweep has left on disk, finished or not; nothing is computed."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from jaxmbrl.config import ConfigError
from jaxmbrl.training import manifest, metrics
from jaxmbrl.training.metrics import Row
from jaxmbrl.training.sweep import plan
from jaxmbrl.training.sweep.execution import FILE, METRICS
from jaxmbrl.training.sweep.plan import Sweep


class Archive(NamedTuple):
    """A sweep's directory.

    Attributes:
        sweep: what it was to run.
        versions: under which it was started.
        rows: metrics of the runs that are complete.
    """

    sweep: Sweep
    versions: dict[str, Any]
    rows: list[Row]


def holds_sweep(directory: Path) -> bool:
    """Whether it is a sweep's directory."""
    return (directory / FILE).is_file()


def read(directory: Path) -> Archive:
    """What a sweep's directory holds. Raises ConfigError where it is damaged."""
    path = directory / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        configurations = tuple(dict(words) for words in content["configurations"])
        sweep = Sweep(manifest.parse(content["base"]), dict(content["words"]), configurations)
        epochs = [plan.run_of(sweep, index).schedule.epochs for index in range(len(configurations))]
        rows = metrics.read(directory / METRICS)
        present = Counter((row["configuration"], row["seed"]) for row in rows)
        complete = {run for run, number in present.items() if number == epochs[run[0]]}
        kept = [row for row in rows if (row["configuration"], row["seed"]) in complete]
        return Archive(sweep, dict(content["provenance"]), kept)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (*manifest.DAMAGE, IndexError) as error:
        raise ConfigError(f"{directory}: damaged ({type(error).__name__}: {error})") from error
