"""The directional form where steps are no gradient flow, and where its model says nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from capacity.criterion.criterion import assess_transition
from capacity.criterion.criterion_verdicts import PREDICTED, ROOM_LEFT, UNDECIDED
from capacity.criterion.directional_form import FORECAST_STRETCH, LOST_FLOOR, over_tasks
from capacity.forecasting.corpus import PLAIN
from capacity.forecasting.shipped import shipped
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.records.estimate import Estimate, Status
from dense import digits_task, network, run_map, trained
from quadratics import linear
from regression import regression_task

LEARN = Training(optimizer="sgd", lr=0.2, epochs=20, batch_size=20)


@pytest.fixture(scope="module")
def learned():
    """A network that has learned three digits, its task, and two tasks that may come."""
    old, same, new = digits_task((0, 1, 2), 90), digits_task((0, 1, 2), 80), digits_task((3, 4), 80)
    model = FlatModel(network(64, 24, 10))
    return model, run_map(trained(model, old, LEARN), model.initial()), old, same, new


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam", "lr": 0.003},
        {"optimizer": "adamw", "lr": 0.003, "weight_decay": 0.01},
        {"optimizer": "rmsprop", "lr": 0.003},
        {"optimizer": "sgd", "lr": 0.2, "clip_norm": 1.0},
        {"optimizer": "adam", "lr": 0.003, "clip_norm": 1.0},
    ],
)
def test_clipped_and_scaled_steps_are_judged_by_a_training_of_the_network(learned, options):
    model, theta, old, same, new = learned
    training = Training(epochs=20, batch_size=20, **options)
    made = assess_transition(model, theta, [old], new, training, groups=0)
    assert made.drift is made.time is None
    assert (made.decides, made.verdict) == ("directional", PREDICTED)
    assert "no gradient flow" in made.why
    assert "compressed training" in made.directional.note
    assert made.displacement > 0.1, "as far as the compressed training went"
    # What is forecast happens: the old task is lost.
    after = run_map(trained(model, new, training), theta)
    right = (model.outputs(after, old.test.x).argmax(1) == old.test.y).double().mean()
    assert right < 0.5
    kept = assess_transition(model, theta, [old], same, training, groups=0)
    assert kept.verdict != PREDICTED
    record = json.loads(json.dumps(made.to_dict()))
    assert record["drift"] is None
    assert record["directional"]["value"]["status"] in {"ok", "uncalibrated"}


def test_regression_under_adam_reads_the_loss(float64):
    # A unit sample along one axis; B asks for the opposite along the same.
    old = regression_task("A", torch.eye(5)[[0, 0]], torch.ones(2))
    new = regression_task("B", torch.eye(5)[[0, 0]], -torch.ones(2))
    training = Training(optimizer="adam", lr=0.05, epochs=100, batch_size=2)
    made = assess_transition(
        FlatModel(linear(5)), torch.eye(5)[0], [old], new, training, tolerance=1e-3
    )
    assert made.directional.threshold == made.tolerance == 1e-3
    assert made.directional.value.value == pytest.approx(2.0, rel=0.2)  # 1/2 (1 - -1)^2
    assert made.verdict in {PREDICTED, UNDECIDED}


@pytest.mark.slow
def test_steps_that_nothing_stands_for_are_undecided(learned):
    model, theta, old, _, new = learned
    training = Training(optimizer="sgld", temperature=1e-6, lr=0.1, clip_norm=1.0, epochs=2)
    made = assess_transition(model, theta, [old], new, training, groups=0)
    assert (made.decides, made.verdict) == ("directional", UNDECIDED)
    assert "no compressed training stands for them" in made.directional.note


@pytest.mark.slow
def test_a_flow_that_diverged_decides_nothing_and_marks_what_hangs_on_it(learned):
    model, theta, old, _, new = learned
    training = Training(lr=1e9, epochs=20, batch_size=20)
    made = assess_transition(model, theta, [old], new, training, groups=0)
    assert made.drift.lost.status is Status.DIVERGED
    assert (made.decides, made.verdict) == ("directional", UNDECIDED)
    for form in made.forms:
        assert form.value.status is Status.DIVERGED, form.form
        assert form.verdict == UNDECIDED
    known = assess_transition(
        model, theta, [old], new, training, groups=0, displacement=1.0,
        capacity=Estimate(value=5.0), dimension=Estimate(value=2.0),
    )  # fmt: skip
    assert known.literal.verdict == ROOM_LEFT, "R_A and m_B do not hang on the flow"


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_displacement_that_hits_its_floor_judges_nothing(float64, optimizer):
    # B is learned already: there is no residual, and nothing moves theta.
    old = regression_task("A", torch.eye(5)[[0, 0]], torch.ones(2))
    new = regression_task("B", torch.eye(5)[[0, 1]], torch.tensor([1.0, 0.0]))
    training = Training(optimizer=optimizer, lr=0.01, epochs=4, batch_size=2)
    made = assess_transition(
        FlatModel(linear(5)), torch.eye(5)[0], [old], new, training, tolerance=1e-3
    )
    assert made.displacement == 1e-6
    for form in (made.transport_cost, made.capacity, made.literal):
        assert form.value.status in {Status.NOT_RESOLVED, Status.NOT_DEFINED}, form
        assert form.verdict == UNDECIDED
    assert made.room.kept.status is Status.NOT_RESOLVED


def test_the_stretch_is_that_of_the_corpus_that_ships():
    rows = shipped().of(PLAIN)
    off = np.array([abs(row["measured_drop"] - row["drop"]) for row in rows])
    half = np.array([row["drop_half"] for row in rows])
    assert float(np.quantile(off / (half + LOST_FLOOR), 0.95)) == pytest.approx(
        FORECAST_STRETCH, abs=0.02
    )


def test_tasks_share_their_errors_and_the_least_certain_status():
    sure = Estimate(value=0.1, stderr=0.1, interval=(0.0, 0.3))
    bare = Estimate(value=0.3, stderr=0.2, interval=(0.2, 0.4), status=Status.UNCALIBRATED)
    made = over_tasks([sure, bare])
    assert (made.value, made.stderr) == pytest.approx((0.2, 0.15))
    assert made.interval == pytest.approx((0.1, 0.35))
    assert made.status is Status.UNCALIBRATED
    lost = Estimate(value=None, status=Status.DIVERGED)
    assert over_tasks([sure, lost]) is lost
    assert over_tasks([sure, replace(bare, interval=None)]).interval is None
