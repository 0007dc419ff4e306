"""The page of `geometries.py`: one table per task sequence, and what it says, computed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import spearmanr

from capacity.records.number_format import Cell, cell, header_cell, text_cell
from capacity.records.numbers import plural
from capacity.report.blocks import Block, Section
from capacity.report.shell import sections_page
from capacity.report.tables import Table
from capacity.results.view import pick

RECORD = Path(__file__).parent / "results" / "geometries.json"
NOISE = RECORD.with_name("noisy_limit.json")
PAGE = Path(__file__).parents[2] / "reports" / "geometries.html"
_CHANCE = 0.05
"""Probability of a rank correlation by chance, above which it says nothing."""
_HOW = (
    "Every method learns the same tasks with the same networks, data order and number of steps, at "
    "a rate of its own at which it learns the new task. Efficiency is the least cost over the cost "
    "in the method's own geometry, from 0 to 1; Langevin noise, steps in a metric that is not "
    "flat, and beliefs under a strategy have none."
)


class Row(NamedTuple):
    """A cell of the study.

    Attributes:
        method: Optimiser and geometry.
        strategy: Against forgetting.
        accuracy: On all tasks at the end.
        new: On every task when it was new.
        forgotten: Accuracy lost since then.
        efficiency: Least cost over cost; None where it is not defined.
        seconds: Processor time of the trainings.
    """

    method: str
    strategy: str
    accuracy: float
    new: float
    forgotten: float
    efficiency: float | None
    seconds: float


def said(rows: Sequence[Row]) -> list[str]:
    """Say what a table shows.

    Args:
        rows: Its cells.

    Returns:
        Sentences.
    """
    best = max(rows, key=lambda row: row.accuracy)
    naive = [row for row in rows if row.strategy == "naive"]
    spread = max(r.forgotten for r in naive) - min(r.forgotten for r in naive)
    gain = max(
        max(r.accuracy for r in rows if r.method == one.method) - one.accuracy for one in naive
    )
    known = [row for row in naive if row.efficiency is not None]
    # Who learned less has less to forget: the share of it counts.
    lost = [r.forgotten / r.new for r in known]
    rank, chance = spearmanr([r.efficiency for r in known], lost)
    if chance > _CHANCE:
        verdict = "neither is seen to go with the other"
    else:
        verdict = f"a cheaper way forgets {'less' if rank < 0 else 'more'}"
    return [
        f"Best at the end: {best.method} with {best.strategy}, {best.accuracy:.3f}.",
        f"Without a strategy the {plural(len(naive), 'method')} forget amounts that lie "
        f"{spread:.2f} apart; a strategy adds up to {gain:.2f} of accuracy to one of them.",
        "Efficiency against the share forgotten of what was new, without a strategy, over "
        f"{plural(len(known), 'method')}: Spearman {rank:.2f} (p = {chance:.2f}), so {verdict}.",
    ]


def _cells(row: Row) -> tuple[Cell, ...]:
    share = "\u2013" if row.efficiency is None else f"{row.efficiency:.3f}"
    numbers = (f"{row.accuracy:.3f}", f"{row.new:.3f}", f"{row.forgotten:.3f}", share)
    return (
        header_cell(row.method),
        *map(text_cell, (row.strategy, *numbers, f"{row.seconds:.1f}")),
    )


def _section(tasks: str, rows: Sequence[Row]) -> Section[Any]:
    columns = ("Method", "Strategy", "Accuracy", "When new", "Forgotten", "Efficiency", "Seconds")
    table = Table(
        id=f"table-{tasks}",
        caption=f"{tasks}: optimisers, geometries, noise and strategies",
        columns=columns,
        rows=[_cells(row) for row in rows],
    )
    blocks: list[Block | None] = [*said(rows), table]
    return Section(tasks, tasks, lambda _: blocks)


def _noise(rows: Sequence[dict[str, Any]]) -> Section[Any]:
    told = {str(row["verdict"]) for row in rows}
    table = Table(
        id="table-noise",
        caption="Langevin training of an ensemble from one point, against the limit with noise",
        columns=("Temperature", "Spent, nats", "Least, nats", "Efficiency", "Verdict"),
        rows=[
            (
                header_cell(f"{row['temperature']:g}"),
                *(cell(pick(row, name)) for name in ("spent", "least", "efficiency")),
                text_cell(row["verdict"]),
            )
            for row in rows
        ],
        remark="Spent is the learning time times the mean squared slope over four temperatures; "
        "the least is the divergence from free diffusion of whatever ends in the same law. Below "
        "0, the bound of the entropy says nothing.",
    )
    said = f"At {plural(len(rows), 'temperature')} the limit is {' or '.join(sorted(told))}."
    return Section("noise", "Noise: the speed limit of Langevin training", lambda _: [said, table])


def write(path: Path = PAGE) -> None:
    """Write the page from the committed record.

    Args:
        path: Where to.
    """
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    tables = {tasks: [Row(**row) for row in rows] for tasks, rows in record["tables"].items()}
    noise = json.loads(NOISE.read_text(encoding="utf-8"))
    html = sections_page(
        [*(_section(tasks, rows) for tasks, rows in tables.items()), _noise(noise)],
        None,
        title="Geometries of learning \u2013 capacity",
        name="Geometries of learning",
        state=("finished", f"{sum(map(len, tables.values()))} ways of learning"),
        lines=["Which way of learning forgets less, and what does it pay?", _HOW],
        warnings=[],
        footer=record["conditions"],
    )
    path.write_text(html, encoding="utf-8")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    write()
