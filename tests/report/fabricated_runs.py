"""Many run directories made up for comparisons: variants, seeds, runs that did not finish."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from report.fabricated_run import write

EWC = {"training": {"strategy": {"name": "ewc", "strength": 10.0}}}


def seeded(folder: Path, seed: int, accuracy: float, case: str = "finished", **recipe: Any) -> Path:
    """Write a run whose final mean accuracy is given; everything else is the case's.

    Args:
        folder: Where; it is made.
        seed: Seed of its recipe.
        accuracy: Final mean accuracy.
        case: One of `fabricated_run.CASES`.
        **recipe: Top-level fields of the recipe to change.

    Returns:
        The folder.
    """
    write(folder, case, **{"name": "made up", **recipe}, seed=seed)
    path = folder / "result.json"
    if path.is_file():
        result = json.loads(path.read_text())
        result["seed"] = seed
        result["final"]["accuracy"]["value"] = accuracy
        result["final"]["forgetting_last"]["value"] = 1 - accuracy
        path.write_text(json.dumps(result))
    return folder


def two_variants(folder: Path) -> Path:
    """Write naive (3 seeds, 0.6 to 0.8), ewc (2 seeds, about 0.9) and three that did not finish.

    Args:
        folder: Where; it is made.

    Returns:
        The folder.
    """
    for seed, accuracy in enumerate((0.6, 0.7, 0.8)):
        seeded(folder / f"naive-{seed}", seed, accuracy)
    seeded(folder / "naive-3", 3, 0.1, "diverged")
    seeded(folder / "naive-4", 4, 0.1, "stopped_early")
    for seed, accuracy in enumerate((0.91, 0.92)):
        seeded(folder / f"ewc-{seed}", seed, accuracy, **EWC)
    seeded(folder / "ewc-2", 2, 0.1, "interrupted", **EWC)
    return folder
