"""Which form of the criterion tells forgetting from none, on networks that were really trained?

Grid: scikit-learn digits; 64-W-10 (ReLU), W = 16, 32, 64; plain SGD at 0.1, batches of 64, 3, 10 or
30 epochs for every task; three seeds. Pairs of tasks: permuted pixels, rotations, permuted labels,
noise, split classes with one head and with a head each; and sequences of five tasks, where A is all
tasks so far. Each network is judged before the new task and measured after it, at equal training.

Half of each kind of pairs (by a hash of the names) chose the thresholds and the best measure; the
other half is reported. Intervals: 95 %, bootstrap over whole pairs and sequences.

    python benchmarks/forecast/criterion.py [--cells FILE] [--limit N] [--save]

Finished cells are kept in FILE, so that the grid can be stopped and goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch
from criterion_cells import EPOCHS, WIDTHS, cells, streams, units
from criterion_scores import (
    FORGETS,
    MEASURES,
    auroc,
    balanced_accuracy,
    best_threshold,
    bootstrap,
    coverage_stretch,
    drops,
    halves,
    rank_correlation,
    scores,
)

from capacity.criterion.criterion_verdicts import PREDICTED, UNDECIDED, judge
from capacity.criterion.directional_form import LOST_FLOOR, lost_half_width
from capacity.records.estimate import Estimate

RESULTS = Path(__file__).parent / "results"
GOAL = 0.90
BY_KEY = {measure.key: measure for measure in MEASURES}
FORMS = {"literal": "literal", "kept": "capacity", "cost": "transport cost", "lost": "directional"}
"""The measure by which each form of the package's criterion decides."""


def run_grid(path: Path, limit: int | None) -> list[dict]:
    """Run what is missing of the grid and return every finished cell, in the grid's order."""
    done: dict[str, list[dict]] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            record = json.loads(line)
            done[record["unit"]] = record["cells"]
    path.parent.mkdir(parents=True, exist_ok=True)
    wanted = units()[:limit]
    start = time.perf_counter()
    with path.open("a") as file:
        for number, unit in enumerate(wanted, start=1):
            if unit.key in done:
                continue
            done[unit.key] = list(cells(unit))
            file.write(json.dumps({"unit": unit.key, "cells": done[unit.key]}) + "\n")
            file.flush()
            spent = time.perf_counter() - start
            print(f"{number}/{len(wanted)} {unit.key}, {spent:.0f} s", file=sys.stderr, flush=True)
    return [cell for unit in wanted for cell in done[unit.key]]


def choose(choosing: list[dict]) -> dict[str, object]:
    """Take the thresholds and the best directional measure from the choosing half."""
    forgot = drops(choosing) > FORGETS
    directional = [m for m in MEASURES if m.form == "directional"]
    found = {m.key: auroc(scores(choosing, m), forgot) for m in directional}
    thresholds = {}
    for key in FORMS:
        measure = BY_KEY[key]
        thresholds[key] = measure.sign * best_threshold(scores(choosing, measure), forgot)
    thresholds["literal"] = 0.0  # by definition
    return {
        "thresholds": thresholds,
        "lost_stretch": coverage_stretch(*lost_errors(choosing)),
        "best_directional": max(found, key=lambda key: found[key]),
    }


