"""Intervals at one level, and the jackknife."""

from __future__ import annotations

import pytest
import torch

from capacity.records.estimate import Estimate
from capacity.records.intervals import interval, student
from capacity.records.jackknife import jackknife, of_means


def test_student_quantiles():
    # Tables: 0.95 with 3 degrees of freedom, 0.975 with 9.
    assert student(3) == pytest.approx(2.3533634, rel=1e-7)
    assert student(9, 0.95) == pytest.approx(2.2621572, rel=1e-7)


def test_interval_of_both_kinds():
    assert interval(1.0, 2.0) == (1 - 3.29, 1 + 3.29)
    assert interval(0.0, 1.0, degrees=9, level=0.95) == pytest.approx((-2.2621572, 2.2621572))
    with pytest.raises(ValueError, match=r"level = 0\.95: .* give degrees"):
        interval(0.0, 1.0, level=0.95)


def test_jackknife_of_lists_and_of_tensors():
    values = [1.0, 2.0, 4.0, 9.0]
    without = [(sum(values) - v) / 3 for v in values]
    made = jackknife(4.0, without)
    assert made.stderr == pytest.approx(float(torch.tensor(values).std()) / 2)
    assert made.level == 0.9
    assert made.n == 4
    tensor = jackknife(4.0, torch.tensor(without, dtype=torch.float64))
    assert tensor.interval == pytest.approx(made.interval)
    assert jackknife(1.0, []) == Estimate(value=1.0)


def test_equal_samples_are_exact():
    assert of_means(lambda mean: 2 * mean, torch.ones(4)) == Estimate(value=2.0)
    assert of_means(lambda mean: 2 * mean, torch.tensor([1.0, 3.0])).stderr == pytest.approx(2.0)
