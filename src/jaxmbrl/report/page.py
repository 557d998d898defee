"""The page: one HTML file that refers to nothing outside of it."""

import html
import importlib.resources
import itertools
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from jaxmbrl import __version__
from jaxmbrl.config import ConfigError, describe
from jaxmbrl.diagnostics import mismatch
from jaxmbrl.report import chapters, figures, story
from jaxmbrl.report.markup import figure, number, picture, table
from jaxmbrl.report.story import Curve, Story


def write(directories: Sequence[Path], output: Path, *, episodes: int = 5, seeds: int = 2, seed: int = 0) -> Path:
    """Write a report on some runs.

    Args:
        directories: of the runs; at least one.
        output: the file to write; an older one is replaced.
        episodes: fresh ones from the latest checkpoint, for each seed that is examined; 0 shows what was logged only.
        seeds: of each run that are examined, the first ones.
        seed: of the episodes.

    Returns:
        ``output``.

    Raises:
        ConfigError: a directory holds no run, or ``output`` cannot be written; nothing was computed.
    """
    stories = [story.read(directory) for directory in directories]
    _check_writable(output)
    told = [story.examined(one, episodes, seeds, seed) for one in stories]
    output.write_text(render(told), encoding="utf-8")
    return output


def render(stories: Sequence[Story]) -> str:
    """The page's text."""
    labels = _labels(stories)
    parts = [
        f"<header><h1>{html.escape(_title(stories))}</h1>",
        f'<p class="quiet">jaxmbrl {__version__}, written {datetime.now():%Y-%m-%d %H:%M}</p>',
        _contents(labels) if len(stories) > 1 else "",
        "</header><main>",
        _overview(stories, labels),
        *(_chapter(one, label, place) for place, (one, label) in enumerate(zip(stories, labels, strict=True))),
        "</main>",
    ]
    shell = importlib.resources.files("jaxmbrl.report").joinpath("page.html").read_text(encoding="utf-8")
    return shell.replace("{{title}}", html.escape(_title(stories))).replace("{{content}}", "\n".join(parts))


def _check_writable(output: Path) -> None:
    """Raise ConfigError before any computing where the file could not be written after it."""
    if output.is_dir():
        raise ConfigError(f"output: got {output}, which is a directory, needs a file")
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"output: got {output}, whose directory does not exist")
    try:
        output.open("a").close()
    except OSError as error:
        raise ConfigError(f"output: got {output}, which cannot be written ({error.strerror})") from error


def _title(stories: Sequence[Story]) -> str:
    systems, tasks = (
        [*dict.fromkeys(names)] for names in zip(*((s.run.system, s.run.env) for s in stories), strict=True)
    )
    return f"{', '.join(systems)} on {', '.join(tasks)}"


def _labels(stories: Sequence[Story]) -> list[str]:
    """System and environment, with the directory where several runs have both in common."""
    short = [f"{one.run.system}, {one.run.env}" for one in stories]
    return [
        f"{name} ({one.directory.name})" if short.count(name) > 1 else name
        for name, one in zip(short, stories, strict=True)
    ]


def _contents(labels: Sequence[str]) -> str:
    links = (f'<li><a href="#run-{place}">{html.escape(label)}</a></li>' for place, label in enumerate(labels))
    return f'<nav aria-label="runs"><ul>{"".join(links)}</ul></nav>'


def _overview(stories: Sequence[Story], labels: Sequence[str]) -> str:
    """Learning curves by environment, and a table of the runs."""
    rows = []
    for place, (one, label) in enumerate(zip(stories, labels, strict=True)):
        pace = chapters.pace(one)
        last = chapters.last_return(one)
        epochs = max((row["epoch"] for row in one.rows), default=0)
        link = f'<a href="#run-{place}">{html.escape(label)}</a>'
        steps = max((row["env_steps"] for row in one.rows), default=0)
        state = f"{epochs} of {one.run.schedule.epochs}"
        rows.append(
            [link, one.run.preset, one.run.seeds, state, f"{steps:,}", last, pace, chapters.compile_seconds(one)]
        )
    heads = ("run", "preset", "seeds", "epochs", "steps", "last return", "steps/s", "compile, s")
    curves = [
        figure(f"Learning curves: {task}", figures.learning_curves(dict(found)), _CURVES)
        for task, found in _curves_by_task(stories, labels)
    ]
    return f'<div class="figures">{"".join(curves)}</div>{table(heads, rows, escaped=True)}'


