"""Strategies as they were forecast: said, ranked and drawn; plain and joint training are none."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest

from capacity.recipe.config import Strategy
from capacity.report import advice, strategies, strategy_forecasts
from capacity.report.page import read
from capacity.strategies.mitigation import from_options
from report.fabricated_run import write


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {case: read(write(folder / case, case)) for case in ("finished", "regression")}


def test_the_choice_is_what_ends_within_a_point_of_the_best(views):
    view = views["finished"]
    # Replay and EWC end with 90 % each, plain training with 70; joint training is no choice.
    assert [one.label for one in advice.choice(view)] == ["replay", "EWC, strength = 100.0"]
    said = advice.next_sentences(view)
    assert said.startswith(
        "Replay or EWC, strength = 100.0 (within a point of each other): forecast to end with 90 %"
    )
    assert "plain training with 70 %" in said
    assert "joint" not in said.lower()


def test_the_table_of_the_choice_has_points_and_work(views):
    table = advice.next_table(views["finished"])
    assert table is not None
    rows = {row[0].text: [entry.text for entry in row[1:]] for row in table.rows}
    assert rows["plain training"] == ["70", "\u221214", "90", "1.0"]
    assert rows["replay"][:3] == ["90", "+10", "90"]
    # What the recipe does not name has no options to count by.
    assert rows["replay"][3] == "\u2013"


def test_doing_nothing_is_a_choice_where_it_ends_as_well(views):
    view = deepcopy(views["finished"])
    for transition in view.result["transitions"]:
        for entry in transition["by_strategy"]:
            entry["average_accuracy"] = entry["average_accuracy"] | {"value": 0.9}
    said = advice.next_sentences(view)
    assert "plain training" in said
    assert "nothing need be done" in said


@pytest.mark.parametrize(
    ("options", "worth"),
    [
        ({"name": "naive"}, 1.0),
        ({"name": "replay", "memory_batch": 32}, 1.5),
        ({"name": "replay", "memory": 16}, 1.25),
        ({"name": "derpp"}, 3.0),
        ({"name": "joint"}, 3.0),
        ({"name": "fewer_epochs", "factor": 0.2}, 0.2),
    ],
)
def test_work_counts_the_gradients_of_samples(options, worth):
    assert from_options(Strategy(**options)).steps_worth(64, 2) == pytest.approx(worth)


def test_regression_speaks_of_the_loss(views):
    said = advice.next_sentences(views["regression"])
    assert "loss on average" in said
    assert "%" not in said
    assert "points" not in said


def test_ranking_is_by_the_average_at_the_end(views):
    for view, sign in ((views["finished"], -1), (views["regression"], 1)):
        averages = [sign * one.average for one in strategy_forecasts.ranked(view)]
        assert averages == sorted(averages)


def test_the_best_is_neither_plain_nor_joint_training(views):
    best = strategy_forecasts.best_mitigation(views["finished"].transitions[0], "accuracy_drop")
    assert best is not None
    assert best.name == "replay"
    alone = {"by_strategy": views["finished"].transitions[0]["by_strategy"][::2]}
    assert strategy_forecasts.best_mitigation(alone, "accuracy_drop") is None


def test_without_strategies_nothing_is_said(views):
    bare = {"task": 1, "old": [], "new": {"forecast": None, "measured": None}}
    assert strategy_forecasts.foreseen(bare, "accuracy_drop") == []
    view = replace(views["finished"], result={"transitions": [bare]})
    assert advice.choice(view) == []
    assert advice.next_sentences(view) == ""
    assert advice.next_table(view) is None


def test_the_figure_has_a_row_per_strategy_and_task(views):
    figure = strategies.strategy_figure(views["finished"])
    assert figure is not None
    assert len(figure.table.rows) == 6
    assert figure.table.rows[0][2].text == "joint (upper reference)"
    assert "ends with the best average" in figure.alt


def test_a_strategy_that_came_to_nothing_is_listed_and_leaves_the_mean(views):
    view = deepcopy(views["finished"])
    lost = {"value": None, "stderr": None, "interval": None, "status": "diverged", "note": "NOTE"}
    entry = view.result["transitions"][1]["by_strategy"][1]
    for old in entry["old"]:
        old["forecast"] = {
            kind: old["forecast"][kind] | lost for kind in ("accuracy_drop", "loss_increase")
        }
    figure = strategies.strategy_figure(view)
    assert figure is not None
    assert "EWC, strength = 100.0 for 1 of 2 new tasks" in figure.caption
    row = figure.table.rows[-1]
    assert (row[2].text, row[4].status, row[4].note) == (
        "EWC, strength = 100.0",
        "diverged",
        "NOTE",
    )
    assert "EWC, strength = 100.0" not in [one.label for one in strategy_forecasts.ranked(view)]
