"""Strategies as they were forecast: said, ranked and drawn; plain and joint training are none."""

from __future__ import annotations

from copy import deepcopy

import pytest

from capacity.report import strategies, strategy_forecasts
from capacity.report.page import read
from capacity.report.sentences import transition_sentence
from report.fabricated_run import write


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {case: read(write(folder / case, case)) for case in ("finished", "regression")}


def test_the_sentence_names_the_best_strategy_with_its_cost(views):
    view = views["finished"]
    said = [transition_sentence(view, t) for t in view.transitions]
    assert "Replay was forecast to win back 10.0 (8.0 to 12.0) points on them." in said[0]
    assert "EWC, strength = 100.0 was forecast to cost 6.0 (4.0 to 8.0)." in said[1]
    assert not any("joint" in one.lower() for one in said)


def test_regression_speaks_of_the_loss(views):
    view = views["regression"]
    said = transition_sentence(view, view.transitions[1])
    assert "Under EWC, strength = 100.0 it was forecast to rise by 0.180 (0.160 to 0.200)." in said
    assert "points" not in said


def test_ranking_is_by_the_average_at_the_end(views):
    for view, sign in ((views["finished"], -1), (views["regression"], 1)):
        averages = [sign * average for _, _, average in strategy_forecasts.ranked(view)]
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
    assert strategy_forecasts.strategy_sentence(views["finished"], bare) == ""


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
    assert "EWC, strength = 100.0" not in [label for label, _, _ in strategy_forecasts.ranked(view)]
