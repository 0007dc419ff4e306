"""Tables: of plain entries, with the notes of their estimates as footnotes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from capacity.records.estimate import Estimate
from capacity.records.number_format import (
    PERCENT,
    POINTS,
    Cell,
    cell,
    correlation,
    header_cell,
    text_cell,
)
from capacity.records.numbers import MINUS, MISSING, number, plural
from capacity.results.schema import Transition
from capacity.results.view import Record, RunView, forecast_mean, measured_mean, pick

CELLS = 500
"""Cells of a table with something per task: a report of two hundred tasks has thirty tables."""
_PAIRS = CELLS // 4
"""Rows of a table of pairs of tasks: two hundred tasks have twenty thousand."""

_MARKS = "†‡§¶‖*"
_NUMBER = re.compile(
    r"(?<![\w.])(?P<value>[-\u2212]?\d+(?:\.\d+)?)(?: \u00b1 \d+(?:\.\d+)?)?(?![\w\u207b])"
)
"""A number in a note, with its error: what ten notes of the same words differ in."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table.

    Attributes:
        caption: What it lists.
        columns: Head of every column; `::` parts it into a group and a name.
        rows: Entries, one tuple per row.
        remark: A sentence below it.
        id: Anchor in the page; empty for none.
        anchors: Anchors of the rows; empty for none.
        stacks: Whether its rows become blocks on a telephone, each entry under its head; else the
            table is scrolled.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    remark: str = ""
    id: str = ""
    anchors: Sequence[str] = ()
    stacks: bool = False

    @property
    def notes(self) -> list[tuple[str, str]]:
        """Footnotes: mark and text, in the order of their first use."""
        return [(_mark(k), _merged(texts)) for k, texts in enumerate(self._notes().values())]

    def mark(self, entry: Cell) -> str:
        """Find the footnote mark of an entry.

        Args:
            entry: An entry of this table.

        Returns:
            The mark; empty if it has no note.
        """
        return _mark(list(self._notes()).index(_words(entry))) if entry.note else ""

    def _notes(self) -> dict[str, list[str]]:
        """Collect the notes by their words: ten that differ in a count are one footnote."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            for entry in row:
                if entry.note:
                    found.setdefault(_words(entry), []).append(_note(entry))
        return found

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Column groups with their widths; empty when no column is in one."""
        if not any("::" in column for column in self.columns):
            return []
        made: list[tuple[str, int]] = []
        for column in self.columns:
            group = column.rpartition("::")[0]
            if made and made[-1][0] == group:
                made[-1] = (group, made[-1][1] + 1)
            else:
                made.append((group, 1))
        return made

    @property
    def heads(self) -> list[str]:
        """Names of the columns, without their groups."""
        return [column.rpartition("::")[2] for column in self.columns]


@dataclass(frozen=True, kw_only=True)
class TaskTable(Table):
    """A table whose rows are as many as there are tasks: of very many it has some, and says so."""

    def __post_init__(self) -> None:
        """Leave rows out, evenly."""
        kept = evenly(len(self.rows), rows_of(len(self.columns)))
        if len(kept) == len(self.rows):
            return
        said = f"{len(kept)} of {len(self.rows)} rows; all are in result.json."
        changed = {
            "rows": [self.rows[k] for k in kept],
            "anchors": [self.anchors[k] for k in kept] if self.anchors else self.anchors,
            "remark": f"{self.remark} {said}".strip(),
        }
        for name, value in changed.items():
            object.__setattr__(self, name, value)


