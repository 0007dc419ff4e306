"""Build the corpus that ships with the package, and decide about the learned correction.

The development half of the scored grid alone: per transition, and under every strategy that was
trained, what the engine said for 5 % of the training and what training did. A learned correction is
used only if it errs less than the physics alone on pairs of tasks, kinds of data *and*
architectures that it has not seen; the trial is printed and kept with the corpus.

    python benchmarks/forecast/corpus.py [--cache DIR] [--jobs 2] [--save]

needs the truth and the engine's column of `score.py --grid full --half development`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from score_cells import ENGINE, collect
from score_design import DEVELOPMENT, STRATEGIES, strategies, units
from score_pairs import LENGTH
from score_predict import BUDGET
from score_truth import default_cache
from sklearn.model_selection import GroupKFold

from capacity.forecasting import corpus
from capacity.forecasting.conformal import GroupedConformal
from capacity.forecasting.corrector import (
    CANDIDATES,
    KEPT,
    Trial,
    attempt,
    corrected,
    left_out,
    residual,
)
from capacity.forecasting.quantities import QUANTITIES, within
from capacity.recipe.config import Strategy

FILE = Path(corpus.__file__).with_suffix(".json")
KINDS = (corpus.PLAIN, corpus.MITIGATED)
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
        cases = [("naive", said, {q: cell[q] for q in QUANTITIES})]
        for name, outcome in cell["strategy_outcomes"].items():
            under = {q: outcome[q][0] for q in QUANTITIES}
            if not outcome["diverged"]:
                cases.append((STRATEGIES[name]["name"], said["strategies"][name], under))
        for name, forecast, measured in cases:
            row = {
                "pair": cell["stream"], "family": cell["family"], "strategy": name,
                "architecture": cell["architecture"], "optimizer": cell["optimizer"],
                **{key: forecast.get(key) for key in KEPT},
            }  # fmt: skip
            for quantity in QUANTITIES:
                row[f"{quantity}_half"] = forecast.get(f"{quantity}_half")
                row[f"measured_{quantity}"] = measured[quantity]
            if forecast.get("asked") == BUDGET and corpus.complete(row):
                yield row


def of_kind(found: Sequence[dict], kind: str) -> list[dict]:
    """List the rows of one kind.

    Args:
        found: The rows.
        kind: `plain` or `mitigated`.

    Returns:
        Its rows.
    """
    return [row for row in found if corpus.kind_of(row["strategy"]) == kind]


def decide(found: Sequence[dict], jobs: int) -> dict[tuple[str, str], Trial]:
    """Try the corrections, for forecasts without a strategy and under one apart.

    Args:
        found: The rows.
        jobs: Processes.

    Returns:
        The trial of each kind and quantity.
    """
    asked = [(kind, name) for kind in KINDS for name in QUANTITIES]
    calls = []
    for kind, name in asked:
        own = of_kind(found, kind)
        groupings = {what: [row[key] for row in own] for what, key in GROUPS.items()}
        calls.append(delayed(attempt)(name, *corpus.table(own, name), groupings))
    return dict(zip(asked, Parallel(jobs)(calls), strict=True))


def unseen(found: Sequence[dict], trials: dict[tuple[str, str], Trial]) -> list[dict]:
    """Add to every row what the correction in use says of it without having seen its pair.

    Args:
        found: The rows.
        trials: The trials.

    Returns:
        The rows.
    """
    made = [dict(row) for row in found]
    for (kind, name), trial in trials.items():
        own = of_kind(made, kind)
        X, physics, measured = corpus.table(own, name)
        if trial.used is not None:
            pairs = [row["pair"] for row in own]
            added = left_out(trial.used, name, X, residual(name, physics, measured), pairs)
            physics = corrected(name, physics, added)
        for row, value in zip(own, physics, strict=True):
            row[f"unseen_{name}"] = within(name, float(value))
    return made


def report(found: Sequence[dict], trials: dict[tuple[str, str], Trial]) -> str:
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
        "Learned correction, root mean square error on what was left out:",
        f"{'':<24}{'unseen':<16}" + "".join(f"{n:>12}" for n in ("physics", *CANDIDATES)),
    ]
    for (kind, quantity), trial in trials.items():
        for (_, group), errors in trial.errors.items():
            numbers = "".join(f"{errors[n]:>12.4f}" for n in ("physics", *CANDIDATES))
            lines.append(f"{f'{quantity}, {kind}':<24}{group:<16}{numbers}")
        used = trial.used or "none, the physics alone"
        lines.append(f"{f'{quantity}, {kind}':<24}used: {used}")
    return "\n".join(lines)


HEAD = {
    "about": "Made by benchmarks/forecast/corpus.py from the development half of score.py",
    "budget": BUDGET,
    "old_tasks": LENGTH - 1,
    "labels": {options.name: options.label for options in (Strategy(), *strategies().values())},
}
"""What the file says of the corpus."""


def compact(
    found: Sequence[dict], trials: dict[tuple[str, str], Trial], head: dict[str, object]
) -> str:
    """Write a corpus as columns, one row per line.

    Args:
        found: The rows.
        trials: The trials.
        head: What the file says of it.

    Returns:
        JSON.
    """

    def short(value: object) -> object:
        return float(f"{value:.4g}") if isinstance(value, float) else value

    first = json.dumps({
        **head,
        "corrector": {
            kind: {name: trials[kind, name].used for name in QUANTITIES} for kind in KINDS
        },
        "columns": list(found[0]),
    })[:-1]
    body = ",\n".join(json.dumps([short(value) for value in row.values()]) for row in found)
    return f'{first},\n"rows": [\n{body}\n]}}\n'


def covered(found: Sequence[dict], name: str, kind: str) -> float:
    """Leave every tenth of the pairs out in turn, and see how often the others' intervals cover.

    Args:
        found: The rows.
        name: The quantity.
        kind: `plain` or `mitigated`.

    Returns:
        The share covered.
    """
    rows = of_kind(found, kind)
    pairs = [row["pair"] for row in rows]
    inputs = np.array([
        corpus.conformal_row(row[f"unseen_{name}"], row[f"{name}_half"], row["steps"])
        for row in rows
    ])
    measured = np.array([row[f"measured_{name}"] for row in rows])
    inside = np.zeros(len(rows), bool)
    for seen, other in GroupKFold(10).split(inputs, measured, pairs):
        model = GroupedConformal().fit(inputs[seen], measured[seen], [pairs[k] for k in seen])
        low, high = model.predict_interval(inputs[other], 0.9).T
        inside[other] = (low <= measured[other]) & (measured[other] <= high)
    return float(inside.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--save", action="store_true", help=f"write capacity's {FILE.name}")
    asked = parser.parse_args()
    cells = [c for c in collect(asked.cache, units()) if c["half"] == DEVELOPMENT]
    build(list(rows(cells)), HEAD, FILE if asked.save else None, asked.jobs)


def build(made: Sequence[dict], head: dict[str, object], file: Path | None, jobs: int) -> None:
    """Decide about the corrections of a corpus, print what it is worth, and write it.

    Args:
        made: Its rows.
        head: What the file says of it.
        file: Where to; None writes nothing.
        jobs: Processes.
    """
    # What the package reads is rounded: the decision is made on the same numbers.
    found = [
        {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()}
        for row in made
    ]
    trials = decide(found, jobs)
    print(report(found, trials))
    found = unseen(found, trials)
    text = compact(found, trials, head)
    known = corpus.corpus_of(json.loads(text))
    for kind in KINDS:
        for name in QUANTITIES:
            model = known.conformal(name, kind)
            print(
                f"{kind} {name}: expected error sqrt(half-width^2 + {model.floor_:.3g}^2 + "
                f"({model.share_:.3g} x forecast)^2) steps^{model.slopes_[0] / math.log(10):.2f}, "
                f"times {model.stretch(0.9):.3g}; covers {covered(found, name, kind):.3f} of cells "
                "of unseen pairs (0.9 wanted)"
            )
    if file is not None:
        file.write_text(text)
        print(f"wrote {file.name}, {file.stat().st_size / 1000:.0f} kB; rows: {len(found)}")


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
