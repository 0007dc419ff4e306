"""The trial of a learned correction, on data where it must be used and where it must not."""

from __future__ import annotations

import numpy as np
import pytest

from capacity.forecasting.corrector import (
    FEATURES,
    attempt,
    corrected,
    features,
    left_out,
    residual,
)


def drawn(seed: int = 0, count: int = 100):
    source = np.random.default_rng(seed)
    rows = source.standard_normal((count, len(FEATURES)))
    groupings = {
        "pair": [f"p{k}" for k in source.integers(20, size=count)],
        "architecture": [("mlp", "cnn", "transformer")[k] for k in source.integers(3, size=count)],
    }
    return rows, groupings, source


@pytest.mark.slow
def test_an_error_that_can_be_learned_is_corrected():
    rows, groupings, source = drawn()
    physics = rows[:, 0]
    measured = physics + 0.5 * rows[:, 1] + 0.05 * source.standard_normal(len(rows))
    trial = attempt("new_accuracy", rows, physics, measured, groupings)
    assert trial.used is not None
    assert all(found[trial.used] < 0.3 * found["physics"] for found in trial.errors.values())


@pytest.mark.slow
def test_noise_is_not_corrected():
    rows, groupings, source = drawn()
    trial = attempt(
        "drop", rows, rows[:, 0], rows[:, 0] + source.standard_normal(len(rows)), groupings
    )
    assert trial.used is None


@pytest.mark.slow
def test_one_kind_of_groups_is_enough_to_refuse():
    """The error is another constant in every architecture: seen ones help, unseen ones mislead."""
    rows, groupings, source = drawn()
    kinds = np.array(groupings["architecture"])
    places = {"mlp": -1.0, "cnn": 0.0, "transformer": 1.0}
    rows[:, 1] = [places[k] for k in kinds]
    off = np.array([{"mlp": 1.0, "cnn": -1.5, "transformer": 1.0}[k] for k in kinds])
    measured = rows[:, 0] + off + 0.05 * source.standard_normal(len(rows))
    trial = attempt("drop", rows, rows[:, 0], measured, groupings)
    found = trial.errors["all", "pair"]
    assert found["boosting"] < 0.5 * found["physics"]
    assert trial.used is None


@pytest.mark.slow
def test_one_part_of_the_rows_is_enough_to_refuse():
    """What helps the many rows of one part spoils the few of the other."""
    rows, groupings, source = drawn()
    few = np.arange(len(rows)) % 5 == 0
    measured = rows[:, 0] + np.where(few, 0.0, 0.5) + 0.05 * source.standard_normal(len(rows))
    both = attempt("new_accuracy", rows, rows[:, 0], measured, groupings)
    assert both.used is not None
    parts = ["few" if one else "many" for one in few]
    trial = attempt("new_accuracy", rows, rows[:, 0], measured, groupings, parts)
    assert set(trial.errors) == {(p, k) for p in ("few", "many") for k in groupings}
    assert trial.used is None


@pytest.mark.slow
def test_a_group_is_left_out_as_a_whole():
    """Every group has an error of its own, which nothing but its own rows tells."""
    groups = np.repeat(np.arange(8), 10)
    rows = np.zeros((80, len(FEATURES)))
    rows[:, 0] = groups
    residual = np.where(groups % 2 == 0, 1.0, -1.0)
    made = left_out("boosting", "drop", rows, residual, list(groups))
    assert np.mean((residual - made) ** 2) > 1


def test_features_are_those_named():
    said = dict.fromkeys(FEATURES, 0.5) | {
        "steps": 99.99, "parameters": 999.99, "optimizer": "adam", "strategy": "ewc",
    }  # fmt: skip
    found = dict(zip(FEATURES, features(said), strict=True))
    assert found["steps"] == pytest.approx(2)
    assert found["parameters"] == pytest.approx(3)
    assert (found["adam"], found["momentum"], found["drop"]) == (1.0, 0.0, 0.5)
    assert features(said, ["ewc", "replay"])[-2:] == [1.0, 0.0]


def test_a_single_group_is_refused():
    rows, _, _ = drawn()
    with pytest.raises(ValueError, match="'pair' has a single group"):
        attempt("drop", rows, rows[:, 0], rows[:, 0], {"pair": ["one"] * len(rows)})


def test_a_heavy_tail_is_corrected_as_a_factor():
    physics, measured = np.array([0.0, 0.1, 20.0]), np.array([0.0, 0.2, 40.0])
    more = residual("rise", physics, measured)
    assert more[2] == pytest.approx(np.log(2), abs=1e-3)
    assert corrected("rise", physics, more) == pytest.approx(measured)
    for name in ("drop", "new_accuracy", "new_loss"):
        made = corrected(name, physics, residual(name, physics, measured))
        assert made == pytest.approx(measured)
    falls = np.array([-0.04, 0.09])
    assert residual("drop", np.zeros(2), falls) == pytest.approx([-0.2, 0.3])
