"""The page: one HTML file that refers to nothing outside of it."""

import html
import importlib.resources
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from jaxmbrl import __version__
from jaxmbrl.config import describe
from jaxmbrl.diagnostics import mismatch
from jaxmbrl.report import chapters, figures, story, sweeps
from jaxmbrl.report.markup import details, figure, number, picture, table
from jaxmbrl.report.story import Curve, Story
from jaxmbrl.report.sweeps import SweepStory
from jaxmbrl.training import manifest
from jaxmbrl.training.manifest import Run
from jaxmbrl.training.progress import counted
from jaxmbrl.training.sweep import archive


def write(directories: Sequence[Path], output: Path, *, episodes: int = 5, seeds: int = 2, seed: int = 0) -> Path:
    """Write a report on some runs and sweeps.

    Args:
        directories: of the runs and sweeps; at least one.
        output: the file to write; an older one is replaced.
        episodes: fresh ones from the latest checkpoint, for each seed that is examined; 0 shows what was logged only.
            A sweep keeps no checkpoints: of it, what was logged is all there is.
        seeds: of each run that are examined, the first ones.
        seed: of the episodes.

    Returns:
        ``output``.

    Raises:
        ConfigError: a directory holds neither a run nor a sweep, or ``output`` cannot be written; nothing was computed.
    """
    stories = [sweeps.read(place) if archive.holds_sweep(place) else story.read(place) for place in directories]
    manifest.check_output(output)
    told = [story.examined(one, episodes, seeds, seed) if isinstance(one, Story) else one for one in stories]
    output.write_text(render(told), encoding="utf-8")
    return output


def render(stories: Sequence[Story | SweepStory]) -> str:
    """The page's text."""
    labels = _labels(stories)
    told = [(one, label, place) for place, (one, label) in enumerate(zip(stories, labels, strict=True))]
    parts = [
        f"<header><h1>{html.escape(_title(stories))}</h1>",
        f'<p class="quiet">jaxmbrl {__version__}, written {datetime.now():%Y-%m-%d %H:%M}</p>',
        _contents(labels) if len(stories) > 1 else "",
        "</header><main>",
        _overview([(_link(place, label), label, one) for one, label, place in told if isinstance(one, Story)]),
        sweeps.overview([(_link(place, label), one) for one, label, place in told if isinstance(one, SweepStory)]),
        *(_chapter(*each) for each in told),
        "</main>",
    ]
    shell = importlib.resources.files("jaxmbrl.report").joinpath("page.html").read_text(encoding="utf-8")
    return shell.replace("{{title}}", html.escape(_title(stories))).replace("{{content}}", "\n".join(parts))


def _run_of(one: Story | SweepStory) -> Run:
    """Of a sweep, what its runs have in common."""
    return one.run if isinstance(one, Story) else one.sweep.base


def _link(place: int, label: str) -> str:
    return f'<a href="#run-{place}">{html.escape(label)}</a>'


def _title(stories: Sequence[Story | SweepStory]) -> str:
    runs = [_run_of(one) for one in stories]
    systems, tasks = (list(dict.fromkeys(names)) for names in zip(*((r.system, r.env) for r in runs), strict=True))
    return f"{', '.join(systems)} on {', '.join(tasks)}"


def _labels(stories: Sequence[Story | SweepStory]) -> list[str]:
    """System and environment, with the directory where several have both in common, by its path if need be."""
    short = []
    for one in stories:
        run = _run_of(one)
        short.append(f"{'' if isinstance(one, Story) else 'sweep of '}{run.system}, {run.env}")
    named = [f"{name} ({one.directory.name})" for name, one in zip(short, stories, strict=True)]
    labels = []
    for name, longer, one in zip(short, named, stories, strict=True):
        longer = longer if named.count(longer) == 1 else f"{name} ({one.directory})"
        labels.append(longer if short.count(name) > 1 else name)
    return labels


def _contents(labels: Sequence[str]) -> str:
    links = (f"<li>{_link(place, label)}</li>" for place, label in enumerate(labels))
    return f'<nav aria-label="runs"><ul>{"".join(links)}</ul></nav>'


def _overview(stories: Sequence[tuple[str, str, Story]]) -> str:
    """Learning curves by environment, and a table of the runs, each given with its link and its label."""
    if not stories:
        return ""
    rows = []
    for link, _, one in stories:
        epochs = max((row["epoch"] for row in one.rows), default=0)
        steps = max((row["env_steps"] for row in one.rows), default=0)
        speed = chapters.pace(one), chapters.compile_seconds(one)
        state = f"{epochs} of {one.run.schedule.epochs}"
        rows.append([link, one.run.preset, one.run.seeds, state, f"{steps:,}", chapters.last_return(one), *speed])
    heads = ("run", "preset", "seeds", "epochs", "steps", "last return", "steps/s", "compile, s")
    curves = [
        figure(f"Learning curves: {task}", figures.learning_curves(found), _CURVES)
        for task, found in _curves_by_task(stories).items()
    ]
    return f'<div class="figures">{"".join(curves)}</div>{table(heads, rows, escaped=True)}'


_CURVES = """Means over seeds, with 95% bootstrap intervals: of evaluation episodes where the schedule has them, else of
the training episodes. One seed has no interval."""


def _curves_by_task(stories: Sequence[tuple[str, str, Story]]) -> dict[str, dict[str, Curve]]:
    """By environment, the learning curves of its runs."""
    tasks: dict[str, dict[str, Curve]] = {}
    for _, label, one in stories:
        curve = story.learning(one)
        if curve:
            seeds = len(curve.values)
            name = f"{label.replace(f', {one.run.env}', '')} ({counted(seeds, 'seed')})"
            tasks.setdefault(one.run.env, {})[name] = curve
    return tasks


def _chapter(one: Story | SweepStory, label: str, place: int) -> str:
    """Everything about one run, or one sweep."""
    if isinstance(one, SweepStory):
        return sweeps.chapter(one, label, place)
    drawn = [*chapters.of_model(one), *_of_metrics(one), *(picture(shown) for shown in one.pictures)]
    parts = [f'<section id="run-{place}"><h2>{html.escape(label)}</h2>', f'<p class="quiet">{_whereabouts(one)}</p>']
    if one.why:
        parts.append(f'<p class="note">Nothing was computed from a checkpoint: {html.escape(one.why)}.</p>')
    elif one.findings and one.findings.open_loop is None:
        parts.append('<p class="note">This system has no model that could be asked what it predicts.</p>')
    parts.append(f'<div class="figures">{"".join(drawn)}</div>' if drawn else "")
    parts.append(table(("measure", "value", "what it is"), chapters.measures(one)))
    parts.append(details("Compile time and speed", table(("what", "value"), chapters.machine(one))))
    parts.append(details("Configuration", table(("option", "value", "what it is"), _fields(one))))
    parts.append(details("Provenance", table(("what", "value"), one.versions.items())))
    return "".join(parts) + "</section>"


def _whereabouts(one: Story) -> str:
    seen = f"; examined at epoch {one.epoch}, seeds {', '.join(map(str, one.examined))}" if one.findings else ""
    return f"{html.escape(str(one.directory))}, {counted(one.run.seeds, 'seed')}{seen}"


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
