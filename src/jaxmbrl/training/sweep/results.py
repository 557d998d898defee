"""What came of a sweep: a table of runs, a table of configurations, a plot, and the best one ready to run."""

import csv
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmbrl.diagnostics import statistics
from jaxmbrl.training.metrics import Row
from jaxmbrl.training.progress import counted
from jaxmbrl.training.sweep.plan import Sweep

LAST = 0.25  # share of the epochs, the last ones, whose mean return is a run's score
UNKNOWN = "-"
MOST_LABELS = 8
COLOURS = ("#1f6feb", "#d1495b", "#2e933c", "#7d5ba6", "#e08e0b", "#3d5a6c", "#c2185b", "#00838f")


class Standing(NamedTuple):
    """How a configuration did.

    Attributes:
        configuration: its index.
        scores: of its runs, [R]; -inf for one that diverged.
        median: of them.
        iqm: their interquartile mean.
        low: lower end of the 95% interval of it.
        high: upper end.
        diverged: how many of its runs did.
    """

    configuration: int
    scores: np.ndarray
    median: float
    iqm: float
    low: float
    high: float
    diverged: int


def measure(rows: Sequence[Row]) -> str:
    """The metric that a sweep is judged by: returns without exploration, where all configurations have them."""
    everywhere = all("eval_return" in row for row in rows)
    return "eval_return" if everywhere and any(row["eval_return"] is not None for row in rows) else "episode_return"


def curves(sweep: Sweep, rows: Sequence[Row], name: str) -> dict[tuple[int, int], list[tuple[int, float]]]:
    """From (configuration, seed) to (environment steps, value) of each epoch that measured it."""
    result: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for run in range(sweep.num_runs):
        result[sweep.configuration_of(run), sweep.seed_of(run)] = []
    for row in sorted(rows, key=lambda row: row["epoch"]):
        if row[name] is not None and not row["diverged_at"]:
            result[row["configuration"], row["seed"]].append((row["env_steps"], row[name]))
    return result


def standings(sweep: Sweep, rows: Sequence[Row]) -> list[Standing]:
    """Every configuration, the best first."""
    measured, diverged = curves(sweep, rows, measure(rows)), divergences(rows)
    result = []
    for index in range(len(sweep.configurations)):
        runs = [(index, seed) for seed in sweep.base.all_seeds]
        scores = np.array([-np.inf if diverged.get(run) else score(measured[run]) for run in runs])
        low, high = statistics.bootstrap_interval([scores], statistics.interquartile_mean)
        median, iqm = (float(f(scores)) for f in (statistics.median, statistics.interquartile_mean))
        broken = sum(diverged.get(run, 0) > 0 for run in runs)
        result.append(Standing(index, scores, median, iqm, low, high, broken))
    return sorted(result, key=lambda standing: (-np.nan_to_num(standing.iqm, nan=-np.inf), standing.configuration))


def divergences(rows: Sequence[Row]) -> dict[tuple[int, int], int]:
    """From (configuration, seed) to the epoch in which a run diverged, 0 where it did not."""
    result: dict[tuple[int, int], int] = {}
    for row in rows:
        run = row["configuration"], row["seed"]
        result[run] = max(result.get(run, 0), row["diverged_at"])
    return result


def quartiles(curves: Sequence[Sequence[tuple[int, float]]]) -> tuple[np.ndarray, np.ndarray]:
    """Environment steps [E] that some of the curves measured, and the quartiles [3, E] of those that did."""
    steps = np.unique([step for curve in curves for step, _ in curve])
    values = np.full((len(curves), len(steps)), np.nan)
    for row, curve in zip(values, curves, strict=True):
        for step, value in curve:
            row[np.searchsorted(steps, step)] = value
    return steps, np.nanpercentile(values, [25, 50, 75], axis=0)


def score(curve: Sequence[tuple[int, float]]) -> float:
    """The mean value of the last quarter of the epochs; nan where nothing was measured."""
    values = [value for _, value in curve]
    last = values[-max(1, round(LAST * len(values))) :]
    return float(np.mean(last)) if last else float("nan")


