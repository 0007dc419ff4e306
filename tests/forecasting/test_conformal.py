"""Conformal intervals on data whose distribution is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.base import clone

from capacity.forecasting.conformal import GroupedConformal


def drawn(groups: int, seed: int, *, noise: float = 0.1, per_group: int = 4):
    """Errors with a part that a whole group shares, and half-widths that are too small by half."""
    source = np.random.default_rng(seed)
    half = source.uniform(0.02, 0.3, size=groups * per_group)
    names = np.repeat(np.arange(groups), per_group)
    shared = source.standard_normal(groups)[names]
    own = source.standard_normal(len(names))
    value = source.uniform(0, 1, size=len(names))
    error = 2 * half * (0.6 * shared + 0.8 * own) + noise * 0.1 * source.standard_normal(len(names))
    return np.stack([value, half], axis=1), value + error, names


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_intervals_cover_unseen_groups(level):
    inside, bare = [], []
    for seed in range(40):
        X, y, names = drawn(40, seed)
        model = GroupedConformal().fit(X, y, names)
        new, truth, _ = drawn(40, 1000 + seed)
        low, high = model.predict_interval(new, level).T
        inside.append(((low <= truth) & (truth <= high)).mean())
        bare.append((np.abs(truth - new[:, 0]) <= new[:, 1]).mean())
    # Forty repetitions of forty groups: the mean's standard error is below a point.
    assert level - 0.01 <= np.mean(inside) <= level + 0.05
    assert np.mean(bare) < 0.5


def test_intervals_are_wider_where_the_forecast_is_less_sure():
    X, y, names = drawn(60, 0)
    model = GroupedConformal().fit(X, y, names)
    few, many = np.diff(model.predict_interval([[0.5, 0.02], [0.5, 0.3]]), axis=1).ravel()
    assert many > 3 * few


def test_what_tells_how_hard_a_forecast_is_widens_its_interval():
    source = np.random.default_rng(0)
    z = source.uniform(-1, 1, size=400)
    y = 0.1 * np.exp(z) * source.standard_normal(400)
    X = np.stack([np.zeros(400), np.full(400, 1e-3), z], axis=1)
    model = GroupedConformal().fit(X, y)
    assert model.slopes_[0] == pytest.approx(1, abs=0.15)
    easy, hard = np.diff(model.predict_interval([[0, 1e-3, -1], [0, 1e-3, 1]]), axis=1).ravel()
    assert hard / easy == pytest.approx(np.exp(2), rel=0.3)


def test_a_group_has_one_vote_however_large_it_is():
    X = np.array([[0.0, 1.0]] * 109)
    y = np.array([5.0] * 100 + [0.1] * 9)
    large = GroupedConformal().fit(X, y, [0] * 100 + list(range(1, 10)))
    assert large.stretch(0.5) < 0.5 < 1 < GroupedConformal().fit(X, y).stretch(0.5)


def test_too_few_groups_say_so():
    X, y, names = drawn(5, 0)
    model = GroupedConformal().fit(X, y, names)
    assert math.isinf(model.stretch(0.9))
    assert np.isinf(model.predict_interval(X, 0.9)).all()
    assert np.isfinite(model.predict_interval(X, 0.8)).all()


def test_it_is_a_scikit_learn_estimator():
    X, y, names = drawn(20, 0)
    model = clone(GroupedConformal()).fit(X, y, names)
    assert model.predict(X) == pytest.approx(X[:, 0])
    assert model.score(X, y) <= 1


@pytest.mark.parametrize(
    ("X", "y", "groups", "names"),
    [
        ([[1.0]], [1.0], None, "X has shape"),
        ([[1.0, math.nan]], [1.0], None, "X has shape"),
        ([[1.0, 2.0]], [1.0, 2.0], None, "y has shape"),
        ([[1.0, 2.0]], [1.0], [1, 2], "groups has 2 entries"),
    ],
)
def test_bad_input_is_named(X, y, groups, names):
    with pytest.raises(ValueError, match=names):
        GroupedConformal().fit(X, y, groups)