_CURVES = """Means over seeds, with 95% bootstrap intervals: of evaluation episodes where the schedule has them, else of
the training episodes. One seed has no interval."""


def _curves_by_task(stories: Sequence[Story], labels: Sequence[str]) -> Iterator[tuple[str, list[tuple[str, Curve]]]]:
    """By environment the learning curves of its runs, and of each configuration where a run has several."""
    tasks: dict[str, list[tuple[str, Curve]]] = {}
    for one, label in zip(stories, labels, strict=True):
        name = label.replace(f", {one.run.env}", "")
        for configuration, rows in _by_configuration(one.rows):
            curve = story.learning(one._replace(rows=rows))
            if curve:
                mark = name if configuration is None else f"{name}, configuration {configuration}"
                tasks.setdefault(one.run.env, []).append((mark, curve))
    yield from tasks.items()


def _by_configuration(rows: Iterable[story.Row]) -> Iterator[tuple[Any, list[story.Row]]]:
    """Rows of a sweep say which of its configurations they are of."""
    key = lambda row: str(row.get("configuration", ""))  # noqa: E731
    for _, group in itertools.groupby(sorted(rows, key=key), key):
        found = list(group)
        yield found[0].get("configuration"), found


def _chapter(one: Story, label: str, place: int) -> str:
    """Everything about one run."""
    drawn = [*chapters.of_model(one), *_of_metrics(one), *(picture(shown) for shown in one.pictures)]
    parts = [f'<section id="run-{place}"><h2>{html.escape(label)}</h2>', f'<p class="quiet">{_whereabouts(one)}</p>']
    if one.why:
        parts.append(f'<p class="note">Nothing was computed from a checkpoint: {html.escape(one.why)}.</p>')
    elif one.findings and one.findings.open_loop is None:
        parts.append('<p class="note">This system has no model that could be asked what it predicts.</p>')
    parts.append(f'<div class="figures">{"".join(drawn)}</div>' if drawn else "")
    parts.append(table(("measure", "value", "what it is"), chapters.measures(one)))
    parts.append(_details("Compile time and speed", table(("what", "value"), chapters.machine(one))))
    parts.append(_details("Configuration", table(("option", "value", "what it is"), _fields(one))))
    parts.append(_details("Provenance", table(("what", "value"), one.versions.items())))
    return "".join(parts) + "</section>"


def _whereabouts(one: Story) -> str:
    seen = f"; examined at epoch {one.epoch}, seeds {', '.join(map(str, one.examined))}" if one.findings else ""
    return f"{html.escape(str(one.directory))}, {one.run.seeds} seed{'s' if one.run.seeds > 1 else ''}{seen}"


def _of_metrics(one: Story) -> Iterator[str]:
    """The model's loss against the return, where the metrics tell both."""
    reward = story.learning(one)
    for name, label in (
        ("model_holdout_loss", "hold-out loss of the model"),
        ("model_loss", "training loss of the model"),
    ):
        loss = story.curve(one.rows, name)
        if loss and reward and (loss.values.size > 2):
            known = np.isfinite(loss.values) & np.isfinite(reward.values)
            rank = (
                float(mismatch.rank_correlation(loss.values[known], reward.values[known]))
                if known.sum() > 2
                else np.nan
            )
            note = f"""A point for each seed and epoch, early ones faint. A model is fitted for likelihood and used for
            return (Lambert et al. 2020); the rank correlation of loss and return is {number(rank)}."""
            yield figure("Does a better model act better?", figures.mismatch(loss, reward, label), note)
            return


def _fields(one: Story) -> Iterator[tuple[str, Any, str]]:
    yield from describe(one.run.agent, "agent.")
    yield from describe(one.run.schedule, "schedule.")
    yield from ((f"env.{name}", value, "") for name, value in one.run.options.items())


def _details(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>{content}</details>"
