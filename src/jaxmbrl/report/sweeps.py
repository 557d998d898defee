"""What a page says of a sweep: who won and how sure that is, what each field does, and the winner as a command."""

import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmbrl.config import describe
from jaxmbrl.diagnostics import statistics
from jaxmbrl.report import figures, story
from jaxmbrl.report.figures import Effect
from jaxmbrl.report.markup import UNKNOWN, details, figure, number, table
from jaxmbrl.report.story import Curve
from jaxmbrl.training.metrics import Row
from jaxmbrl.training.progress import counted
from jaxmbrl.training.sweep import archive, results
from jaxmbrl.training.sweep.plan import Sweep
from jaxmbrl.training.sweep.results import Standing

COLOURED = 5  # configurations whose learning curves have a name; the others are a grey background
LONGEST = 40  # characters of such a name; a longer one is its rank alone


class SweepStory(NamedTuple):
    """One sweep.

    Attributes:
        directory: its own.
        sweep: what it was to run.
        versions: under which it was started.
        rows: metrics of its complete runs.
        ranked: every configuration, the best first; scores are nan where a run is missing.
    """

    directory: Path
    sweep: Sweep
    versions: dict[str, Any]
    rows: list[Row]
    ranked: list[Standing]


def read(directory: Path) -> SweepStory:
    """What a sweep's directory says, nothing computed. Raises ConfigError where it is damaged."""
    sweep, versions, rows = archive.read(directory)
    return SweepStory(directory, sweep, versions, rows, results.standings(sweep, rows))


def overview(stories: Sequence[tuple[str, SweepStory]]) -> str:
    """A table of sweeps, given with links to their chapters."""
    heads = ("sweep", "configurations", "seeds", "complete runs", "diverged", "best IQM", "95% interval", "best")
    return table(heads, (_summary(link, one) for link, one in stories), escaped=True) if stories else ""


def chapter(one: SweepStory, label: str, place: int) -> str:
    """Everything about one sweep."""
    sweep, best = one.sweep, one.ranked[0]
    done, measure = _complete(one), results.measure(one.rows).replace("_", " ")
    parts = [f'<section id="run-{place}"><h2>{html.escape(label)}</h2>']
    seeds = f"{counted(sweep.base.seeds, 'seed')} each"
    parts.append(f'<p class="quiet">{html.escape(str(one.directory))}, {seeds}</p>')
    if done < sweep.num_runs:
        missing = f"{sweep.num_runs - done} of {sweep.num_runs} runs are missing: the same command on the same"
        parts.append(f'<p class="note">{missing} directory finishes them.</p>')
    if done:
        parts.append(f'<div class="figures">{"".join(_drawn(one, measure))}</div>')
    if np.isfinite(best.iqm):
        parts.append(f"<h3>The best configuration</h3>{_command(one)}")
    parts.append(f"<h3>All configurations, the best first</h3>{table(_heads(sweep), _ranking(one))}")
    parts.append(
        f"""<p class="quiet">A run's score is its {measure}, averaged over the last quarter of its epochs; one that
        diverged ranks below all. IQM is the interquartile mean over seeds, with its 95% bootstrap interval.</p>"""
    )
    fields = [*describe(sweep.base.agent, "agent."), *describe(sweep.base.schedule, "schedule.")]
    fields += [(f"env.{name}", value, "") for name, value in sweep.base.options.items()]
    parts.append(details("Configuration that they start from", table(("option", "value", "what it is"), fields)))
    parts.append(details("Provenance", table(("what", "value"), one.versions.items())))
    return "".join(parts) + "</section>"


def effect(sweep: Sweep, ranked: Sequence[Standing], path: str) -> Effect:
    """What the scores are at each value of one field, whatever the other fields are.

    The interval is a stratified bootstrap: the configurations that share a value are fixed, their seeds are drawn anew.
    """
    values = tuple(dict.fromkeys(words[path] for words in sweep.configurations if path in words))
    groups = [[s for s in ranked if sweep.configurations[s.configuration].get(path) == value] for value in values]
    strata = [[s.scores for s in group if not np.isnan(s.scores).any()] for group in groups]
    iqm = statistics.interquartile_mean
    middle = [float(iqm(np.concatenate(scores))) if scores else np.nan for scores in strata]
    ends = [statistics.bootstrap_interval(scores, iqm) if scores else (np.nan, np.nan) for scores in strata]
    low, high = np.array(ends).T
    configurations = tuple(np.array([standing.iqm for standing in group]) for group in groups)
    diverged = tuple(sum(standing.diverged for standing in group) for group in groups)
    return Effect(values, configurations, np.array(middle), low, high, diverged)


