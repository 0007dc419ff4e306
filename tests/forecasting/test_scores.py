"""Scores of predictors against hand-worked numbers."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from capacity.forecasting.scores import mean_error, r2, spearman
from capacity.records.estimate import Status


def test_spearman_and_its_interval():
    found = spearman([1, 2, 3, 4, 5, 6, 7], [1, 3, 2, 4, 5, 6, 7])
    rho = 1 - 6 * 2 / (7 * 48)
    assert found.value == pytest.approx(rho)
    half = 1.645 * math.sqrt(1.06 / 4)
    assert found.interval[0] == pytest.approx(math.tanh(math.atanh(rho) - half))


def test_equal_values_share_the_mean_of_their_ranks():
    p, m = [3.0, 1.0, 3.0, 2.0, 1.0], [0.2, 0.1, 0.2, 0.2, 0.5]
    assert spearman(p, m).value == pytest.approx(stats.spearmanr(p, m).statistic)


def test_a_perfect_order_is_not_perfectly_sure():
    found = spearman(range(10), range(10))
    assert found.value == 1.0
    assert 0.001 < found.stderr < 0.1
    assert 0.9 < found.interval[0] < 1.0 <= found.interval[1]
    assert spearman(range(10), range(10, 0, -1)).interval[0] == pytest.approx(-1.0)


@pytest.mark.parametrize(("p", "m"), [([1, 2, 3], [1, 2, 3]), ([1, 1, 1, 1], [1, 2, 3, 4])])
def test_no_ranks_no_correlation(p, m):
    found = spearman(p, m)
    assert (found.value, found.status) == (None, Status.NOT_DEFINED)


def test_r2_takes_predictions_as_they_are():
    assert r2([2, 4, 6, 8], [1, 2, 3, 4]).value == pytest.approx(1 - 30 / 5)
    assert r2([1, 2, 3, 4], [2, 2, 2, 2]).status is Status.NOT_DEFINED


def test_mean_error():
    found = mean_error([0.0, 0.0], [0.1, 0.3])
    assert found.value == pytest.approx(0.2)
    assert found.stderr == pytest.approx(0.1)
    assert mean_error([], []).status is Status.NOT_DEFINED
