"""Statistics of a few runs, against definitions and against a known coverage."""

import numpy as np
import pytest

from jaxmbrl.diagnostics import statistics


@pytest.mark.parametrize(("number", "cut"), [(1, 0), (3, 0), (4, 1), (7, 1), (8, 2), (20, 5)])
def test_the_interquartile_mean_cuts_a_quarter_at_each_end(number, cut):
    scores = np.random.default_rng(0).normal(size=number)
    expected = sum(sorted(scores)[cut : number - cut]) / (number - 2 * cut)
    np.testing.assert_allclose(statistics.interquartile_mean(scores), expected)


def test_the_interval_covers_as_often_as_it_says():
    """Means of 40 normal scores, 400 times: 95% +- 4 standard errors of 400 trials, less what 40 scores cost."""
    generator = np.random.default_rng(1)
    covered = 0
    for trial in range(400):
        low, high = statistics.bootstrap_interval(
            [generator.normal(3.0, 2.0, 40)], lambda scores: scores.mean(axis=-1), resamples=400, seed=trial
        )
        covered += low <= 3.0 <= high
    assert 0.88 < covered / 400 < 0.99


def test_strata_are_drawn_apart():
    """Two constant tasks: a draw across them would vary, one within each does not."""
    low, high = statistics.bootstrap_interval([np.zeros(5), np.ones(5)], lambda scores: scores.mean(axis=-1))
    assert low == high == 0.5


def test_runs_that_came_to_nothing_count():
    scores = np.array([1.0, 2.0, 3.0, -np.inf])
    assert statistics.interquartile_mean(scores) == 1.5
    low, high = statistics.bootstrap_interval([scores], statistics.median)
    assert low == -np.inf and 1.5 <= high <= 3.0
    assert all(map(np.isnan, statistics.bootstrap_interval([np.ones(1)], statistics.median)))


def test_what_is_not_known_is_not_averaged_away():
    """A score that is nan sorts last, and would be cut away as the best one."""
    iqm, scores = statistics.interquartile_mean, np.array([1.0, 2.0, 3.0, np.nan])
    assert np.isnan(iqm(scores)) and np.isnan(statistics.bootstrap_interval([scores], iqm)[0])
    np.testing.assert_array_equal(iqm(np.array([[1.0, np.nan], [1.0, 3.0]])), [np.nan, 2.0])
