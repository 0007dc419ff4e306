"""Do forecasts rank what a denoiser forgets? Spearman of forecast and measured rise of its loss.

Runs the recipe `diffusion-digits` under each strategy, and prints over all pairs of an old and a
new task the rank correlation of forecast and measured rise of the old denoising loss, the mean loss
over all tasks at the end, and what a fixed classifier makes of the images generated then.

    OMP_NUM_THREADS=1 python benchmarks/forecast/diffusion.py [--save] [--tasks 10] [--epochs 4]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import capacity
from capacity.recipe import config

RESULT = Path(__file__).parent / "results" / "diffusion.txt"
STRATEGIES: dict[str, dict[str, Any]] = {
    "naive": {"name": "naive"},
    "replay": {"name": "replay"},
    "generative replay": {"name": "generative_replay"},
    "ewc": {"name": "ewc", "fisher": "empirical", "strength": 0.1},
}
HEAD = (
    f"{'strategy':18}{'pairs':>6}{'Spearman':>10}{'loss at end':>13}{'rise':>7}"
    f"{'old images':>12}{'Frechet':>9}{'s':>6}"
)


def row(strategy: str, tasks: int, epochs: int, out: Path) -> str:
    """Run the recipe under a strategy.

    Args:
        strategy: One of `STRATEGIES`.
        tasks: Tasks.
        epochs: Epochs of each.
        out: Where the run goes.

    Returns:
        A row of the table.
    """
    recipe = config.load(
        "diffusion-digits",
        [f"tasks.experiences={tasks}", f"training.epochs={epochs}", "measure.strategies=[]"],
    )
    plan = recipe.training.model_copy(update={"strategy": config.Strategy(**STRATEGIES[strategy])})
    began = time.process_time()
    made = capacity.run(recipe, training=plan, out=out, quiet=True)
    spent = time.process_time() - began
    result = made.result
    rank = result["scores"]["loss_increase"]["spearman"]["value"]
    rise = result["forgetting"]["loss"]["last"][-1]
    risen = [entry["value"] for entry in rise if entry and entry["value"] is not None]
    judged = result["phases"][-1]["generation"]
    return (
        f"{strategy:18}{result['scores']['pairs']:6}{rank:10.2f}{result['final']['loss']['value']:13.2f}"
        f"{sum(risen) / len(risen):7.2f}{judged['share_old']['value']:12.2f}"
        f"{judged['frechet']['value']:9.1f}{spent:6.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name}")
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    lines = [
        f"diffusion-digits, {options.tasks} tasks, {options.epochs} epochs each; old images: share "
        "of generated images taken for an old class at the end",
        f"torch {torch.__version__}, {torch.get_num_threads()} thread; processor time of the run",
        HEAD,
    ]
    with tempfile.TemporaryDirectory() as folder:
        for strategy in STRATEGIES:
            lines.append(row(strategy, options.tasks, options.epochs, Path(folder) / strategy))
            print(lines[-1], flush=True)
    if options.save:
        RESULT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
