"""What level `full` would add to a run that measured less, and how long that would take."""

from __future__ import annotations

from capacity.records.numbers import spell
from capacity.results.view import Record, RunView

_BLOCK = 16
"""Vectors of a pass over a trajectory for its spectrum."""
_PER_PRODUCT = 1.3
"""Gradients that a product with a Hessian costs, by the measured table of products."""


def full_sentence(view: RunView) -> str:
    """Say what level `full` would add, and the most that it would cost.

    Args:
        view: The run.

    Returns:
        One or two sentences.
    """
    said = (
        "Not measured: measure.level=full adds R_A, m_B, the verdicts, J and its spectra, the "
        "dearest parts of a run; the forecasts are the same without."
    )
    seconds = full_seconds(view)
    if seconds is None:
        return said
    return f"{said} At the pace of this run's own steps that takes up to about {spell(seconds)}."


def full_seconds(view: RunView) -> float | None:
    """Estimate the most that level `full` would add.

    Products with the Hessian of a batch are counted, at what a step took for one replica.

    Args:
        view: The run.

    Returns:
        Seconds; None where its steps were not timed.
    """
    learned = [int(task["steps"]) for task in view.tasks if task["status"] == "learned"]
    trained = (view.status.get("seconds") or {}).get("train")
    if not trained or not sum(learned) or not view.recipe.get("measure"):
        return None
    per_product = _PER_PRODUCT * trained / sum(learned) / view.replicas
    return per_product * _products(learned, view.recipe["measure"])


def _products(steps: list[int], measure: Record) -> int:
    """Count the most products that the default effort takes, or the one that was set."""
    watched = measure["tangents"] + measure["log_volume_probes"] * measure["log_volume_nodes"]
    passes = 2 * _BLOCK * measure["sweeps"]
    room = 2 * measure["capacity_probes"] * measure["capacity_nodes"]
    before = sum(count * (len(steps) - 1 - k) for k, count in enumerate(steps))
    return sum(steps) * (watched + passes) + before * room
