"""What the journal says about a run that goes on: its rows so far, and the paths it still needs."""

from __future__ import annotations

from typing import Any

from capacity.recipe.config import Measure
from capacity.runs.journal import Journal


def rows_so_far(journal: Journal, tasks: int) -> list[dict[str, Any]]:
    """Gather the rows of metrics.jsonl that belong to what is done.

    Args:
        journal: The run's records.
        tasks: How many tasks the run has.

    Returns:
        The rows, in order; those that were written after the last record are left out.
    """
    rows: list[dict[str, Any]] = []
    for i in range(tasks):
        kept = journal.record(f"task{i}.learned") or journal.record(f"task{i}.inside")
        rows += kept["rows"] if kept else []
    return rows


def path_needed(journal: Journal, task: int, tasks: int, measure: Measure) -> bool:
    """Say whether a stage that is not done yet reads the trajectory of a task.

    Args:
        journal: The run's records.
        task: The task, learned.
        tasks: How many tasks the run has.
        measure: What it measures.

    Returns:
        Whether the trajectory has to be walked again.
    """
    ends = [journal.record(f"task{k}.learned") for k in range(tasks)]
    lost = [k for k, end in enumerate(ends) if end is not None and end["diverged"] is not None]
    last = lost[0] if lost else tasks - 1  # the last task that is learned, or tried
    return (
        f"task{task}.spectrum" not in journal
        or any(f"task{k}.capacity" not in journal for k in range(task + 1, last + 1))
        or (measure.composed_spectrum and "composed" not in journal)
    )
