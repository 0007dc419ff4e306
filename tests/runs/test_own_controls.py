"""What simpler predictors say of each old task is kept, and each pair is scored by its own."""

from __future__ import annotations

import pytest

from capacity.predictors.predictor import Prediction
from capacity.records.estimate import Estimate
from capacity.runs.before_task import own_controls
from capacity.runs.result import _own_controls
from capacity.runs.summary import scores


def prediction(drop: float, rise: float) -> Prediction:
    return Prediction(
        accuracy_drop=Estimate(value=drop), loss_increase=Estimate(value=rise),
        in_units=frozenset(),
    )  # fmt: skip


def test_what_is_said_of_one_task_alone_is_kept_for_it():
    made = own_controls({
        "new_task_loss": [prediction(2.0, 2.0)] * 3,
        "path_bound": [prediction(1.0, 1.0), prediction(1.0, 5.0), prediction(1.0, 1.0)],
    })
    assert [sorted(each) for each in made] == [[], ["path_bound"], []]
    assert made[1]["path_bound"]["loss_increase"]["value"] == 5.0
    assert made[1]["path_bound"]["accuracy_drop"]["value"] == 1.0
    transition = {"old_controls": made}
    assert _own_controls(transition, 0) == {}
    assert _own_controls(transition, 1) == {"controls": made[1]}
    # Records of earlier versions, and transitions that were not forecast.
    assert _own_controls({}, 0) == _own_controls(None, 0) == {}


def test_each_pair_is_scored_by_its_own_number():
    measured = [0.1, 0.4, 0.2, 0.3]

    def cell(value):
        both = {"accuracy_drop": {"value": value}, "loss_increase": {"value": value}}
        return {"forecast": both, "measured": both, "controls": {"path_bound": both}}

    transition = {
        "old": [cell(value) for value in measured],
        "controls": {"new_task_loss": {"value": 1.0}, "path_bound": {"value": 1.0}},
        "dimension": None,
        "capacity": None,
    }
    found = scores([transition])["controls"]
    assert found["path_bound"]["loss_increase"]["value"] == pytest.approx(1.0)
    assert found["new_task_loss"]["loss_increase"]["value"] is None, "one number ranks nothing"
