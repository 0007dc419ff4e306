"""A report of very many tasks: no figure or table grows with their square, nor much with them."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from capacity.records.number_format import Cell
from capacity.report.blocks import Answer, Fold, figures_in
from capacity.report.cost_over_time import cost_figure
from capacity.report.forgetting import forgetting_tables
from capacity.report.learning import curve_figure, matrix_figure, train_figure
from capacity.report.measure_figures import spectrum_figure, thermo_figure
from capacity.report.prediction import capacity_figure, drop_figure, scatter_figure
from capacity.report.sections import SECTIONS
from capacity.report.sequence_axis import thin
from capacity.report.tables import CELLS, Table, TaskTable, evenly, pair_table
from capacity.results.view import RunView
from report import fabricated_run

COUNT = 90


@pytest.fixture(scope="module")
def view():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fabricated_run, "LONG", COUNT)
        recipe = {"name": "long", "replicas": 4}
        return RunView(
            result=fabricated_run.result(recipe, "long"),
            recipe=recipe,
            rows=fabricated_run.metrics("long"),
        )


def tables_of(blocks):
    for block in blocks:
        if isinstance(block, Answer | Fold):
            yield from tables_of(block.blocks)
        elif isinstance(block, Table):
            yield block
        else:
            yield from (figure.table for figure in figures_in([block]) if figure.table)


def cells(table):
    return sum(map(len, table.rows))


def test_chosen_evenly_with_both_ends():
    assert evenly(5, 40) == [0, 1, 2, 3, 4]
    chosen = evenly(200, 40)
    assert (chosen[0], chosen[-1], len(set(chosen))) == (0, 199, 40)
    gaps = {b - a for a, b in itertools.pairwise(chosen)}
    assert gaps <= {5, 6}


def test_rows_are_thinned_to_the_ends_of_tasks_where_these_are_many():
    rows = [{"task": i, "epoch": k} for i in range(200) for k in range(3)]
    few = thin(rows, 100)
    assert len(few) == 100
    assert {row["epoch"] for row in few} == {2}
    assert {few[0]["task"], few[-1]["task"]} == {0, 199}
    assert thin(rows[:30], 100) == rows[:30]


def test_a_table_of_very_many_rows_has_some_of_them_and_their_anchors():
    rows = [(Cell(str(k)), Cell("")) for k in range(1000)]
    few = TaskTable(
        caption="", columns=("k", ""), rows=rows, anchors=[f"row-{k}" for k in range(1000)]
    )
    assert len(few.rows) == CELLS // 2
    assert [f"row-{row[0].text}" for row in few.rows] == few.anchors
    assert few.remark == f"{CELLS // 2} of 1000 rows; all are in result.json."
    assert TaskTable(caption="", columns=("k", ""), rows=rows[:30]).remark == ""


def test_the_whole_report_has_a_bounded_number_of_cells_and_marks(view):
    blocks = [block for section in SECTIONS for block in section.blocks(view)]
    tables = list(tables_of(blocks))
    assert len(tables) > 20
    assert max(cells(table) for table in tables) <= max(CELLS, 20 * 30)
    for figure in figures_in(blocks):
        sets = figure.spec.get("datasets") or {"rows": figure.spec["data"]["values"]}
        assert sum(map(len, sets.values())) <= 3600, figure.id
        seen = {value for rows in sets.values() for row in rows for value in row.values()}
        for layer in figure.spec["layer"]:
            color = layer["encoding"].get("color", {})
            domain = (color.get("scale") or {}).get("domain") or []
            assert len(domain) <= 24 or set(domain) <= seen, figure.id


def test_losses_of_some_tasks_are_whole_lines(view):
    figure = train_figure(view)
    (rows,) = [rows for rows in figure.spec["datasets"].values() if "task" in rows[0]]
    counts = Counter(row["task"] for row in rows)
    assert len(counts) == 40
    assert min(counts.values()) == 5


def test_the_matrix_is_one_of_blocks_and_means_are_kept(view):
    figure = matrix_figure(view)
    assert "Every cell is the mean over blocks of 3 tasks" in figure.caption
    mean = view.scores("accuracy")["mean"]
    drawn = {(row["after"], row["tested"]): row for row in figure.spec["data"]["values"]}
    assert len(drawn) == 30 * 30
    block = [mean[i][j] for i in (3, 4, 5) for j in (0, 1, 2)]
    assert drawn["tasks 4–6", "tasks 1–3"]["value"] == pytest.approx(100 * sum(block) / 9)
    assert cells(figure.table) <= 25 * 50
    assert f"24 of {COUNT} tasks" in figure.table.remark


@pytest.mark.parametrize(
    "draw", [drop_figure, capacity_figure, thermo_figure, spectrum_figure, curve_figure]
)
def test_a_figure_with_something_per_task_shows_some_of_them(draw, view):
    figure = draw(view)
    assert f"Of {COUNT - (draw in {drop_figure, capacity_figure})} tasks" in figure.caption
    heights = figure.spec.get("height", 0)
    assert heights <= 34 * 40


def test_tables_over_pairs_are_bounded(view):
    for table in (pair_table(view, "accuracy_drop"), *forgetting_tables(view)):
        assert cells(table) <= 1300
        assert (
            f"of {COUNT * (COUNT - 1) // 2} pairs" in table.remark or "of 89 tasks" in table.remark
        )
    assert "250 of 4005 pairs are drawn" in scatter_figure(view, "accuracy_drop").caption


def test_costs_of_very_many_tasks_are_those_at_their_ends(view):
    rows = [dict(row, task=row["task"] % COUNT) for row in view.rows]
    assert "Drawn is the end" not in cost_figure(view).caption
    many = RunView(result=view.result, recipe=view.recipe, rows=rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("capacity.report.cost_over_time._POINTS", 60)
        assert "Drawn is the end of every task" in cost_figure(many).caption