def write(sweep: Sweep, rows: Sequence[Row], directory: Path) -> list[Standing]:
    """Write ``results.csv`` (a row for each run), ``summary.csv`` (for each configuration) and ``sweep.png``."""
    ranked, diverged = standings(sweep, rows), divergences(rows)
    paths = list(dict.fromkeys(path for words in sweep.configurations for path in words))
    by_index = {standing.configuration: standing for standing in ranked}
    with (directory / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["configuration", *paths, "seed", "score", "diverged_at"])
        for index, words in enumerate(sweep.configurations):
            for seed, value in zip(sweep.base.all_seeds, by_index[index].scores, strict=True):
                row = [index, *(words.get(path, "") for path in paths), seed, f"{value:.6g}"]
                writer.writerow([*row, diverged.get((index, seed), 0)])
    with (directory / "summary.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["configuration", *paths, "median", "iqm", "low", "high", "diverged"])
        for standing in ranked:
            words = sweep.configurations[standing.configuration]
            numbers = (f"{x:.6g}" for x in standing[2:6])
            cells = (words.get(path, "") for path in paths)
            writer.writerow([standing.configuration, *cells, *numbers, standing.diverged])
    _plot(sweep, rows, ranked, directory / "sweep.png")
    return ranked


def table(sweep: Sweep, ranked: Sequence[Standing]) -> list[str]:
    """The standings as lines of text, the best first."""
    lines = [f"{'IQM':>10} {'95% interval':>23} {'median':>10}  configuration"]
    for standing in ranked:
        interval = UNKNOWN if np.isnan(standing.low) else f"[{standing.low:.4g}, {standing.high:.4g}]"
        iqm, middle = (UNKNOWN if np.isnan(x) else f"{x:.4g}" for x in (standing.iqm, standing.median))
        note = f"  ({standing.diverged} diverged)" if standing.diverged else ""
        name = label(sweep, standing.configuration)
        lines.append(f"{iqm:>10} {interval:>23} {middle:>10}  {name}{note}")
    return lines


def label(sweep: Sweep, index: int) -> str:
    """What a configuration changes, in words."""
    words = sweep.configurations[index]
    return " ".join(f"{path}={text}" for path, text in words.items()) or "as it is"


def command(sweep: Sweep, index: int) -> str:
    """The command line that trains a configuration again."""
    base, words = sweep.base, {**sweep.words, **sweep.configurations[index]}
    options = [text for path, value in words.items() for text in (f"--{path}", value)]
    parts = ["jaxmbrl", "train", base.system, base.env, "--preset", base.preset, "--seed", str(base.seed)]
    return shlex.join([*parts, "--seeds", str(base.seeds), *options])


def _plot(sweep: Sweep, rows: Sequence[Row], ranked: Sequence[Standing], path: Path) -> None:
    """Medians and interquartile ranges over seeds; of many configurations the best have colours."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    name = measure(rows)
    measured = curves(sweep, rows, name)
    with plt.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axis = plt.subplots(figsize=(8.4, 4.0))
        for place, standing in reversed(list(enumerate(ranked))):
            runs = [measured[standing.configuration, seed] for seed in sweep.base.all_seeds]
            if not any(runs):
                continue
            steps, (low, middle, high) = quartiles(runs)
            coloured = place < MOST_LABELS
            colour: Any = COLOURS[place % len(COLOURS)] if coloured else "#b8bec6"
            if coloured:
                axis.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
            text = label(sweep, standing.configuration) if coloured else None
            style = "o-" if len(steps) == 1 else "-"  # or nothing would be seen
            axis.plot(steps, middle, style, color=colour, linewidth=1.8 if coloured else 0.8, label=text)
        axis.set(xlabel="environment steps", ylabel=name.replace("_", " "), xlim=(0, None))
        axis.set_title(f"{sweep.base.system} on {sweep.base.env}, {counted(sweep.base.seeds, 'seed')} each", loc="left")
        axis.grid(alpha=0.25)
        handles, labels = axis.get_legend_handles_labels()
        axis.legend(
            handles[::-1], labels[::-1], frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8
        )
        figure.savefig(path, dpi=130, bbox_inches="tight")
        plt.close(figure)
