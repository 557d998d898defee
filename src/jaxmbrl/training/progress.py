"""Live progress on standard error: a bar on a terminal, one line an epoch elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from jaxmbrl.training.metrics import Row

Report: TypeAlias = Callable[[int, Sequence[Row]], None]

SHOWN = {"episode_return": "return", "eval_return": "eval return", "model_loss": "model loss"}


def say(line: str) -> None:
    """Tell the user something, on standard error."""
    print(f"jaxmbrl: {line}", file=sys.stderr, flush=True)  # noqa: T201


def counted(number: int, noun: str) -> str:
    """So many of them.

    >>> counted(1, "seed"), counted(2_000, "seed")
    ('1 seed', '2,000 seeds')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@contextlib.contextmanager
def reporter(done: int, epochs: int, steps: int) -> Iterator[Report]:
    """Yield ``report(epoch, rows)``, to be called after each epoch.

    Args:
        done: epochs that were completed before.
        epochs: epochs in the whole run.
        steps: environment steps that were made before, by all seeds.
    """
    console = Console(stderr=True)
    begin = time.monotonic()
    before = begin
    with (_bar if console.is_terminal else _lines)(console, done, epochs) as show:

        def report(epoch: int, rows: Sequence[Row]) -> None:
            nonlocal before, steps
            now = time.monotonic()
            total = sum(row["env_steps"] for row in rows)
            speed = (total - steps) / max(now - before, 1e-9)
            left = (now - begin) / (epoch - done) * (epochs - epoch)
            before, steps = now, total
            show(epoch, f"{status(rows)}  {speed:,.0f} steps/s  {_clock(left)} left")

        yield report


def status(rows: Sequence[Row]) -> str:
    """The state of a run in a few words; several seeds are averaged."""
    words = [f"steps {rows[0]['env_steps']:,}"]
    for name, label in SHOWN.items():
        values = [row[name] for row in rows if row.get(name) is not None]
        words += [f"{label} {sum(values) / len(values):.4g}"] if values else []
    return "  ".join(words)


@contextlib.contextmanager
def _bar(console: Console, done: int, epochs: int) -> Iterator[Callable[[int, str], None]]:
    columns = (TextColumn("epoch {task.completed}/{task.total}"), BarColumn(20), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=console) as bar:
        task = bar.add_task("", completed=done, total=epochs)
        yield lambda epoch, text: bar.update(task, completed=epoch, description=text)


@contextlib.contextmanager
def _lines(console: Console, done: int, epochs: int) -> Iterator[Callable[[int, str], None]]:
    del done
    yield lambda epoch, text: console.print(
        f"epoch {epoch}/{epochs}  {text}", highlight=False, markup=False, soft_wrap=True
    )


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
