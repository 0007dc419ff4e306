"""Closure curves: when room falls below need, where that is known."""

from __future__ import annotations

import pytest

from capacity.criterion.critical_period import ClosurePoint, closure_of
from capacity.records.estimate import Estimate, Status, not_defined


def curve(*points, error=0.0):
    return closure_of([
        ClosurePoint(
            time=float(t), capacity=Estimate(value=float(c), stderr=error), need=Estimate(value=1.0)
        )
        for t, c in points
    ])


def test_closes_between_checkpoints():
    made = curve((0, 5), (1, 3), (2, 0), (3, -1))
    assert made.closes is True
    assert made.time.value == pytest.approx(1 + 2 / 3)  # the margin goes from 2 to -1
    assert made.time.interval == (1.0, 2.0)
    assert made.to_dict()["closes"] is True
    assert [p["time"] for p in made.to_dict()["points"]] == [0, 1, 2, 3]


def test_stays_open():
    made = curve((0, 5), (1, 2))
    assert (made.closes, made.time.value) == (False, None)
    assert "stays above" in made.time.note


def test_was_closed_from_the_start():
    made = curve((0.5, 0), (1, 4))
    assert (made.closes, made.time.value) == (True, 0.5)
    assert "already" in made.time.note


def test_undecided_within_the_uncertainty():
    made = curve((0, 1.2), (1, 0.9), error=0.5)
    assert made.closes is None
    assert made.time.status is Status.NOT_RESOLVED
    # Beyond the uncertainty at last; since the start it may have been.
    made = curve((0, 4.0), (1, 1.5), (2, -2.0), error=0.5)
    assert made.closes is True
    assert made.time.interval == (0.0, 2.0)
    assert 1 < made.time.value < 2


def test_moments_without_a_value_are_left_out():
    nothing = ClosurePoint(time=0.0, capacity=not_defined("lost"), need=Estimate(value=1.0))
    assert nothing.margin is None
    assert closure_of([nothing]).closes is None
    assert closure_of([nothing]).time.status is Status.NOT_DEFINED
    shut = ClosurePoint(time=2.0, capacity=Estimate(value=0.0), need=Estimate(value=1.0))
    assert closure_of([nothing, shut]).time.value == 2.0
