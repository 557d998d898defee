"""The page's figures: arrays in, SVG text out, drawn by Matplotlib.

Colours are placeholders that become the page's CSS variables, so that a figure follows its light or dark scheme, and
texts stay text, in the page's own font.
"""

import io
import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from jaxmbrl.diagnostics import calibration, statistics
from jaxmbrl.diagnostics.mismatch import Regret
from jaxmbrl.report.probe import OneStep, OpenLoop
from jaxmbrl.report.story import Curve

SIZE = (4.2, 2.9)  # inches; as wide as a phone's screen at the size of its text
INK, MUTED, GRID = "#010203", "#010204", "#010205"
SERIES = tuple(f"#0102{16 + number:02x}" for number in range(8))
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", **{color: f"series-{i}" for i, color in enumerate(SERIES)}}
NAMED = re.compile(r' id="(?!DejaVu)[a-zA-Z]+[0-9]*_[0-9]+"')  # of groups, which nothing refers to
LINE = 0.17  # inches, of a legend
FEW = 8  # values of a field that are told one by one; of more the configurations alone are shown
MAGNITUDE = 10.0  # from the smallest value to the largest, from which on they stand on a logarithmic axis
TICK = 12  # characters of a value on an axis
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxmbrl",
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}


class Effect(NamedTuple):
    """Scores by the V values of one field of a sweep.

    Attributes:
        values: as texts.
        configurations: for each value the interquartile means of its configurations, [C_v] each; -inf or nan for none.
        middle: interquartile mean of all runs with that value, [V].
        low: lower end of its 95% interval, [V].
        high: upper end, [V].
        diverged: runs that did, for each value.
    """

    values: tuple[str, ...]
    configurations: tuple[np.ndarray, ...]
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray
    diverged: tuple[int, ...]


def learning_curves(curves: Mapping[str, Curve], label: str = "return", others: Sequence[Curve] = ()) -> str:
    """Means over seeds with 95% bootstrap intervals, a line for each name; ``others`` are thin and grey."""
    with mpl.rc_context(STYLE):
        figure, axes = _axes("environment steps", label)
        figure.set_figheight(SIZE[1] + LINE * max(len(curves) - 2, 0))
        for curve in others:
            axes.plot(curve.env_steps, _means(curve.values), color=MUTED, linewidth=0.7, alpha=0.6)
        for color, (name, curve) in zip(cycle(SERIES), curves.items(), strict=False):
            low, mean, high = mean_interval(curve.values)
            axes.fill_between(curve.env_steps, low, high, color=color, alpha=0.18, linewidth=0)
            known = np.isfinite(mean)
            dot = "o" if known.sum() == 1 else ""  # or nothing would be seen
            axes.plot(curve.env_steps[known], mean[known], dot + "-", color=color, linewidth=1.8, label=name)
        _legend(figure, axes)
        return _svg(figure)


def effect(found: Effect, name: str, label: str) -> str:
    """Scores over the values of a field: all configurations, and what those that share a value have in common."""
    place, numeric = _places(found.values)
    with mpl.rc_context(STYLE):
        figure, axes = _axes(name.replace("_", " "), label)
        if numeric and place.min() > 0 and place.max() >= MAGNITUDE * place.min():
            axes.set_xscale("log")
        for x, scores in zip(place, found.configurations, strict=True):
            shown = scores[np.isfinite(scores)]
            axes.plot(np.full(len(shown), x), shown, "o", color=SERIES[0], markersize=3, alpha=0.5)
        if len(place) <= FEW:
            known, order = np.isfinite(found.middle), np.argsort(place)
            axes.vlines(place[known], found.low[known], found.high[known], color=SERIES[0], linewidth=1.4)
            shown = [index for index in order if known[index]]
            axes.plot(place[shown], found.middle[shown], "o-" if numeric else "o", color=SERIES[0], linewidth=1.4)
            axes.set_xticks(place, [_clipped(text) for text in found.values])
            axes.xaxis.set_minor_locator(NullLocator())
        axes.margins(x=0.1)
        broken = place[np.array(found.diverged) > 0]
        axes.plot(broken, np.full(len(broken), 0.03), "x", color=SERIES[1], transform=axes.get_xaxis_transform())
        return _svg(figure)


def _places(values: Sequence[str]) -> tuple[np.ndarray, bool]:
    """Where values stand on an axis, and whether as the numbers that they are."""
    try:
        numbers = np.array([float(text) for text in values])
    except ValueError:
        return np.arange(len(values), dtype=float), False
    return (numbers, True) if np.isfinite(numbers).all() else (np.arange(len(values), dtype=float), False)


def _clipped(text: str) -> str:
    return text if len(text) <= TICK else f"{text[: TICK - 1]}\N{HORIZONTAL ELLIPSIS}"


