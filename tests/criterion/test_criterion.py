"""The verdicts: quadratics whose angle is known, trained networks, bad input, the thresholds."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from capacity.criterion import criterion, directional_form
from capacity.criterion.criterion import assess_transition
from capacity.criterion.criterion_verdicts import PREDICTED, ROOM_LEFT, UNDECIDED, judge
from capacity.criterion.function_space import room
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Strategy, Training
from capacity.records.estimate import Estimate, Status, not_defined
from capacity.tasks.task import Split, Task
from dense import digits_task, network, run_map, trained
from quadratics import linear
from regression import plane_task, regression_task

LONG = Training(optimizer="sgd", lr=1e5, epochs=1, batch_size=1)
"""One step, read as gradient flow of learning time 1e5: to convergence."""


def plane(degrees: float, **options):
    """Verdicts on a unit sample at an angle to A's, whose minimum is where theta stands."""
    old, new = plane_task(0.0, 5), plane_task(math.radians(degrees), 5)
    theta = torch.eye(5)[0]
    options = {"tolerance": 1e-6, "displacement": 1.0, **options}
    return assess_transition(FlatModel(linear(5)), theta, [old], new, LONG, **options)


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [10, 30, 60, 90])
def test_quadratics_at_an_angle(float64, degrees):
    angle = math.radians(degrees)
    made = plane(degrees)
    assert made.transport_cost.value.value == pytest.approx(1 / math.sin(angle) ** 2, rel=1e-3)
    # B moves theta by (1 - cos a) along its own direction, A's output by cos a times that.
    drift = math.cos(angle) * (1 - math.cos(angle))
    assert made.drift.distance.value == pytest.approx(abs(drift), rel=1e-6, abs=1e-9)
    assert made.drift.loss_rise.value == pytest.approx(0.5 * drift**2, rel=1e-6, abs=1e-9)
    assert made.removed == 1
    # R_A counts 4 of 5 directions, m_B is one: the literal form sees no angle.
    assert made.literal.value.value == pytest.approx(4 - 1)
    assert made.literal.verdict == ROOM_LEFT
    forgets = degrees < 90
    assert made.transport_cost.fires == made.directional.fires == forgets
    assert made.verdict == (PREDICTED if forgets else ROOM_LEFT)
    # Regression has no accuracy: the directional form reads the loss against the tolerance.
    assert made.directional.threshold == made.tolerance == 1e-6


@pytest.mark.slow
def test_the_same_direction_leaves_no_room_and_no_dimension(float64):
    old, new = plane_task(0.0, 5), regression_task("B", torch.eye(5)[:1], torch.zeros(1))
    made = assess_transition(
        FlatModel(linear(5)), torch.eye(5)[0], [old], new, LONG, tolerance=1e-6, displacement=1.0
    )
    assert made.literal.margin is None
    assert made.literal.verdict == UNDECIDED
    assert "P_A H_B P_A = 0" in made.literal.note
    assert made.transport_cost.value.value > 1e4
    assert made.transport_cost.fires
    assert made.capacity.fires
    assert made.drift.loss_rise.value == pytest.approx(0.5, rel=1e-6)


@pytest.mark.slow
def test_capacity_and_dimension_that_are_known_are_used(float64):
    made = plane(
        30, capacity=Estimate(value=4.0, stderr=0.3), dimension=Estimate(value=1.5, stderr=0.4)
    )
    assert made.literal.margin == pytest.approx(2.5)
    assert made.literal.half_width == pytest.approx(1.645 * 0.5)
    made = plane(30, capacity=Estimate(value=1.0, stderr=2.0), dimension=Estimate(value=1.5))
    assert made.literal.verdict == UNDECIDED
    made = plane(30, dimension=not_defined("nothing is asked"))
    assert made.literal.note == "nothing is asked"


def test_a_projector_that_keeps_nothing_is_said(float64):
    old, new = (regression_task(n, torch.ones(1, 1), torch.ones(1)) for n in "AB")
    made = assess_transition(
        FlatModel(linear(1)), torch.ones(1), [old], new, LONG, tolerance=1e-6, displacement=1.0
    )
    assert any("keeps nothing" in warning for warning in made.warnings)
    # B is learned already: nothing is left to fit, and nothing can be forgotten.
    assert made.transport_cost.margin is None
    assert made.verdict == ROOM_LEFT


