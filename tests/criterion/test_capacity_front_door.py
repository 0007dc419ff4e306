"""Capacity, dimension and verdicts for somebody's own network; every mistake by its name."""

from __future__ import annotations

import math
import re
import warnings

import pytest
import torch
from torch import nn

import capacity
from capacity.criterion.transition import assess
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Measure, Training
from capacity.records.estimate import Status
from capacity.tasks.tensors import as_task

pytestmark = pytest.mark.usefixtures("quick_runs")


def data(feature, count=80, seed=0):
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, feature] > 0).long()


def mlp(outputs=2):
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, outputs))


def learned(task, steps=60, lr=2.0):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    tracker = capacity.TransportTracker(model, "cross_entropy", optimizer, tangents=2)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(task[0]), task[1]).backward()
        tracker.observe(*task)
        optimizer.step()
    return model, tracker


@pytest.fixture(scope="module")
def after_old():
    """A network that learned `data(0)`, and the tracker that watched."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return learned(data(0))


SCALES = {"tolerance": 0.05, "displacement": 1.0}


@pytest.mark.slow
def test_is_what_assess_gives_and_leaves_the_model_alone(float64):
    old, new = data(0), data(1, seed=1)
    model = mlp()
    before = [p.clone() for p in model.parameters()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nothing was learned, which has its own test
        made = capacity.compatible_capacity(model, old=old, new=new, eps=(0.1, 1.0), **SCALES)
    flat = FlatModel(model)
    direct = assess(
        flat,
        flat.initial(),
        [as_task(old, name="old")],
        as_task(new, name="new"),
        None,
        Measure(eps=(0.1, 1.0), **SCALES),
        displacement=9.0,
        generator=torch.Generator().manual_seed(0),
    )
    labels = {"scored_on": made.scored_on, "scoring": made.scoring}
    said = direct.to_dict()
    assert made.to_dict() == {**said, **labels, "dimension": {**said["dimension"], **labels}}
    assert [at.eps for at in made.capacity] == [0.1, 1.0]
    assert made.capacity[0].directions.value == flat.size - made.preserving.removed
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dimension = capacity.task_dimension(model, old=old, new=new, **SCALES)
    assert dimension == made.dimension


@pytest.mark.slow
def test_a_tracked_training_gives_displacement_and_accessibility(after_old):
    old, new = data(0), data(1, seed=1)
    model, tracker = after_old
    made = capacity.compatible_capacity(model, old=old, new=new, jacobian=tracker, tolerance=0.05)
    start = next(iter(tracker.jacobian().trajectories[0].forwards())).state[0]
    moved = float((FlatModel(model).initial() - start).norm())
    assert made.preserving.displacement == pytest.approx(moved)
    assert made.convergence.converged
    assert made.capacity[0].directions.value != made.preserving.rank, "J has a part in it"
    same = capacity.compatible_capacity(
        model, old=old, jacobian=tracker.jacobian(), tolerance=0.05, displacement=moved
    )
    assert same.capacity[0].nats.value == pytest.approx(made.capacity[0].nats.value, rel=1e-5)
    assert (same.dimension, same.literal) == (None, None)
    alone = capacity.task_dimension(model, old=old, new=new, jacobian=tracker, tolerance=0.05)
    assert alone.stable_rank.value == pytest.approx(made.dimension.stable_rank.value, rel=0.05)


@pytest.mark.slow
def test_several_old_tasks_leave_less_than_one(after_old):
    model, _ = after_old
    tasks = [data(k, seed=k) for k in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = capacity.compatible_capacity(model, old=tasks[0], **SCALES)
        same = capacity.compatible_capacity(model, old=[tasks[0]], **SCALES)
        all_ = capacity.compatible_capacity(model, old=tasks, **SCALES)
    assert one.capacity == same.capacity
    assert all_.preserving.soft_removed.value > one.preserving.soft_removed.value


@pytest.mark.slow
def test_old_tasks_that_are_not_learned_are_said(after_old):
    with pytest.warns(UserWarning, match="old tasks are not converged: the gradient of their loss"):
        made = capacity.compatible_capacity(mlp(), old=data(0), tolerance=1e-4, displacement=1.0)
    assert not made.convergence.converged
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, _ = after_old
        capacity.compatible_capacity(model, old=data(0), tolerance=0.1, displacement=1.0)


TRAINED = "All scores are training scores"
SCORED = {
    "training": (lambda x, y: capacity.hold_out((x, y), share=0), "training", TRAINED),
    "the same samples twice": (lambda x, y: ((x, y), (x, y)), "training", TRAINED),
    "held out": (lambda x, y: (x, y), "test", "16 of 80 samples were held out"),
    "test": (lambda x, y: ((x[:40], y[:40]), (x[40:], y[40:])), "test", ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("case", SCORED)
def test_records_say_what_their_scores_are_scores_on(case, optimizer, after_old):
    make, kind, said = SCORED[case]
    model, _ = after_old
    asked = {"old": make(*data(0)), "new": data(1)}
    plan = Training(lr=0.01, epochs=1, optimizer=optimizer)
    verdict = capacity.verdict(model, training=plan, **asked)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = capacity.compatible_capacity(model, displacement=1.0, **asked)
        need = capacity.task_dimension(model, displacement=1.0, **asked)
    forecast = capacity.forecast(model, training=plan, **asked)
    for record in (verdict, found, found.dimension, need):
        assert record.scored_on == kind == record.to_dict()["scored_on"]
        assert record.scoring == record.to_dict()["scoring"]
        assert said in record.scoring
        # The same words as the forecast's.
        assert record.scoring in forecast.old[0].accuracy_drop.note
    assert verdict.directional.note.endswith(verdict.scoring)
    assert bool(said) is bool(verdict.scoring)
    assert "held-out samples" not in verdict.directional.note


@pytest.mark.slow
def test_old_tasks_of_both_kinds_are_said(after_old):
    model, _ = after_old
    old = [capacity.hold_out(data(0), share=0, name="one"), capacity.hold_out(data(2), name="two")]
    made = capacity.verdict(model, old=old, new=data(1), training=Training(lr=0.01, epochs=1))
    assert made.scored_on == "test or training"
    assert TRAINED in made.scoring
    assert "held out" in made.scoring


@pytest.mark.slow
def test_old_tasks_whose_gradients_cancel_are_not_learned():
    # Of two labels for the same inputs the mean loss is least where no input is told apart.
    model = nn.Linear(6, 2)
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    x, y = data(0)[0], torch.arange(len(data(0)[0])) % 2
    old = [((x, y), (x, y)), ((x, 1 - y), (x, 1 - y))]
    said = r"not converged \(2 of 2, .* the least\)"
    with pytest.warns(UserWarning, match=said):
        made = capacity.compatible_capacity(model, old=old, tolerance=1e-3, displacement=1.0)
    assert not made.convergence.converged
    verdict = capacity.verdict(model, old=old, new=data(1), tolerance=1e-3, displacement=1.0)
    assert [text for text in verdict.warnings if re.search(said, text)]


@pytest.mark.parametrize("nothing", [None, []])
def test_no_task_yet(nothing):
    for call in (capacity.compatible_capacity, capacity.task_dimension, capacity.verdict):
        with pytest.raises(ValueError, match=r"old is empty: .* there is no task yet"):
            call(mlp(), old=nothing, new=data(1))


def test_no_new_task():
    for call in (capacity.task_dimension, capacity.verdict):
        with pytest.raises(ValueError, match=r"new is None; .*pass its data"):
            call(mlp(), old=data(0), new=None)


@pytest.mark.parametrize("bad", [0, -1.0, math.nan, math.inf, "much", True])
@pytest.mark.parametrize("name", ["tolerance", "displacement", "eps"])
def test_numbers_must_be_positive(name, bad):
    options = {**SCALES, name: (bad,) if name == "eps" else bad}
    with pytest.raises(ValueError, match=rf"{name} = .* must be a finite number above 0"):
        capacity.compatible_capacity(mlp(), old=data(0), **options)
    if name != "eps":
        with pytest.raises(ValueError, match=rf"{name} = .* must be a finite number above 0"):
            capacity.verdict(mlp(), old=data(0), new=data(1), **{name: bad})


def test_tasks_that_do_not_fit():
    x, y = data(1)
    empty = (x[:0], y[:0])
    beyond = (x, y + 1)
    for call in (capacity.compatible_capacity, capacity.verdict):
        with pytest.raises(ValueError, match="inputs is empty"):
            call(mlp(), old=data(0), new=empty)
        with pytest.raises(ValueError, match=r"labels run from 1 to 2, but the head has 2 outputs"):
            call(mlp(), old=data(0), new=beyond)
        with pytest.raises(ValueError, match=r"does not take inputs of shape \(3,\).*'new'"):
            call(mlp(), old=data(0), new=(x[:, :3], y))


@pytest.mark.slow
def test_other_arguments_that_cannot_be_used():
    model, tracker = learned(data(0), steps=2)
    with pytest.raises(ValueError, match="displacement is None, and no tracked training"):
        capacity.compatible_capacity(model, old=data(0))
    with pytest.raises(ValueError, match="jacobian is a str; pass the TransportTracker"):
        capacity.compatible_capacity(model, old=data(0), jacobian="J")
    with pytest.raises(ValueError, match=r"jacobian is of 47 parameters, the model has 53"):
        capacity.compatible_capacity(mlp(3), old=data(0), jacobian=tracker)
    with pytest.raises(ValueError, match="samples = 0"):
        capacity.compatible_capacity(model, old=data(0), samples=0, **SCALES)
    still, tracker = learned(data(0), steps=3, lr=1e-30)
    with pytest.raises(ValueError, match="did not move the parameters"):
        capacity.compatible_capacity(still, old=data(0), jacobian=tracker, tolerance=1.0)


@pytest.mark.slow
def test_no_demand_and_nothing_kept_are_cases_of_their_own(float64):
    # B's inputs are 0: whatever the weights are, it asks nothing.
    model = nn.Linear(6, 2, bias=False)
    x, _ = data(0)
    still = torch.zeros(10, 6)
    old, new = (x, torch.randn(80, 2)), (still, torch.zeros(10, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = capacity.compatible_capacity(
            model, old=old, new=new, loss="mse", tolerance=10.0, displacement=1.0
        )
        assert made.dimension.no_demand
        assert made.literal.verdict == "room left"
        assert "asks nothing" in made.literal.note
        all_taken = capacity.compatible_capacity(
            model, old=old, new=old, loss="mse", tolerance=1e-9, displacement=1.0
        )
    assert all_taken.preserving.rank == 0
    assert all_taken.capacity[0].directions.value == 0
    assert "keeps nothing" in all_taken.capacity[0].directions.note
    assert all_taken.dimension.stable_rank.status is Status.NOT_DEFINED


@pytest.mark.slow
def test_verdict_reads_every_form_and_takes_what_is_known(after_old):
    old, new = data(0), data(1, seed=1)
    model, tracker = after_old
    known = capacity.compatible_capacity(model, old=old, new=new, jacobian=tracker, tolerance=0.03)
    made = capacity.verdict(
        model, old=old, new=new, training=Training(lr=0.5, epochs=20), capacity=known
    )
    assert {form.form for form in made.forms} >= {"literal", "directional"}
    room, need = known.capacity[0].directions, known.dimension.stable_rank
    assert made.literal.value.value == pytest.approx(room.value - need.value)
    assert made.tolerance == 0.03
    assert made.verdict in {"forgetting predicted", "room left", "undecided"}
    plain = capacity.verdict(model, old=old, new=new)
    assert plain.literal.value.value != made.literal.value.value
