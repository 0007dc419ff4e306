"""Matrices, forgettings and scores against hand-worked numbers."""

from __future__ import annotations

import numpy as np
import pytest

from capacity.runs import summary

# Accuracy of three tasks after each of three, one replica. Task 0 recovers in the end.
ACCURACY = np.array([[0.9, 0.1, 0.2], [0.5, 0.8, 0.1], [0.6, 0.4, 0.7]])[..., None]


def test_both_forgettings():
    made = summary.forgetting(ACCURACY, sign=1)
    assert made["last"][2, 0, 0] == pytest.approx(0.9 - 0.6)
    assert made["last"][2, 1, 0] == pytest.approx(0.8 - 0.4)
    assert made["max"][1, 0, 0] == pytest.approx(0.9 - 0.5)
    assert np.isnan(made["last"][0]).all()
    assert np.isnan(made["last"][1, 1:]).all()


def test_forgetting_max_counts_from_the_best():
    rising = np.array([[0.5, 0.0, 0.0], [0.9, 0.5, 0.0], [0.6, 0.5, 0.5]])[..., None]
    made = summary.forgetting(rising, sign=1)
    assert made["last"][2, 0, 0] == pytest.approx(-0.1)
    assert made["max"][2, 0, 0] == pytest.approx(0.3)


def test_loss_forgets_upwards():
    made = summary.forgetting(ACCURACY, sign=-1)
    assert made["last"][1, 0, 0] == pytest.approx(0.5 - 0.9)


def test_matrix_has_nulls_where_nothing_was_reached():
    made = summary.matrix(np.concatenate([ACCURACY, ACCURACY + 0.02], axis=2)[:2], 3)
    assert made["mean"][0][0] == pytest.approx(0.91)
    assert made["stderr"][0][0] == pytest.approx(0.01)
    assert made["mean"][2] == [None] * 3
    assert len(made["replicas"]) == 2


def test_final_averages():
    made = summary.final(ACCURACY, 1 - ACCURACY)
    assert made["accuracy"]["value"] == pytest.approx((0.6 + 0.4 + 0.7) / 3)
    assert made["forgetting_last"]["value"] == pytest.approx((0.3 + 0.4) / 2)
    assert summary.final(ACCURACY[:0], ACCURACY[:0]) is None


def cell(forecast, measured):
    made = [
        {kind: {"value": value} for kind in ("accuracy_drop", "loss_increase")}
        for value in (forecast, measured)
    ]
    return {"forecast": made[0], "measured": made[1]}


def transition(cells, loss):
    controls = {"new_task_loss": {"value": loss}, "path_bound": {"value": 1.0}}
    return {"old": cells, "controls": controls, "dimension": None, "capacity": None}


def test_scores():
    made = summary.scores([
        transition([cell(0.1, 0.2)], 3.0),
        transition([cell(0.2, 0.1), cell(0.3, 0.3)], 2.0),
        transition([cell(0.4, 0.5), cell(0.9, 0.8)], 1.0),
    ])
    # ranks 1 2 3 4 5 against 2 1 3 4 5: rho = 1 - 6 * 2 / (5 * 24)
    assert made["pairs"] == 5
    assert made["accuracy_drop"]["spearman"]["value"] == pytest.approx(0.9)
    assert made["accuracy_drop"]["mean_error"]["value"] == pytest.approx(0.4 / 5)
    measured = np.array([0.2, 0.1, 0.3, 0.5, 0.8])
    explained = 1 - 0.04 / ((measured - measured.mean()) ** 2).sum()
    assert made["accuracy_drop"]["r2"]["value"] == pytest.approx(explained)
    # ranks 5 3.5 3.5 1.5 1.5 against 2 1 3 4 5: covariance -7.5, variances 9 and 10
    control = made["controls"]["new_task_loss"]["accuracy_drop"]
    assert control["value"] == pytest.approx(-7.5 / 90**0.5)
    assert made["controls"]["path_bound"]["accuracy_drop"]["status"] == "not_defined"


def test_guesses_are_held_against_what_was_measured():
    accuracy = np.array([[[0.9, 0.7]] * 3, [[0.6, 0.6], [1.0, 1.0], [0.1, 0.1]]])
    pairs = [transition([cell(0.1, 0.2)], 3.0), transition([cell(0.2, -0.1), cell(0.3, 0.5)], 2.0)]
    for i, one in enumerate(pairs, start=1):
        one["task"] = i
        for j, old in enumerate(one["old"]):
            old["task"] = j
    made = summary.scores(pairs, accuracy)["guesses"]
    nothing, everything = made["nothing_lost"], made["everything_lost"]
    assert nothing["accuracy_drop"]["value"] == pytest.approx((0.2 + 0.1 + 0.5) / 3)
    assert set(nothing) == {"accuracy_drop", "loss_increase"}
    # What was there before: 0.8 of the first task, then 0.6 of it and 1.0 of the second.
    assert everything["accuracy_drop"]["value"] == pytest.approx((0.6 + 0.7 + 0.5) / 3)
    assert set(everything) == {"accuracy_drop"}, "nobody knows how far a loss may rise"
    assert "accuracy_drop" not in summary.scores(pairs)["guesses"]["everything_lost"]


def test_too_few_pairs_have_no_rank_correlation():
    made = summary.scores([transition([cell(0.1, 0.2)], 3.0)])
    assert made["accuracy_drop"]["spearman"]["status"] == "not_defined"