@pytest.mark.parametrize(
    ("value", "own", "above", "given", "margin", "verdict"),
    [
        (1.0, 0.2, True, None, -0.5, PREDICTED),
        (1.0, 0.6, True, None, -0.5, UNDECIDED),
        (1.0, 0.2, False, None, 0.5, ROOM_LEFT),
        (0.2, None, True, None, 0.3, ROOM_LEFT),
        (0.2, None, False, None, -0.3, PREDICTED),
        (0.2, 0.1, True, 0.4, 0.3, UNDECIDED),
        (0.2, 0.4, True, 0.1, 0.3, ROOM_LEFT),
        (0.5, None, True, None, 0.0, UNDECIDED),
    ],
)
def test_judge(value, own, above, given, margin, verdict):
    estimate = Estimate(value=value, interval=None if own is None else (value - own, value + own))
    made = judge("x", estimate, 0.5, fires_above=above, half_width=given, note="n")
    assert made.margin == pytest.approx(margin)
    assert made.half_width == pytest.approx((own or 0.0) if given is None else given)
    assert made.verdict == verdict
    assert made.fires == (verdict == PREDICTED)
    assert made.note == "n"


@pytest.mark.parametrize("status", [Status.DIVERGED, Status.NOT_RESOLVED])
def test_a_number_whose_inputs_diverged_or_hit_a_floor_judges_nothing(status):
    value = Estimate(value=1.000005, interval=(1.0, 1.00001), status=status, note="because")
    made = judge("x", value, 1.3, fires_above=True, note="n")
    assert (made.margin, made.verdict, made.note) == (None, UNDECIDED, "because")


def test_a_lopsided_interval_is_judged_on_the_side_of_the_threshold():
    value = Estimate(value=0.2, interval=(0.19, 0.6))
    assert judge("x", value, 0.5, fires_above=True).verdict == UNDECIDED
    assert judge("x", value, 0.1, fires_above=True).verdict == PREDICTED


def test_judge_without_a_value():
    made = judge("x", not_defined("because"), 0.5, fires_above=True, note="n")
    assert (made.margin, made.verdict, made.note) == (None, UNDECIDED, "because")


@pytest.mark.slow
def test_digits_are_told_apart(float64):
    old, same, new = digits_task((0, 1, 2), 90), digits_task((0, 1, 2), 80), digits_task((3, 4), 80)
    model = FlatModel(network(64, 24, 10))
    learn = Training(optimizer="sgd", lr=0.2, epochs=20, batch_size=20)
    theta = run_map(trained(model, old, learn), model.initial())
    made = {task.name: assess_transition(model, theta, [old], task, learn) for task in (same, new)}
    forgets, keeps = made[new.name], made[same.name]
    assert forgets.decides == keeps.decides == "directional"
    assert (forgets.verdict, keeps.verdict) == (PREDICTED, ROOM_LEFT)
    after = run_map(trained(model, new, learn), theta)
    right = (model.outputs(after, old.test.x).argmax(1) == old.test.y).double().mean()
    assert right < 0.5
    # The literal form says the same of both.
    assert forgets.literal.verdict == keeps.literal.verdict == ROOM_LEFT
    for form in forgets.forms:
        assert form.half_width > 0
    record = json.loads(json.dumps(forgets.to_dict()))
    assert record["verdict"] == PREDICTED
    assert record["directional"]["margin"] == forgets.directional.margin
    assert set(record["drift"]) == {
        "lost", "loss_rise", "second_order", "distance", "first_order", "displacement",
        "new_loss", "time",
    }  # fmt: skip


@pytest.mark.slow
def test_the_default_displacement_is_what_the_flow_expects(float64):
    old, new = digits_task((0, 1, 2), 40), digits_task((3, 4), 40)
    model = FlatModel(network(64, 8, 10))
    training = Training(lr=0.2, epochs=5, batch_size=20)
    made = assess_transition(model, model.initial(), [old], new, training, groups=0)
    assert made.displacement == made.drift.displacement.value
    assert made.time == pytest.approx(0.2 * 5 * 2)
    assert made.room.alpha == pytest.approx(40 / made.time)


def test_the_interval_of_the_share_lost_is_stretched():
    lost = Estimate(value=0.3, interval=(0.25, 0.35))
    made = directional_form.lost_half_width(lost, stretch=2.0)
    assert made == pytest.approx(2 * (0.05 + directional_form.LOST_FLOOR))


@pytest.mark.slow
def test_an_ill_conditioned_kernel_judges_nothing(float64):
    old, new = digits_task((0, 1, 2), 40), digits_task((3, 4), 40)
    model = FlatModel(network(64, 8, 10))
    training = Training(lr=1e15, epochs=1, batch_size=40)
    made = assess_transition(model, model.initial(), [old], new, training, displacement=1.0)
    assert made.room.cost.status is made.room.kept.status is Status.DIVERGED
    kernel, r = torch.eye(6), torch.ones(6)
    whole = room(kernel, kernel, r, alpha=1e-14, groups=0)
    assert whole.cost.status is whole.kept.status is Status.NOT_RESOLVED
    assert room(kernel, kernel, r, alpha=1e-3, groups=0).cost.status is Status.OK


