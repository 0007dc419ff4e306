"""Does the forecast rank strategies against forgetting as training them does?

Task A is learned plainly; then B is forecast under each strategy, before any of them is trained on
B, and then learned natively under each. The strategies rank by the mean accuracy on A and B after
B. All have the same data and seeds; nothing was tuned. They are those of `strategies_check.py`.

Printed per strategy: forecast and measured drop of A's accuracy, accuracy on B, and their mean
(means over seeds); below, Spearman's correlation of the mean over strategies, the strategy that the
forecast names, and what it gives away against the best, in points of mean accuracy. Joint training
is a reference, not a rival: it is left out of the naming. Strategies whose training diverges count
as the worst, forecast or measured.

    python benchmarks/forecast/strategies_forecast.py [--seeds 4] [--save]
"""

from __future__ import annotations

import argparse
import contextlib
import math
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from scipy.stats import spearmanr
from strategies_check import CASES, said

from capacity.base.random_streams import stream_seed
from capacity.forecasting.forecast import forecast_replicas
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.networks.models import build_model
from capacity.recipe import config
from capacity.recipe.config import Recipe, Strategy
from capacity.strategies.mitigation import Mitigation
from capacity.strategies.terms import Source
from capacity.tasks.build import build_tasks
from capacity.tasks.task import Task
from capacity.training.data_order import DataOrder

RESULTS = Path(__file__).parent / "results"
RECIPES = ("split-digits", "split-digits-til", "permuted-digits")


@dataclass(frozen=True)
class Outcome:
    """A's drop, B's accuracy and the mean accuracy, forecast and measured; NaN where diverged."""

    forecast: tuple[float, float, float]
    measured: tuple[float, float, float]


class Pair:
    """Tasks A and B of a recipe, and networks that have learned A."""

    def __init__(self, recipe: Recipe, seeds: int) -> None:
        tasks = build_tasks(recipe.tasks)
        self.recipe, self.seeds = recipe, seeds
        self.old, self.new = tasks.tasks[:2]
        models = [
            FlatModel(
                build_model(
                    recipe.model,
                    tasks.input_shape,
                    tasks.n_outputs,
                    stream_seed(recipe.seed, "init", r),
                )
            )
            for r in range(seeds)
        ]
        self.model, self.start = models[0], torch.stack([m.initial() for m in models])

    def order(self, task: Task, purpose: str) -> DataOrder:
        """Name a data order of its own for training and forecast."""
        return DataOrder(
            samples=len(task.train),
            batch_size=self.recipe.training.batch_size,
            epochs=self.recipe.training.epochs,
            replicas=self.seeds,
            seed=self.recipe.seed,
            path=(purpose, task.name),
        )

    def under(self, options: Strategy) -> Outcome:
        """Forecast, then train."""
        model, training = self.model, self.recipe.training
        mitigation = Mitigation(options, model, Source(self.recipe.seed, ("strategy",)))
        theta = mitigation.learn(
            self.start, self.old, training, self.order(self.old, "order")
        ).theta
        plan = mitigation.plan(self.new, training)
        said = forecast_replicas(
            model, theta, (self.old,), self.new, training, self.order(self.new, "forecast"), plan
        )
        foreseen = (
            said.accuracy_drop.value,
            said.new_accuracy.value,
            said.average_accuracy.value,
        )
        before = evaluate(model, theta, self.old, self.old.test).accuracy
        phase = mitigation.learn(theta, self.new, training, self.order(self.new, "order"))
        if phase.diverged is not None:
            return Outcome(_numbers(foreseen), (math.nan,) * 3)
        kept, reached = (
            evaluate(model, phase.theta, task, task.test).accuracy for task in (self.old, self.new)
        )
        measured = (before - kept, reached, (kept + reached) / 2)
        return Outcome(_numbers(foreseen), tuple(float(m.mean()) for m in measured))


def _numbers(values: tuple[float | None, ...]) -> tuple[float, ...]:
    return tuple(math.nan if v is None else v for v in values)


def verdict(found: dict[str, Outcome]) -> str:
    """Say how well the forecast ranks the strategies, joint training apart."""
    rivals = {name: o for name, o in found.items() if name != "joint"}
    foreseen = [-1.0 if math.isnan(o.forecast[2]) else o.forecast[2] for o in rivals.values()]
    measured = [-1.0 if math.isnan(o.measured[2]) else o.measured[2] for o in rivals.values()]
    named = list(rivals)[foreseen.index(max(foreseen))]
    best = list(rivals)[measured.index(max(measured))]
    lost = 100 * (max(measured) - measured[list(rivals).index(named)])
    rho = float(spearmanr(foreseen, measured).statistic)
    return (
        f"  Spearman over {len(rivals)} strategies {rho:.3f}; forecast names {named!r}, best is "
        f"{best!r}: {lost:.1f} points given away"
    )


def cells(values: tuple[float, ...]) -> str:
    if math.isnan(values[2]):
        return f"{'diverges':>24}"
    return "".join(f"{v:8.3f}" for v in values)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, default=4, help="networks per strategy")
    arguments.add_argument("--save", action="store_true", help="keep the tables in results/")
    chosen = arguments.parse_args()
    lines: list[str] = []

    def say(text: str) -> None:
        lines.append(text)
        print(text, flush=True)

    say(f"torch {torch.__version__}, Python {platform.python_version()}, {chosen.seeds} seeds")
    for name in RECIPES:
        recipe = config.load(name)
        pair = Pair(recipe, chosen.seeds)
        say(f"\n{name}: {pair.old.name}, then {pair.new.name}")
        say(f"  {'':42}{'forecast: drop, new, mean':>26}  {'measured: drop, new, mean':>26}")
        found = {}
        for options in CASES:
            found[said(options)] = made = pair.under(Strategy.model_validate(options))
            say(f"  {said(options):42}  {cells(made.forecast)}    {cells(made.measured)}")
        say(verdict(found))
    if chosen.save:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / "strategies-forecast.txt"
        path.write_text("\n".join(lines) + "\n")
        print(f"wrote {path.name}", file=sys.stderr)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        torch.set_num_threads(1)
        main()
