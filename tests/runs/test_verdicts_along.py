"""Verdicts in a run: along the training, at its end, and as the record has them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from capacity.criterion.criterion import assess_transition
from capacity.criterion.transition import assess
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Measure, Training
from capacity.records.estimate import Estimate
from capacity.runs.verdicts_along import Along, judge_transition
from dense import digits_task, network


def test_moments_are_early_ones():
    along = Along(torch.zeros(2, 3), 27, 4)
    for epoch in range(1, 28):
        along.epoch(epoch, 0.1 * epoch, torch.full((2, 3), float(epoch)))
    assert [float(moment.theta[0]) for moment in along.moments] == [0, 1, 3, 9]
    assert [moment.time for moment in along.moments] == pytest.approx([0, 0.1, 0.3, 0.9])


@pytest.mark.parametrize(("epochs", "points", "kept"), [(1, 4, 1), (5, 1, 1), (5, 0, 0), (2, 9, 2)])
def test_few_epochs_and_few_points(epochs, points, kept):
    along = Along(torch.zeros(1, 2), epochs, points)
    for epoch in range(1, epochs + 1):
        along.epoch(epoch, float(epoch), torch.ones(1, 2))
    assert len(along.moments) == kept
    times = [moment.time for moment in along.moments]
    assert times == sorted(set(times))


@pytest.mark.slow
def test_closure_is_read_from_the_verdicts_along_the_training():
    old, new = digits_task((0, 1), count=80), digits_task((2, 3), count=80)
    model = FlatModel(network(64, 6, 10))
    start = model.initial()
    record = assess(
        model, start, [old], new, None, Measure(), displacement=1.0,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    training = Training(lr=0.2, epochs=4)
    along = Along(start[None], 9, 2)
    along.epoch(1, 0.5, 0.5 * start[None])
    made = judge_transition(
        model, start, [old], new, training, record, along=along, time=2.0, strategy="ewc", seed=0
    )
    direct = assess_transition(
        model, start, [old], new, training, tolerance=record.preserving.tolerance, seed=0
    )
    assert made.verdicts["verdict"] == direct.verdict
    assert "literal" not in made.verdicts, "it stands in the record itself, with J in it"
    assert "ewc" in made.verdicts["warnings"][-1]
    # One page, one reader: the warning of the verdict is the table's own note.
    assert not record.convergence.converged
    assert record.convergence.note in made.verdicts["warnings"]
    said = [text for text in made.verdicts["warnings"] if "not converged" in text]
    assert len(said) == 1
    learned = replace(
        record,
        convergence=replace(record.convergence, remaining=Estimate(value=0.0)),
    )
    made_again = judge_transition(
        model, start, [old], new, training, learned, along=Along(start[None], 9, 0), time=2.0,
        seed=0,
    )  # fmt: skip
    assert not [text for text in made_again.verdicts["warnings"] if "not converged" in text]
    assert set(made.closures) == {form.form for form in direct.forms} - {"literal"}
    for form in direct.forms[1:]:
        curve = made.closures[form.form]
        assert [point["time"] for point in curve["points"]] == [0.0, 0.5, 2.0]
        last = curve["points"][-1]
        side, other = ("need", "capacity") if form.fires_above else ("capacity", "need")
        assert last[side]["value"] == form.value.value
        assert last[other]["value"] == form.threshold
    assert record.verdicts == {}, "the record given is left alone"
    assert record.to_dict()["verdicts"] is None