def lost_errors(part: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the share lost, and the half-widths of its intervals before they are stretched."""
    off = np.array([cell["lost"] - cell["drop"] for cell in part])
    return off, np.array([cell["lost_half"] + LOST_FLOOR for cell in part])


def verdict_counts(held: list[dict], key: str, chosen: dict) -> tuple[int, int, int]:
    """Count right, wrong and undecided verdicts of a form."""
    right = wrong = undecided = 0
    for cell in held:
        value, width = cell[key], cell[f"{key}_half"]
        interval = None if value is None else (value - width, value + width)
        estimate = Estimate(value=value, interval=interval)
        half = lost_half_width(estimate, stretch=chosen["lost_stretch"]) if key == "lost" else None
        cut, above = chosen["thresholds"][key], BY_KEY[key].sign > 0
        verdict = judge(key, estimate, cut, fires_above=above, half_width=half).verdict
        if verdict == UNDECIDED:
            undecided += 1
        elif (verdict == PREDICTED) == (cell["drop"] > FORGETS):
            right += 1
        else:
            wrong += 1
    return right, wrong, undecided


def report(found: list[dict]) -> tuple[str, dict[str, object]]:
    """Write the tables; return them with what the choosing half chose."""
    part = halves({stream.name: stream.family for stream in streams()})
    choosing = [cell for cell in found if part[cell["stream"]] == "choose"]
    held = [cell for cell in found if part[cell["stream"]] == "report"]
    chosen = choose(choosing)
    lines = [_conditions(found, choosing, held), ""]
    lines.append(
        f"{'measure':<14}{'form':<16}{'AUROC choosing':>15}{'AUROC held out':>22}"
        f"{'rank correlation':>24}"
    )
    forgot, drop = drops(held) > FORGETS, drops(held)
    best = None
    rows = [(m.key, m.form, scores(held, m), scores(choosing, m)) for m in MEASURES]
    again = [np.array([c["drop_again"] for c in part]) for part in (held, choosing)]
    rows.append(("(other order)", "ceiling", *again))
    for key, form, score, before in rows:
        area = auroc(score, forgot)
        low, high = bootstrap(held, lambda i, s=score: auroc(s[i], forgot[i]))
        rho = rank_correlation(score, drop)
        left, right = bootstrap(held, lambda i, s=score: rank_correlation(s[i], drop[i]))
        mark = ""
        if key == chosen["best_directional"]:
            best, mark = area, "  <- best directional on the choosing half"
        lines.append(
            f"{key:<14}{form:<16}{auroc(before, drops(choosing) > FORGETS):>15.3f}"
            f"{area:>9.3f} [{low:.3f}, {high:.3f}]{rho:>9.3f} [{left:+.3f}, {right:+.3f}]{mark}"
        )
    assert best is not None
    lines += [
        "(other order): the measured drop of the same network with another data order of the new",
        "task; no forecast made before that order is drawn can beat it by much.",
        "AUROC below 0.5: more of it goes with less forgetting.",
        "",
        "Verdicts on the held-out half, with the thresholds of the choosing half:",
        f"{'form':<16}{'threshold':>10}{'balanced accuracy':>19}{'right':>7}{'wrong':>7}"
        f"{'undecided':>11}",
    ]
    for key, form in FORMS.items():
        cut = chosen["thresholds"][key]
        measure = BY_KEY[key]
        good = balanced_accuracy(scores(held, measure) > measure.sign * cut, forgot)
        right, wrong, undecided = verdict_counts(held, key, chosen)
        lines.append(f"{form:<16}{cut:>10.3g}{good:>19.3f}{right:>7}{wrong:>7}{undecided:>11}")
    off, width = lost_errors(held)
    covered = float((np.abs(off) <= chosen["lost_stretch"] * width).mean())
    lines += [
        f"Share lost against measured drop: root mean square difference "
        f"{np.sqrt((off**2).mean()):.3f}; intervals stretched by {chosen['lost_stretch']:g} (90 % "
        f"of the choosing half) hold {covered:.0%} of the held-out drops.",
        "",
        *_by_family(held),
        "",
        f"Goal: the best directional measure reaches AUROC {GOAL:.2f} on the held-out half: "
        f"{best:.3f}, {'reached' if best >= GOAL else 'NOT reached'}.",
    ]
    ratio = np.median([cell["verdict_s"] / cell["training_s"] for cell in found])
    lines.append(
        f"Cost on these small networks: a verdict takes {ratio:.1f} times the new task's training "
        "(median); criterion_cost.py measures it where it matters."
    )
    return "\n".join(lines), chosen


def _by_family(held: list[dict]) -> list[str]:
    lines = [
        "AUROC by family on the held-out half (cells that forget / all):",
        f"{'family':<12}{'cells':>10}" + "".join(f"{form:>16}" for form in FORMS.values()),
    ]
    for family in dict.fromkeys(sorted(cell["family"] for cell in held)):
        part = [cell for cell in held if cell["family"] == family]
        forgot = drops(part) > FORGETS
        areas = [auroc(scores(part, BY_KEY[key]), forgot) for key in FORMS]
        shown = "".join(f"{'-' if np.isnan(a) else f'{a:.3f}':>16}" for a in areas)
        lines.append(f"{family:<12}{f'{forgot.sum()}/{len(part)}':>10}{shown}")
    return lines


def _conditions(found: list[dict], choosing: list[dict], held: list[dict]) -> str:
    parts = []
    for part in (found, choosing, held):
        forgot = int((drops(part) > FORGETS).sum())
        names = len({cell["stream"] for cell in part})
        parts.append(f"{len(part)} transitions of {names} streams, {forgot} forget")
    literal = sum(1 for cell in found if cell["literal"] is not None and cell["literal"] < 0)
    return "\n".join([
        "Forms of the criterion against measured forgetting at equal training (digits, 64-W-10, "
        f"W = {', '.join(map(str, WIDTHS))}, {', '.join(map(str, EPOCHS))} epochs)",
        f"all: {parts[0]} more than {100 * FORGETS:.0f} points; choosing half: {parts[1]}; "
        f"held-out half: {parts[2]}",
        f"the literal form m_B > R_A fires in {literal} of {len(found)} transitions (R_A: every "
        "preserving direction, J_t = 1; m_B: stable rank of B's GGN on its samples)",
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread",
    ])


def rounded(found: list[dict]) -> list[dict]:
    """Round the cells as they are saved, so that the tables follow from what is saved."""

    def short(key: str, value: object) -> object:
        if not isinstance(value, float):
            return value
        return float(f"{value:.3g}" if key.endswith(("_half", "_s")) else f"{value:.6g}")

    return [{key: short(key, value) for key, value in cell.items()} for cell in found]


def compact(found: list[dict], chosen: dict[str, object]) -> str:
    """Write the cells as columns, one row per line, with what was chosen."""
    columns = list(found[0])
    rows = ",\n".join(json.dumps([cell[c] for c in columns]) for cell in found)
    head = json.dumps({"chosen": chosen, "columns": columns})[:-1]
    return f'{head},\n"rows": [\n{rows}\n]}}\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=Path, default=Path("runs/criterion-cells.jsonl"))
    parser.add_argument("--limit", type=int, help="units to run; all by default")
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}/criterion.*")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = rounded(run_grid(asked.cells, asked.limit))
    text, chosen = report(found)
    print(text)
    if asked.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "criterion.txt").write_text(text + "\n")
        (RESULTS / "criterion.json").write_text(compact(found, chosen))


if __name__ == "__main__":
    main()
