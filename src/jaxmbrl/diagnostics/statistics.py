"""Statistics of a few runs: what to say of them, and how sure to be (Agarwal et al. 2021, arXiv:2108.13264, Sec. 4).

Scores may hold ``-inf``, that of a run which came to nothing: it ranks below all others, and no average hides it.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

Statistic: TypeAlias = Callable[[np.ndarray], np.ndarray]  # [..., R] -> [...]

RESAMPLES = 2000


def mean(scores: np.ndarray) -> np.ndarray:
    """Mean over the last axis, ``[..., R] -> [...]``."""
    return np.mean(scores, axis=-1)


def median(scores: np.ndarray) -> np.ndarray:
    """Median over the last axis, ``[..., R] -> [...]``."""
    return np.median(scores, axis=-1)


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Mean of the middle half over the last axis, ``[..., R] -> [...]``: floor(R / 4) scores are cut at each end.

    nan where one of the scores is.

    >>> float(interquartile_mean(np.array([0.0, 1.0, 3.0, 100.0])))
    2.0
    """
    ordered = np.sort(scores, axis=-1)
    number = ordered.shape[-1]
    middle = np.mean(ordered[..., number // 4 : number - number // 4], axis=-1)
    return np.where(np.isnan(ordered[..., -1]), np.nan, middle)  # nan sorts last, and would be cut away


def bootstrap_interval(
    strata: Sequence[np.ndarray],
    statistic: Statistic,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a statistic under a stratified bootstrap: runs are drawn anew within each stratum.

    Args:
        strata: for each task its runs' scores, [R_i] each; a single task is a single stratum.
        statistic: of all drawn scores together, [resamples, sum R_i] -> [resamples].
        level: probability that the interval means to cover.
        resamples: how often runs are drawn.
        seed: of the draws.

    Returns:
        Its low and high end; nan where no stratum has two runs, since these say nothing of their spread.
    """
    if all(len(scores) < 2 for scores in strata):
        return float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    drawn = [np.asarray(s)[generator.integers(len(s), size=(resamples, len(s)))] for s in strata]
    values = statistic(np.concatenate(drawn, axis=1))
    tail = (1.0 - level) / 2.0
    # A value that occurred, not one in between, which -inf would turn into nan.
    low, high = np.quantile(values, [tail, 1.0 - tail], method="inverted_cdf")
    return float(low), float(high)
