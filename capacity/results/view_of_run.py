"""From a run directory to the record that reports and comparisons read."""

from __future__ import annotations

from typing import cast

from capacity.results.reader import RunReader
from capacity.results.schema import Result
from capacity.results.view import RunView


def view_of(run: RunReader) -> RunView:
    """Read everything that a report shows.

    Args:
        run: The run.

    Returns:
        Its content.

    Raises:
        ValueError: If one of its files cannot be read.
    """
    try:
        recipe, text = run.fields(), run.recipe_text()
    except ValueError as error:
        raise ValueError(f"run = {str(run.path)!r}: {error}") from None
    return RunView(
        result=cast(Result, run.result()),  # checked when it was read
        recipe=recipe,
        recipe_text=text,
        env=run.environment(),
        status=run.status(),
        rows=run.metrics(),
        log_volume_steps=run.log_volume_steps(),
        verified=run.verified,
    )
