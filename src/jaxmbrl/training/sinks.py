"""Where rows of metrics go besides ``metrics.jsonl``: TensorBoard, Weights & Biases.

A resumed run computes the rows after its checkpoint again, bit for bit. ``metrics.jsonl`` has them cut off before; the
others cannot take back what they were told, and this is what becomes of the second copy:

- TensorBoard hides the first copy, since the new event file says from which step on it counts (``purge_step``).
- Weights & Biases ignores steps that a run has already logged, so the second copy, which is the same, is dropped.
  Offline, every process leaves a folder of its own under the run's one id; ``wandb sync`` joins them in that order.
"""

import contextlib
import importlib
import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxmbrl.config import ConfigError, near
from jaxmbrl.training import metrics
from jaxmbrl.training.metrics import Row

TENSORBOARD, WANDB = "tensorboard", "wandb"  # folders in a run's directory
PLACES = ("seed", "epoch", "env_steps")  # of a row: where it belongs, not what was measured


class Sink(NamedTuple):
    """A place that rows go to.

    Attributes:
        append: ``(rows)``, those of one epoch, one for each seed.
        close: ``()``, once all that was appended is safe.
    """

    append: Callable[[Sequence[Row]], None]
    close: Callable[[], None]


class Kind(NamedTuple):
    """A kind of sink.

    Attributes:
        package: that it needs, and the extra that brings it.
        open: ``(directory, kept, config) -> Sink``: of the run, the rows that were logged before and stay, and the
            content of ``config.json``.
    """

    package: str
    open: Callable[[Path, Sequence[Row], Mapping[str, Any]], Sink]


def check(names: Sequence[str]) -> None:
    """Raise `ConfigError` where a sink is unknown, or its package missing."""
    for name in names:
        if name not in SINKS:
            raise ConfigError(f"sink: got {name!r}, needs some of {', '.join(SINKS)}{near(name, SINKS)}")
        package = SINKS[name].package
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"sink: {name} needs {package}, which is not installed: pip install '{package}'")
    if len(set(names)) < len(names):
        raise ConfigError(f"sink: got {','.join(names)}, needs each name once")


@contextlib.contextmanager
def opened(
    names: Sequence[str], file: Path, kept: Sequence[Row], config: Mapping[str, Any]
) -> Iterator[Callable[[Sequence[Row]], None]]:
    """Yield ``append(rows)``, which writes them to ``file`` first, and then to each sink; all are closed at the end.

    Args:
        names: of the sinks.
        file: ``metrics.jsonl`` in the run's directory.
        kept: rows that were logged before and stay.
        config: the content of ``config.json``.
    """
    with contextlib.ExitStack() as stack:
        sinks = [file_sink(file)]
        for name in names:
            try:
                sinks.append(SINKS[name].open(file.parent, kept, config))
            except Exception as error:  # whatever a service raises, such as for a missing login
                raise ConfigError(f"sink: {name} does not open ({type(error).__name__}: {error})") from error
            stack.callback(sinks[-1].close)

        def append(rows: Sequence[Row]) -> None:
            for sink in sinks:
                sink.append(rows)

        yield append


def file_sink(path: Path) -> Sink:
    """``metrics.jsonl``."""
    return Sink(lambda rows: metrics.append(path, rows), lambda: None)


def _tensorboard(directory: Path, kept: Sequence[Row], config: Mapping[str, Any]) -> Sink:
    """An event folder for each seed, so that their curves lie over one another; steps are environment steps."""
    del config
    from tensorboardX import SummaryWriter

    writers: dict[int, Any] = {}

    def writer(seed: int) -> Any:
        if seed not in writers:
            last = max((row["env_steps"] for row in kept if row["seed"] == seed), default=None)
            purge = None if last is None else last + 1
            folder = directory / TENSORBOARD / f"seed_{seed}"
            apart = f".{time.time_ns()}"  # names tell seconds, and a file of the same name would be written over
            writers[seed] = SummaryWriter(str(folder), purge_step=purge, filename_suffix=apart)
        return writers[seed]

    def append(rows: Sequence[Row]) -> None:
        for row in rows:
            for name, value in measured(row).items():
                writer(row["seed"]).add_scalar(name, value, row["env_steps"])
            writer(row["seed"]).flush()

    def close() -> None:
        for one in writers.values():
            one.close()

    return Sink(append, close)


def _wandb(mode: str | None) -> Callable[[Path, Sequence[Row], Mapping[str, Any]], Sink]:
    """One run of Weights & Biases, in which every seed has metrics of its own; steps are epochs."""

    def start(directory: Path, kept: Sequence[Row], config: Mapping[str, Any]) -> Sink:
        del kept
        wandb: Any = importlib.import_module("wandb")
        (directory / WANDB).mkdir(exist_ok=True)
        name = directory.absolute().name
        identity = f"{name}-{config['provenance']['time']}".replace(":", "")  # the same for every process of a run
        run = wandb.init(
            project="jaxmbrl",
            name=name,
            id="".join(c if c.isalnum() else "-" for c in identity),
            dir=str(directory),
            config=dict(config),
            resume=None if mode == "offline" else "allow",
            mode=mode,
        )

        def append(rows: Sequence[Row]) -> None:
            told: dict[str, Any] = {"env_steps": rows[0]["env_steps"]}
            for row in rows:
                mark = f"/seed_{row['seed']}" if len(rows) > 1 else ""
                told |= {f"{name}{mark}": value for name, value in measured(row).items()}
            run.log(told, step=rows[0]["epoch"])

        return Sink(append, run.finish)

    return start


def measured(row: Row) -> dict[str, float]:
    """What a row tells beyond its place; what was not measured is left out."""
    return {name: value for name, value in row.items() if name not in PLACES and value is not None}


SINKS: dict[str, Kind] = {
    "tensorboard": Kind("tensorboardX", _tensorboard),
    "wandb": Kind("wandb", _wandb(None)),
    "wandb_offline": Kind("wandb", _wandb("offline")),
}
