"""How good are forecasts of forgetting, on transitions that nothing was fitted to?

Grid: scikit-learn digits and Gaussian classes; pairs of tasks (permuted pixels, rotations, permuted
labels, noise, split classes with one head and with a head each, moved classes) and sequences of ten
tasks (`score_pairs.py`); MLPs of three widths and depths, a CNN, a small transformer; SGD,
momentum, Adam; 10, 20 and 40 epochs; five seeds; drawn by a hash of names (`score_design.py`). The
development half has made the engine's constants, the corpus behind the calibrated intervals, the
learned correction, and the lines of predictors without a unit. The held-out half has other pairs,
written down before anything was trained on them.

    truth    trains A, then B in two data orders, and under six strategies for some of the pairs
    predict  asks every predictor before B is trained; `--columns engine --again` asks one anew;
             on the development half only what the corpus and the lines need
    table    scores them, with bootstrap intervals over whole pairs

    python benchmarks/forecast/score.py --grid small|full [--half development|held-out|both]
        [--phase truth|predict|table|all] [--columns NAMES] [--jobs N] [--cache DIR] [--save]

Networks and outcomes are kept in the cache folder (`~/.cache/capacity/score`, or --cache), one file
each, so that every phase can be stopped and goes on where it was. Tables show the held-out half, or
that of --half. `--save` writes results/score.txt, score.json and the figures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from score_cells import collect
from score_design import DEVELOPMENT, GRIDS, HELD_OUT, part_of, units
from score_predict import names_of, predictions
from score_table import write
from score_truth import default_cache, truth

RESULTS = Path(__file__).parent / "results"
HALVES = (DEVELOPMENT, HELD_OUT, "both")
_SAVED = (
    "stream", "half", "network", "optimizer", "epochs", "seed", "transition", "old_accuracy",
    "drop", "drop_again", "rise", "rise_again", "new_accuracy",
)  # fmt: skip


def compact(cells: list[dict], scores: dict[str, object]) -> str:
    """Write the scores, and the cells as columns, one row per line.

    Args:
        cells: The cells scored.
        scores: What the table shows.

    Returns:
        JSON.
    """
    names = sorted({name for cell in cells for name in cell["said"]})

    def number(value: float | None) -> float | None:
        return float(f"{value:.4g}") if isinstance(value, float) else value

    columns = [*_SAVED, *(f"{name} {part}" for name in names for part in ("drop", "rise"))]
    rows = [
        json.dumps([
            *(number(cell[key]) for key in _SAVED),
            *(number(cell["said"].get(n, {}).get(p)) for n in names for p in ("drop", "rise")),
        ])
        for cell in cells
    ]
    rounded = json.loads(json.dumps(scores), parse_float=lambda text: number(float(text)))
    head = json.dumps({**rounded, "columns": columns})[:-1]
    return f'{head},\n"rows": [\n' + ",\n".join(rows) + "\n]}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grid", choices=GRIDS, default="small")
    parser.add_argument("--half", choices=HALVES, default="both")
    parser.add_argument("--phase", choices=("truth", "predict", "table", "all"), default="all")
    parser.add_argument("--columns", default="all", help="predictors to ask, with commas between")
    parser.add_argument("--again", action="store_true", help="ask these columns anew")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}/score.*")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    part, every = part_of(), units(asked.grid)
    wanted = [u for u in every if asked.half in {"both", part[u.stream.name]}]
    if asked.phase in {"truth", "all"}:
        truth(asked.cache, wanted, jobs=asked.jobs)
    if asked.phase in {"predict", "all"}:
        columns = names_of(asked.columns)
        predictions(asked.cache, wanted, columns, jobs=asked.jobs, again=asked.again)
    if asked.phase not in {"table", "all"}:
        return
    half = DEVELOPMENT if asked.half == DEVELOPMENT else HELD_OUT
    cells = collect(asked.cache, every, correct=half)
    text, scores = write(cells, half)
    print(text)
    if asked.save:
        from score_figures import calibration, scatter

        RESULTS.mkdir(exist_ok=True)
        scored = [cell for cell in cells if cell["half"] == half]
        (RESULTS / "score.txt").write_text(text + "\n")
        (RESULTS / "score.json").write_text(compact(scored, scores))
        scatter(scored, RESULTS / "score-scatter.svg")
        calibration(scored, RESULTS / "score-calibration.svg")


if __name__ == "__main__":
    main()