def mean_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean over seeds [S, E], and the ends of its 95% percentile bootstrap interval: low, mean, high [E].

    Where nothing was measured an entry is nan, and counts for nothing; with one seed the ends are nan.
    """

    def of_epoch(column: np.ndarray) -> tuple[float, float]:
        known = column[np.isfinite(column)]
        return statistics.bootstrap_interval([known], statistics.mean)

    low, high = np.array([of_epoch(column) for column in values.T]).T
    return low, _means(values), high


def _means(values: np.ndarray) -> np.ndarray:
    """Over the seeds [S, E] that were measured; nan where none was."""
    known = np.isfinite(values)
    total = np.sum(np.where(known, values, 0.0), axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def model_error(found: OpenLoop) -> str:
    """Root mean square error by steps ahead, what the model itself expects of it, and that of no prediction at all."""
    curves = {
        "error": ("-", SERIES[0], found.square_error),
        "expected by the model": ("--", SERIES[1], found.var),
        "if nothing changed": (":", MUTED, found.standstill),
    }
    with mpl.rc_context(STYLE):
        figure, axes = _axes("steps ahead, open loop", "error, standard deviations")
        for name, (style, color, square) in curves.items():
            axes.plot(*_by_step(square, found.running), style, color=color, linewidth=1.8, label=name)
        if (found.square_error > 0).any():
            axes.set_yscale("log")
        _legend(figure, axes)
        return _svg(figure)


def reliability(curves: Mapping[str, np.ndarray]) -> str:
    """Coverage that was found [L] against the nominal one, a line for each name."""
    nominal = np.asarray(calibration.NOMINAL)
    with mpl.rc_context(STYLE):
        figure, axes = _axes("nominal coverage of the interval", "found coverage")
        axes.plot([0, 1], [0, 1], ":", color=MUTED, linewidth=1.4, label="calibrated")
        for color, (name, found) in zip(SERIES, curves.items(), strict=False):
            error = float(calibration.calibration_error(nominal, found))
            axes.plot(nominal, found, color=color, linewidth=1.8, label=f"{name}: error {error:.2f}")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        _legend(figure, axes)
        return _svg(figure)


def returns(found: OpenLoop) -> str:
    """Imagined returns of stretches of episodes against the real ones."""
    with mpl.rc_context(STYLE):
        figure, axes = _axes("return obtained", "return predicted")
        _scatter_on_diagonal(axes, found.obtained, found.predicted)
        return _svg(figure)


def regret(found: Regret) -> str:
    """True returns of plans, states in order of what is possible."""
    order = np.argsort(found.true)
    place = np.arange(len(order))
    with mpl.rc_context(STYLE):
        figure, axes = _axes("state, in order of the best plan's return", "true return of the plan")
        axes.vlines(place, found.learned[order], found.true[order], color=SERIES[1], linewidth=1.2)
        axes.plot(place, found.random[order], "_", color=MUTED, label="random actions")
        axes.plot(place, found.true[order], "o", color=SERIES[0], markersize=4.5, label="planned on the simulator")
        axes.plot(place, found.learned[order], "D", color=SERIES[1], markersize=3, label="planned on the model")
        axes.set_xticks([])
        _legend(figure, axes)
        return _svg(figure)


def stakes(found: OneStep) -> str:
    """What a typical one-step error changes the imagined return by, for each step that makes it."""
    with mpl.rc_context(STYLE):
        figure, axes = _axes("step that errs", "change of the return")
        low, middle, high = np.percentile(found.stakes, [25, 50, 75], axis=0)
        step = 1 + np.arange(len(middle))
        axes.fill_between(step, low, high, color=SERIES[0], alpha=0.18, linewidth=0)
        axes.plot(step, middle, color=SERIES[0], linewidth=1.8)
        return _svg(figure)


def mismatch(loss: Curve, reward: Curve, label: str) -> str:
    """Returns against the model's loss, a point for each seed and epoch, early ones faint."""
    with mpl.rc_context(STYLE):
        figure, axes = _axes(label, "return of that epoch")
        for row, (losses, gains) in enumerate(zip(loss.values, reward.values, strict=True)):
            shade: Any = np.linspace(0.25, 1.0, len(losses))
            axes.scatter(losses, gains, s=18, color=SERIES[row % len(SERIES)], alpha=shade, linewidths=0)
        return _svg(figure)


def _by_step(square: np.ndarray, running: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps ahead from 1 on, and the root of the mean square [W, H] over the stretches that still run."""
    mean = np.sum(square * running, axis=0) / np.maximum(running.sum(axis=0), 1)
    return 1 + np.arange(len(mean)), np.where(running.any(axis=0), np.sqrt(mean), np.nan)


def _scatter_on_diagonal(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    known = np.isfinite(x) & np.isfinite(y)
    both = np.concatenate([x[known], y[known]])
    if len(both):
        axes.plot([both.min(), both.max()], [both.min(), both.max()], ":", color=MUTED, linewidth=1.4)
    axes.scatter(x[known], y[known], s=14, color=SERIES[0], alpha=0.6, linewidths=0)


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=x, ylabel=y)
    axes.tick_params(length=0)
    return figure, axes


def _legend(figure: Figure, axes: Axes) -> None:
    """Above the axes, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = 1 if max(map(len, labels)) > 26 else 2
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=1.6, columnspacing=1.2)


def _svg(figure: Figure) -> str:
    """The drawing alone, as wide as what it stands in, in the page's colours and font."""
    file: Any = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*pt"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*pt"', r"\1", text))
    text = NAMED.sub("", re.sub(r"font: ([0-9.]+px) [^;\"]*", r"font-size: \1", text))
    for color, name in VARIABLES.items():
        text = text.replace(color, f"var(--{name})")
    return text.strip()
