"""Build the corpus that ships with the package, and decide about the learned correction.

The development half of the scored grid alone: per transition, and under every strategy that was
trained, what the engine said for 5 % of the training and what training did. A learned correction is
used only if it errs less than the physics alone on pairs of tasks, kinds of data *and*
architectures that it has not seen; the trial is printed and kept with the corpus.

    python benchmarks/forecast/corpus.py [--cache DIR] [--save]

needs the truth and the engine's column of `score.py --grid full --half development`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from score_cells import ENGINE, collect
from score_design import DEVELOPMENT, STRATEGIES, units
from score_predict import BUDGET
from score_truth import default_cache

from capacity.forecasting import calibration
from capacity.forecasting.corrector import CANDIDATES, Trial, attempt

FILE = Path(calibration.__file__).parent / "corpus.json"
PLAN = ("optimizer", "epochs", "steps", "samples", "parameters")
GROUPS = {"pair of tasks": "pair", "kind of data": "family", "architecture": "architecture"}


def rows(cells: Sequence[dict]) -> Iterator[dict[str, object]]:
    """List forecasts within the budget beside what was measured.

    Args:
        cells: Cells of the development half.

    Yields:
        A row per transition, and one per strategy trained there.
    """
    for cell in cells:
        said = cell["said"].get(ENGINE)
        if said is None:
            continue
        cases = [("naive", said, {q: cell[q] for q in calibration.QUANTITIES})]
        for name, outcome in cell["strategy_outcomes"].items():
            under = {q: outcome[q][0] for q in calibration.QUANTITIES}
            if not outcome["diverged"]:
                cases.append((STRATEGIES[name]["name"], said["strategies"][name], under))
        for name, forecast, measured in cases:
            row = {
                "pair": cell["stream"], "family": cell["family"], "strategy": name,
                "architecture": cell["architecture"], **{key: cell[key] for key in PLAN},
            }  # fmt: skip
            for quantity in calibration.QUANTITIES:
                for key in (quantity, f"{quantity}_half"):
                    row[key] = forecast.get(key)
                row[f"measured_{quantity}"] = measured[quantity]
            if forecast.get("asked") == BUDGET and None not in row.values():
                yield row


def decide(found: Sequence[dict]) -> dict[str, Trial]:
    """Try the corrections.

    Args:
        found: Rows without a strategy.

    Returns:
        The trial of each quantity.
    """
    groupings = {kind: [row[key] for row in found] for kind, key in GROUPS.items()}
    made = {}
    for name in calibration.CORRECTED:
        X, physics, measured = calibration.table(found, name)
        made[name] = attempt(name, X, physics, measured, groupings)
    return made


def report(found: Sequence[dict], trials: dict[str, Trial]) -> str:
    """Write what was decided.

    Args:
        found: All rows.
        trials: The trials.

    Returns:
        The text.
    """
    plain = [row for row in found if row["strategy"] == "naive"]
    pairs = len({row["pair"] for row in plain})
    lines = [
        f"Corpus: {len(plain)} transitions of {pairs} pairs and sequences, "
        f"{len(found) - len(plain)} more under a strategy; engine at a budget of {BUDGET:g}",
        "Learned correction, root mean square error left on what was left out:",
        f"{'':<8}{'unseen':<16}" + "".join(f"{n:>12}" for n in ("physics", *CANDIDATES)),
    ]
    for quantity, trial in trials.items():
        for kind, errors in trial.errors.items():
            numbers = "".join(f"{errors[n]:>12.4f}" for n in ("physics", *CANDIDATES))
            lines.append(f"{quantity:<8}{kind:<16}{numbers}")
        lines.append(f"{quantity:<8}used: {trial.used or 'none, the physics alone'}")
    return "\n".join(lines)


def compact(found: Sequence[dict], trials: dict[str, Trial]) -> str:
    """Write the corpus as columns, one row per line.

    Args:
        found: The rows.
        trials: The trials.

    Returns:
        JSON.
    """

    def short(value: object) -> object:
        return float(f"{value:.4g}") if isinstance(value, float) else value

    head = json.dumps({
        "about": "Made by benchmarks/forecast/corpus.py from the development half of score.py",
        "budget": BUDGET,
        "corrector": {name: trial.used for name, trial in trials.items()},
        "trials": {
            name: {
                kind: {n: short(e) for n, e in errors.items()} for kind, errors in t.errors.items()
            }
            for name, t in trials.items()
        },
        "columns": list(found[0]),
    })[:-1]
    body = ",\n".join(json.dumps([short(value) for value in row.values()]) for row in found)
    return f'{head},\n"rows": [\n{body}\n]}}\n'


def unseen(corpus: calibration.Corpus, name: str) -> float:
    """Leave every pair out in turn, and see how often the intervals of the others cover it.

    Args:
        corpus: The corpus.
        name: The quantity.

    Returns:
        The share of transitions covered.
    """
    inside = []
    plain = [row for row in corpus.rows if row["strategy"] == "naive"]
    for pair in dict.fromkeys(row["pair"] for row in plain):
        rest = tuple(row for row in plain if row["pair"] != pair)
        others = calibration.Corpus(rest, corpus.budget, corpus.corrector)
        model = others.conformal(name, mitigated=False)
        for row in (row for row in plain if row["pair"] == pair):
            value = others.corrected(name, row, "naive")
            asked = calibration.conformal_row(value, row[f"{name}_half"], row["steps"])
            low, high = model.predict_interval([asked], 0.9)[0]
            inside.append(low <= row[f"measured_{name}"] <= high)
    return float(np.mean(inside))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--save", action="store_true", help=f"write capacity's {FILE.name}")
    asked = parser.parse_args()
    cells = [c for c in collect(asked.cache, units()) if c["half"] == DEVELOPMENT]
    # What the package reads is rounded: the decision is made on the same numbers.
    found = [
        {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()}
        for row in rows(cells)
    ]
    trials = decide([row for row in found if row["strategy"] == "naive"])
    print(report(found, trials))
    corpus = calibration.corpus_of(json.loads(compact(found, trials)))
    for name in calibration.QUANTITIES:
        model = corpus.conformal(name, mitigated=False)
        print(
            f"{name:<14}expected error: sqrt(half-width^2 + {model.floor_:.3g}^2 + "
            f"({model.share_:.3g} x forecast)^2) steps^{model.slopes_[0] / math.log(10):.2f}, "
            f"times {model.stretch(0.9):.3g}; covers {unseen(corpus, name):.3f} of cells of unseen "
            "pairs (left out in turn; 0.9 wanted)"
        )
    if asked.save:
        FILE.write_text(compact(found, trials))
        print(f"wrote {FILE.name}, {FILE.stat().st_size / 1000:.0f} kB; rows: {len(found)}")


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