def varied(sweep: Sweep) -> list[str]:
    """Paths of the fields that take more than one value."""
    paths = dict.fromkeys(path for words in sweep.configurations for path in words)
    return [path for path in paths if len({words.get(path) for words in sweep.configurations}) > 1]


def _drawn(one: SweepStory, measure: str) -> Iterator[str]:
    named, others = _curves(one)
    note = f"""Means over seeds of the {COLOURED} best configurations, with 95% bootstrap intervals, by rank; the others
    in grey. A run counts until it diverges."""
    yield figure("Learning curves", figures.learning_curves(named, measure, others), note)
    for path in varied(one.sweep):
        drawn = figures.effect(effect(one.sweep, one.ranked, path), path.rpartition(".")[2], measure)
        note = f"""{path}: small points are configurations; large ones the interquartile mean of all runs with that
        value, whatever else varies, with its 95% interval. A cross below has runs that diverged."""
        yield figure(f"Effect of {path.rpartition('.')[2].replace('_', ' ')}", drawn, note)


def _curves(one: SweepStory) -> tuple[dict[str, Curve], list[Curve]]:
    """Learning curves of the best configurations by rank and name, and those of the others."""
    name = results.measure(one.rows)
    named, others = {}, []
    for rank, standing in enumerate(one.ranked, 1):
        mine = [row for row in one.rows if row["configuration"] == standing.configuration]
        curve = story.curve([{**row, name: None} if row["diverged_at"] else row for row in mine], name)
        if curve is None:
            continue
        label = f"{rank}. {_words(one.sweep, standing.configuration)}"
        if len(named) < COLOURED:
            named[label if len(label) <= LONGEST else f"{rank}."] = curve
        else:
            others.append(curve)
    return named, others


def _words(sweep: Sweep, index: int) -> str:
    """What makes a configuration different, in short."""
    words = sweep.configurations[index]
    shown = (f"{_short(sweep, path)}={words[path]}" for path in varied(sweep) if path in words)
    return " ".join(shown) or "as it is"


def _short(sweep: Sweep, path: str) -> str:
    """The last part of a path, where no other field that varies ends so."""
    last = [other.rpartition(".")[2] for other in varied(sweep)]
    name = path.rpartition(".")[2]
    return name if last.count(name) == 1 else path


def _summary(link: str, one: SweepStory) -> list[Any]:
    best = one.ranked[0]
    diverged = sum(standing.diverged for standing in one.ranked)
    found = [number(best.iqm), _interval(best), html.escape(_words(one.sweep, best.configuration))]
    found = found if np.isfinite(best.iqm) else [UNKNOWN] * 3
    done = f"{_complete(one)} of {one.sweep.num_runs}"
    return [link, len(one.sweep.configurations), one.sweep.base.seeds, done, diverged, *found]


def _complete(one: SweepStory) -> int:
    return len({(row["configuration"], row["seed"]) for row in one.rows})


def _heads(sweep: Sweep) -> tuple[str, ...]:
    return ("rank", *(_short(sweep, path) for path in varied(sweep)), "IQM", "95% interval", "median", "diverged")


def _ranking(one: SweepStory) -> Iterator[list[Any]]:
    for rank, standing in enumerate(one.ranked, 1):
        words = one.sweep.configurations[standing.configuration]
        values = [words.get(path, UNKNOWN) for path in varied(one.sweep)]
        yield [rank, *values, standing.iqm, _interval(standing), standing.median, standing.diverged]


def _interval(standing: Standing) -> str:
    ends = (standing.low, standing.high)
    if not np.isfinite(standing.high):
        return UNKNOWN
    return " to ".join(number(end) if np.isfinite(end) else "\N{MINUS SIGN}\N{INFINITY}" for end in ends)


def _command(one: SweepStory) -> str:
    words = results.command(one.sweep, one.ranked[0].configuration)
    return f"<pre><code>{html.escape(words)}</code></pre>"