def rows_of(columns: int) -> int:
    """Say how many rows a table of many tasks has.

    Args:
        columns: Its columns.

    Returns:
        The most rows.
    """
    return max(CELLS // columns, 20)


def _mark(k: int) -> str:
    return _MARKS[k % len(_MARKS)] * (k // len(_MARKS) + 1)


def _note(entry: Cell) -> str:
    status = f"{entry.status[0].upper()}{entry.status[1:]}: " if entry.status else ""
    return status + entry.note


def _words(entry: Cell) -> str:
    return _NUMBER.sub("#", _note(entry))


def _merged(texts: Sequence[str]) -> str:
    """Say notes of the same words once, with a range where their numbers differ."""
    columns = zip(*([m[0] for m in _NUMBER.finditer(text)] for text in texts), strict=True)
    ranges = []
    for column in columns:
        plain = [_NUMBER.match(text)["value"] for text in column]  # type: ignore[index]
        low, high = (end(plain, key=_value) for end in (min, max))
        # A range has no one error; one number keeps its own.
        ranges.append(column[0] if low == high else f"{low} to {high}")
    return _NUMBER.sub(lambda _: ranges.pop(0), texts[0])


def _value(text: str) -> float:
    return float(text.replace(MINUS, "-"))


def evenly(count: int, most: int) -> list[int]:
    """Choose so many of a long row of things, evenly, with the first and the last one.

    Args:
        count: How many there are.
        most: How many to choose at most; at least 2.

    Returns:
        Their indices, rising.
    """
    if count <= most:
        return list(range(count))
    return [round(k * (count - 1) / (most - 1)) for k in range(most)]


def some_drawn(count: int, most: int) -> str:
    """Say that a figure shows some of the tasks only.

    Args:
        count: How many there are.
        most: How many are chosen of them, evenly.

    Returns:
        A sentence with a blank behind it; empty where all are shown.
    """
    return f"Of {count} tasks {most} are drawn, chosen evenly. " if count > most else ""


def drop_target(view: RunView) -> tuple[str, float, tuple[float, float] | None]:
    """Say in which quantity forgetting is told: accuracy where there is one, else loss.

    Args:
        view: The run.

    Returns:
        Name of the quantity in the result, its scale in print, and its bounds in print.
    """
    if view.classifies:
        return "accuracy_drop", 100.0, POINTS
    return "loss_increase", 1.0, None


def forecast_table(view: RunView) -> Table:
    """List forecasts against measurements per transition.

    Args:
        view: The run.

    Returns:
        The table.
    """
    target, scale, bounds = drop_target(view)
    new = "accuracy" if view.classifies else "loss"
    what = "Accuracy drop on earlier tasks, points" if view.classifies else "Rise of earlier losses"
    reached = "Accuracy on the new task, %" if view.classifies else "Loss on the new task"
    new_bounds = PERCENT if view.classifies else None
    rows = []
    for transition in view.transitions:
        off = "not forecast" if transition["new"]["forecast"] is None else ""
        open_ = _not_measured(view, transition)
        rows.append((
            header_cell(view.label(transition["task"])),
            cell(
                forecast_mean(transition, target),
                scale=scale,
                interval=True,
                bounds=bounds,
                missing=off,
            ),
            cell(measured_mean(view, transition, target), scale=scale, missing=open_),
            cell(
                pick(transition, "new", "forecast", new),
                scale=scale,
                interval=True,
                bounds=new_bounds,
                missing=off,
            ),
            cell(pick(transition, "new", "measured", new), scale=scale, missing=open_),
            cell(pick(transition, "cost_ratio"), missing=off),
        ))
    return TaskTable(
        id="table-forecast",
        caption="Forecast before training, and what was measured after it",
        columns=(
            "New task",
            f"{what}::forecast",
            f"{what}::measured",
            f"{reached}::forecast",
            f"{reached}::measured",
            "Cost of the forecast, × training",
        ),
        rows=rows,
        remark="Drops are means over all earlier tasks, those already forgotten included. "
        "Forecast: value (90 % interval for one further network). Measured: mean ± standard error "
        "over replicas.",
    )


def room_table(view: RunView) -> Table:
    """List capacity, dimension, the literal criterion and the inefficiency per transition.

    Args:
        view: The run.

    Returns:
        The table.
    """
    rows = []
    for transition in view.transitions:
        literal = transition.get("literal")
        phase = view.phases[transition["task"]]
        open_ = _not_measured(view, transition)
        dimension = transition.get("dimension")
        demand = "no demand" if dimension and dimension.get("no_demand") else ""
        rows.append((
            header_cell(view.label(transition["task"])),
            cell(pick(transition, "capacity", "nats")),
            cell(pick(transition, "capacity", "directions")),
            _demand(pick(transition, "dimension", "stable_rank"), demand),
            _demand(pick(transition, "dimension", "intrinsic"), demand),
            text_cell(_verdict(literal)),
            cell(pick(phase, "thermo", "inefficiency_path"), missing=open_),
            cell(pick(phase, "thermo", "loss_drop_ratio"), missing=open_),
        ))
    missing = [
        f"Task {view.label(transition['task'])}: {transition['note']}"
        for transition in view.transitions
        if transition.get("note")
    ]
    return TaskTable(
        id="table-room",
        caption="Room left by the earlier tasks, need of the new one, and cost of learning it",
        columns=(
            "New task",
            "Room: R_A::nats",
            "Room: R_A::directions",
            "Need: m_B::stable rank",
            "Need: m_B::intrinsic",
            "Literal criterion m_B > R_A",
            "× the speed limit::inefficiency",
            "× the speed limit::T \u0394L over |\u0394\u03b8|²",
        ),
        rows=rows,
        remark=f"P = {number(view.result['model']['parameters'], 6)} parameters; where J "
        "stretches, R_A can exceed P. R_A and m_B are measured on replica 0, before the new task "
        "is trained; the inefficiency afterwards, over replicas. " + " ".join(missing),
    )


def _verdict(literal: Record | None) -> str:
    if literal is None:
        return "not measured"
    said = {"undecided": "undecided", "room left": "does not fire"}
    verdict = str(literal["verdict"])
    return "fires" if literal["fires"] else said.get(verdict, verdict)


def _not_measured(view: RunView, transition: Transition) -> str:
    state = str(view.tasks[transition["task"]]["status"])
    return "" if state == "learned" else state.replace("_", " ")


def _demand(found: Estimate | None, demand: str) -> Cell:
    entry = cell(found)
    return Cell(demand, note=entry.note, numeric=False) if demand else entry


CONTROL_NAMES = {
    "new_task_loss": "new task's loss beforehand",
    "path_bound": "learning time × |g_B|",
    "dimension_stable_rank": "m_B (stable rank) alone",
    "capacity_directions": "R_A (directions) alone",
}
"""Simpler predictors in words, by their names in the result."""


def score_table(view: RunView) -> Table:
    """Hold the forecast and the simpler predictors against what was measured.

    Args:
        view: The run.

    Returns:
        The table.
    """
    scores: Record = view.result.get("scores") or {}
    targets: tuple[tuple[str, float, str], ...] = (("loss_increase", 1.0, "Rise of loss"),)
    if view.classifies:
        targets = (("accuracy_drop", 100.0, "Drop of accuracy"), *targets)
    columns = ["Predictor"]
    forecast: list[Cell] = [header_cell("forecast")]
    for target, scale, title in targets:
        unit = ", points" if scale == 100.0 else ""
        columns += [f"{title}::Spearman", f"{title}::R²", f"{title}::mean error{unit}"]
        score = scores.get(target)
        forecast += [
            _correlation(pick(score, "spearman")),
            cell(pick(score, "r2")),
            cell(pick(score, "mean_error"), scale=scale),
        ]
    rows: list[Sequence[Cell]] = [forecast]
    for name, score in (scores.get("controls") or {}).items():
        row = [header_cell(CONTROL_NAMES.get(name, name.replace("_", " ")))]
        for target, _, _ in targets:
            row += [_correlation(pick(score, target)), Cell(MISSING), Cell(MISSING)]
        rows.append(row)
    for name, errors in (scores.get("guesses") or {}).items():
        row = [header_cell(name.replace("_lost", " is lost"))]
        for target, scale, _ in targets:
            row += [Cell(MISSING), Cell(MISSING), cell(pick(errors, target), scale=scale)]
        rows.append(row)
    return TaskTable(
        id="table-scores",
        caption=f"How well each predictor ranks {plural(scores.get('pairs', 0), 'pair')} of a new "
        "and an old task",
        columns=columns,
        rows=rows,
        remark="The simpler predictors are in units of their own: only their ranks can be "
        "compared. R_A would have to correlate negatively.",
    )


def _correlation(found: Estimate | None) -> Cell:
    entry = cell(found)
    return entry if found is None else Cell(correlation(found), entry.status, entry.note)


def pair_table(view: RunView, target: str) -> Table:
    """List forecast and measured forgetting of every pair of a new and an old task.

    Args:
        view: The run.
        target: `accuracy_drop` or `loss_increase`.

    Returns:
        The table.
    """
    scale, bounds = (100.0, POINTS) if target == "accuracy_drop" else (1.0, None)
    every = [(transition, old) for transition in view.transitions for old in transition["old"]]
    shown = evenly(len(every), _PAIRS)
    rows = [
        (
            header_cell(view.label(transition["task"])),
            text_cell(view.label(old["task"])),
            cell(pick(old["forecast"], target), scale=scale, interval=True, bounds=bounds),
            cell(pick(old["measured"], target), scale=scale),
        )
        for transition, old in (every[k] for k in shown)
    ]
    left = len(every) - len(shown)
    unit = "points" if scale == 100.0 else "loss"
    return TaskTable(
        caption="Every pair of a new and an old task",
        columns=("New task", "Old task", f"Forecast, {unit}", f"Measured, {unit}"),
        rows=rows,
        remark=f"{len(shown)} of {len(every)} pairs; all are in result.json." if left else "",
    )


def eps_table(view: RunView) -> Table | None:
    """List R_A at every scale, where more than one was asked for.

    Args:
        view: The run.

    Returns:
        The table; None for one scale.
    """
    rows = [
        (
            header_cell(view.label(transition["task"])),
            Cell(number(at["eps"])),
            cell(pick(at, "nats")),
            cell(pick(at, "directions")),
        )
        for transition in view.transitions
        if (measured := transition.get("capacity"))
        for at in measured["by_eps"]
    ]
    if len(rows) <= len(view.transitions):
        return None
    return TaskTable(
        id="table-eps",
        caption="R_A depends on the scale \u03b5 below which a direction does not count",
        columns=("New task", "\u03b5", "R_A, nats", "R_A, directions"),
        rows=rows,
    )
