"""The grid of other plans behind the second corpus (`benchmarks/forecast/score_plans.py`)."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from capacity.forecasting.shipped import shipped, speaking
from capacity.networks.flat_model import FlatModel

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "benchmarks" / "forecast"


@pytest.fixture
def plans(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("score_plans")


@pytest.fixture
def design(plans):
    return importlib.import_module("score_plans_design")


def test_the_grid_has_every_kind_of_plan_in_both_halves(plans, design):
    for half, count in ((plans.DEVELOPMENT, 794), (plans.HELD_OUT, 105)):
        made = plans.cells(half)
        assert [cell.key for cell in made] == [cell.key for cell in plans.cells(half)]
        assert len({cell.stream.name for cell in made}) == len(made) == count
        assert {cell.options["optimizer"] for cell in made} == set(design.RATES)
        assert {cell.options["schedule"] for cell in made} == set(design.SCHEDULES)
        assert {cell.adapted for cell in made} == {cell.compared for cell in made} == {True, False}
        assert "tokens" in {cell.kind for cell in made}


@pytest.mark.parametrize(("kind", "adapted"), [("mlp 24 x 1", True), ("tokens", False)])
def test_a_cell_is_kept_as_it_was_measured(plans, tmp_path, kind, adapted):
    first = next(c for c in plans.cells(plans.DEVELOPMENT) if c.stream.family == "permuted")
    options = {**first.options, "optimizer": "adamw", "lr": 0.004, "epochs": 1}
    cell = replace(first, kind=kind, adapted=adapted, options=options, compared=True)
    record = plans.measured(cell, tmp_path, ask=True)
    assert record["parameters"] < 5000
    assert len(record["naive"]["drop"]) == plans.ORDERS
    assert "refused" in record["said"]["naive"]  # an epoch leaves no twentieth
    assert record["long"]["steps"] >= 1
    again = plans.with_adapters(plans.fresh(cell), cell.seed) if adapted else plans.fresh(cell)
    again.load_state_dict(torch.load(cell.place(tmp_path).with_suffix(".pt")))
    learned = plans.learned(cell, cell.stream.build()[0])
    torch.testing.assert_close(FlatModel(again).initial(), FlatModel(learned).initial())


def test_the_corpus_of_other_plans_is_of_the_development_half(design):
    known = shipped("corpus_plans")
    part = design.part_of()
    assert {part[row["pair"]] for row in known.rows} == {"development"}
    assert {row["strategy"] for row in known.rows} == {"naive", "gpm"}
    assert set(known.rows[0]) >= set(shipped().rows[0])


@pytest.mark.parametrize(
    ("plan", "strategy", "optimizers"),
    [
        ({"optimizer": "sgd"}, "naive", {"sgd", "momentum", "adam"}),
        ({"optimizer": "sgd"}, "gpm", {"sgd", "momentum", "adam", "adamw"}),
        ({"optimizer": "adamw", "warmup": 0.1}, "naive", {"sgd", "momentum", "adam", "adamw"}),
    ],
)
def test_the_corpus_that_knows_a_plan_speaks(plans, design, plan, strategy, optimizers):
    conditions = plans.Conditions(
        training=design.Training(**plan, epochs=20), strategy=strategy, samples=1297,
        parameters=3000, budget=0.05, losses=frozenset({"cross_entropy"}), architecture="mlp",
        old_tasks=1,
    )  # fmt: skip
    known, reason = speaking(conditions)
    assert reason is None
    assert {row["optimizer"] for row in known.rows} == optimizers


def test_the_nearer_reason_is_given(plans, design):
    conditions = plans.Conditions(
        training=design.Training(optimizer="adamw", warmup=0.1), strategy="ewc", samples=1297,
        parameters=3000, budget=0.05, losses=frozenset({"cross_entropy"}), architecture="mlp",
        old_tasks=1,
    )  # fmt: skip
    assert "no strategy 'ewc' (gpm, naive)" in speaking(conditions)[1]
    bare = replace(conditions, training=design.Training(optimizer="sgd"), strategy="si")
    assert "no strategy 'si' (agem, ewc" in speaking(bare)[1]
