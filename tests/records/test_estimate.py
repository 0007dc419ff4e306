"""The estimate record."""

from __future__ import annotations

import math

import pytest

from capacity.records.estimate import Estimate, Status, from_samples


def test_mean_error_and_interval():
    made = from_samples([1.0, 2.0, 3.0, 6.0])
    assert made.value == 3.0
    assert made.stderr == pytest.approx(math.sqrt(14 / 3) / 2)
    # t quantile 0.95 with 3 degrees of freedom: 2.3533634
    assert made.interval == pytest.approx((
        3 - 2.3533634 * made.stderr,
        3 + 2.3533634 * made.stderr,
    ))
    wide = from_samples([1.0, 2.0, 3.0, 6.0], predict=True)
    assert wide.interval[1] - 3 == pytest.approx(2.3533634 * math.sqrt(14 / 3 * 1.25))


def test_one_sample_has_no_error():
    made = from_samples([2.0])
    assert (made.value, made.stderr, made.interval, made.n) == (2.0, None, None, 1)


def test_lost_replicas_are_counted_never_silent():
    made = from_samples([1.0, math.nan, 3.0, math.inf])
    assert made.value == 2.0
    assert "2 of 4 replicas" in made.note
    assert from_samples([math.nan]).status is Status.DIVERGED


def test_a_value_is_never_nan():
    made = Estimate(value=math.nan, stderr=math.inf)
    assert (made.value, made.stderr, made.status) == (None, None, Status.DIVERGED)


def test_round_trip():
    made = from_samples([1.0, 2.0], status=Status.UNCALIBRATED, note="why")
    assert Estimate.from_dict(made.to_dict()) == made
