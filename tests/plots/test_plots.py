"""Figures for papers: of every kind of run, with the run's numbers, and no global state touched."""

from __future__ import annotations

import json

import matplotlib as mpl
import pytest

import capacity
from report.fabricated_run import CASES, accuracy, write

DRAWN = [case for case in CASES if case != "stopped_early"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {case: write(folder / case, case) for case in CASES}


@pytest.mark.parametrize("case", DRAWN)
@pytest.mark.parametrize("name", capacity.plots.FIGURES)
def test_every_figure_of_every_run_is_drawn(name, case, runs, tmp_path):
    before = dict(mpl.rcParams)
    figure = capacity.plots.FIGURES[name](runs[case])
    figure.savefig(tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").stat().st_size > 3000
    assert dict(mpl.rcParams) == before
    assert figure.axes


def test_matrix_prints_the_runs_accuracies(runs):
    figure = capacity.plots.accuracy_matrix(capacity.open_run(runs["finished"]))
    said = [text.get_text() for text in figure.axes[0].texts]
    expected = [f"{100 * accuracy(i, j):.0f}" for i in range(3) for j in range(3)]
    assert said == expected


def test_forecast_and_measured_stand_where_they_are(runs):
    axes = capacity.plots.forecast_against_measured(runs["finished"]).axes[0]
    marks = {c.get_label(): c.lines[0].get_ydata() for c in axes.containers}
    # Before task 2 nothing but task 1 was forgotten; every later task costs 12 points each.
    assert marks["measured"] == pytest.approx([12.0, 12.0])
    assert marks["forecast"] == pytest.approx([14.0, 14.0])


def test_unresolved_singular_values_are_open(runs):
    axes = capacity.plots.spectrum(runs["finished"]).axes[0]
    faces = {c.lines[0].get_markerfacecolor() for c in axes.containers}
    assert "white" in faces
    assert sum(len(c.lines[0].get_xdata()) for c in axes.containers) == 3 * 6


def test_many_tasks_take_a_ramp_and_name_its_ends(tmp_path):
    path = write(tmp_path / "long") / "result.json"
    result = json.loads(path.read_text())
    result["phases"] = result["phases"][:1] * 12
    path.write_text(json.dumps(result))
    axes = capacity.plots.spectrum(path.parent).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["task 1", "task 12"]
    assert len({c.lines[0].get_color() for c in axes.containers}) == 12


def test_a_diverged_value_is_left_out(runs):
    left, _ = capacity.plots.thermodynamics(runs["refusals"]).axes
    # Task 2 has no inefficiency, and the loss drop of task 1 is out of its regime.
    by_path, by_loss = left.containers
    assert [round(x) for x in by_path.lines[0].get_xdata()] == [0, 2]
    assert [round(x) for x in by_loss.lines[0].get_xdata()] == [1, 2]


def test_a_users_own_style_does_not_reach_the_figure(runs):
    with mpl.rc_context({"font.size": 30}):
        figure = capacity.plots.spectrum(runs["finished"])
    assert figure.axes[0].xaxis.label.get_size() == 8


@pytest.mark.parametrize(("run", "message"), [(3, "run is a int"), ("/nowhere", "not a run dir")])
def test_no_run_is_a_value_error(run, message):
    with pytest.raises(ValueError, match=message):
        capacity.plots.spectrum(run)


def test_a_run_without_a_learned_task_is_a_value_error(runs):
    with pytest.raises(ValueError, match="learned no task"):
        capacity.plots.accuracy_matrix(runs["stopped_early"])


def test_without_matplotlib_the_extra_is_named(runs, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"capacity\[plots\]"):
        capacity.plots.spectrum(runs["finished"])


def test_learning_curves_are_one_line_per_task_with_the_runs_scores(runs):
    axes = capacity.plots.learning_curves(runs["finished"]).axes[0]
    lines = [line for line in axes.lines if str(line.get_label()).startswith("task")]
    assert [line.get_label() for line in lines] == ["task 1", "task 2", "task 3"]
    assert lines[0].get_ydata()[0] == pytest.approx(100 * accuracy(0, 0))
    assert lines[2].get_ydata()[-1] == pytest.approx(100 * accuracy(2, 2))


def test_cost_along_the_training_keeps_the_order_of_the_bounds(runs):
    left, right = capacity.plots.cost_along(runs["finished"]).axes
    lines = {line.get_label(): line for line in left.lines}
    action, upper, lower = (
        lines[name].get_ydata()[-1]
        for name in ("$T\\,\\Sigma$, action", "$W_2^2$ at most", "$W_2^2$ at least")
    )
    assert action == pytest.approx(4 * 16.0)  # four units of learning time, at an action of 16
    assert action > upper > lower
    assert right.lines
    # One network has no lower bound; an older run recorded nothing of this.
    left, _ = capacity.plots.cost_along(runs["one_replica"]).axes
    assert "$W_2^2$ at least" not in {line.get_label() for line in left.lines}
    left, _ = capacity.plots.cost_along(runs["refusals"]).axes
    assert "recorded no cost" in left.texts[0].get_text()


def test_closure_curves_have_a_threshold_and_a_line_per_next_task(runs):
    axes = capacity.plots.closure_curves(runs["finished"]).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert set(lines) == {"task 2", "task 3", "threshold"}
    assert set(lines["threshold"].get_ydata()) == {5.0}


def test_classes_that_are_not_resolved_are_hollow(runs, tmp_path):
    path = write(tmp_path / "run") / "result.json"
    result = json.loads(path.read_text())
    result["composed"]["density"]["resolved"] = [False, True]
    path.write_text(json.dumps(result))
    axes = capacity.plots.composed_spectrum(path.parent).axes[0]
    bars = [bar for bar in axes.patches if bar.get_height() > 0]
    assert [bar.get_facecolor()[:3] == (1.0, 1.0, 1.0) for bar in bars] == [True, False]


def test_strategies_stand_in_the_order_of_their_average(runs):
    axes = capacity.plots.strategies_ranked(runs["finished"]).axes[0]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    at = dict(zip(labels, axes.get_yticks(), strict=True))
    assert at["joint (upper reference)"] > at["replay"] > at["plain training"]
