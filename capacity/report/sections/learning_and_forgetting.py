"""Scores after every task and along the training, and what was forgotten of each."""

from __future__ import annotations

from collections.abc import Iterator

from capacity.records.numbers import number, plural
from capacity.report.blocks import Absent, Block, Fold, Section
from capacity.report.forgetting import forgetting_figure, forgetting_tables
from capacity.report.learning import curve_figure, matrix_figure, train_figure
from capacity.results.view import RunView, pick


def _content(view: RunView) -> Iterator[Block | None]:
    yield matrix_figure(view) or Absent("No task was learned.")
    epochs = plural(len(view.rows), "epoch")
    yield Fold(f"Every task's score along the training, over {epochs}", [curve_figure(view)])
    yield Fold(_forgotten(view), [forgetting_figure(view), *forgetting_tables(view)], "forgetting")
    losses = [row["train_loss"] for row in view.rows if row.get("train_loss") is not None]
    if losses:
        yield Fold(f"The training loss ends at {number(losses[-1], 2)}", [train_figure(view)])


def _forgotten(view: RunView) -> str:
    scale, unit = (100.0, " points") if view.classifies else (1.0, "")
    final = view.result.get("final")
    last, most = pick(final, "forgetting_last"), pick(final, "forgetting_max")
    if last is None or last.value is None or most is None or most.value is None:
        return "Forgetting, task by task"
    return (
        f"Mean forgetting: {number(scale * last.value, 2)}{unit} since each task was learned, "
        f"{number(scale * most.value, 2)} since its best"
    )


SECTION = Section("accuracy", "Learning and forgetting", _content)