@pytest.mark.slow
def test_many_outputs_are_combined_and_said(float64):
    labels = torch.arange(24)
    split = Split(torch.randn(24, 6), labels % 12)
    old, new = (Task(name=n, train=split, test=split) for n in "AB")
    model = FlatModel(network(6, 5, 12))
    training = Training(lr=0.1, epochs=2, batch_size=12)
    made = assess_transition(model, model.initial(), [old], new, training, groups=0)
    assert any("on 10 random combinations of the outputs" in said for said in made.warnings)
    again = assess_transition(model, model.initial(), [old], new, training, groups=0)
    assert made.to_dict() == again.to_dict()
    other = assess_transition(model, model.initial(), [old], new, training, groups=0, seed=1)
    assert other.transport_cost.value != made.transport_cost.value
    assert other.directional == made.directional


@pytest.mark.slow
def test_networks_whose_rows_do_not_factor(float64):
    old, new = digits_task((0, 1, 2), 30), digits_task((3, 4), 30)
    torch.manual_seed(0)
    convolution = torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, 8, 8)), torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(144, 10),
    )  # fmt: skip
    model = FlatModel(convolution)
    learn = Training(optimizer="sgd", lr=0.1, epochs=20, batch_size=10)
    theta = run_map(trained(model, old, learn), model.initial())
    made = assess_transition(model, theta, [old], new, learn)
    assert made.verdict == PREDICTED
    assert made.transport_cost.value.value > 1
    assert 0 < made.capacity.value.value <= 1


@pytest.mark.slow
def test_warnings(float64):
    old, new = digits_task((0, 1, 2), 40), digits_task((3, 4), 40)
    model = FlatModel(network(64, 8, 10))
    training = Training(
        lr=0.1, epochs=2, batch_size=20, weight_decay=0.1, strategy=Strategy(name="ewc")
    )
    said = assess_transition(model, model.initial(), [old], new, training, groups=0).warnings
    for words in (
        "not converged: the gradient of their loss has norm",
        "weight decay",
        "'ewc' is left out",
    ):
        assert any(words in warning for warning in said), said
    # At its minimum A is converged, and nothing is said.
    assert plane(30).warnings == ()


def test_bad_input(float64):
    old, new = digits_task((0, 1, 2), 20), digits_task((3, 4), 20)
    model = FlatModel(network(64, 4, 10))
    theta, training = model.initial(), Training(lr=0.1, epochs=1, batch_size=10)

    def judged(old=(old,), new=new, model=model, theta=theta, **options):
        return assess_transition(model, theta, old, new, training, **options)

    with pytest.raises(ValueError, match="old is empty: without a task A"):
        judged(old=[])
    with pytest.raises(ValueError, match=r"theta has shape \(3,\); the model needs"):
        judged(theta=theta[:3])
    with pytest.raises(ValueError, match="theta holds NaN"):
        judged(theta=theta * math.nan)
    for name in ("tolerance", "displacement"):
        for bad in (0.0, -1.0, math.nan):
            with pytest.raises(ValueError, match=rf"{name} = .* must be a finite number above 0"):
                judged(**{name: bad})
    with pytest.raises(ValueError, match="samples = 1 must be a whole number of at least 2"):
        judged(samples=1)
    with pytest.raises(ValueError, match="room_samples = 1 must be a whole number of at least 2"):
        judged(room_samples=1)
    with pytest.raises(ValueError, match="groups = -1 must be a whole number of at least 0"):
        judged(groups=-1)
    split = Split(new.train.x, new.train.y + 9)
    with pytest.raises(ValueError, match="labels run from 12 to 13, but the head has 10 outputs"):
        judged(new=replace(new, train=split, test=split))
    narrow = Split(new.train.x[:, :30], new.train.y)
    with pytest.raises(ValueError, match=r"does not take inputs of shape \(30,\)"):
        judged(new=replace(new, train=narrow, test=narrow))
    nothing = Split(new.train.x[:0], new.train.y[:0])
    with pytest.raises(ValueError, match="inputs is empty"):
        Task(name="B", train=nothing, test=new.test)


# The thresholds.


def test_thresholds_are_those_of_the_committed_table():
    text = Path(__file__).parents[2] / criterion.SOURCE
    chosen = json.loads(text.with_suffix(".json").read_text())["chosen"]
    assert chosen["thresholds"] == {
        "literal": 0.0,
        "kept": criterion.KEPT_THRESHOLD,
        "cost": criterion.COST_THRESHOLD,
        "lost": directional_form.LOST_THRESHOLD,
    }
    assert chosen["lost_stretch"] == directional_form.LOST_STRETCH
    assert "reached." in text.read_text()
    assert "NOT reached" not in text.read_text()
