"""The table of `score.py`: every predictor on the cells of one half, and what came of the goals."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from criterion_scores import bootstrap
from score_calibration import calibration_lines, covered
from score_causes import worst
from score_cells import (
    ENGINE,
    FORECAST,
    REHEARSAL,
    SIMULATION,
    in_units,
    order,
    title,
    values,
)
from score_design import DEVELOPMENT
from score_predict import BUDGET
from score_scores import (
    KINDS,
    Kind,
    difference,
    line,
    naming,
    scored,
)

from capacity.predictors.registry import PREDICTORS

LONG = 20
"""Epochs from which the goals count."""
GOALS = {"R2 drop": 0.95, "R2 rise": 0.90, "rank drop": 0.95, "rank rise": 0.95, "AUROC": 0.98}
_NEAR = 0.03
_COVERED = (0.87, 0.93)
_NAMED = 0.80
_CEILING = "other data order"


def _median(values: np.ndarray, chosen: np.ndarray) -> float:
    return float(np.median(values[chosen]))


def number(value: float, sign: str = "") -> str:
    """Write a number with three places, or short where it is huge."""
    return f"{value:{sign}.3f}" if not abs(value) >= 1000 else f"{value:{sign}.0e}"


class Scoring:
    """Predictors on the cells of one half; lines for those without a unit come from development.

    Args:
        cells: All cells.
        half: Which half is scored.
    """

    def __init__(self, cells: Sequence[dict], half: str) -> None:
        self.cells = [c for c in cells if c["half"] == half and c["epochs"] >= LONG]
        self.short = [c for c in cells if c["half"] == half and c["epochs"] < LONG]
        self.every = [c for c in cells if c["half"] == half]
        self.half = half
        self._fit = [c for c in cells if c["half"] == DEVELOPMENT and c["epochs"] >= LONG]
        self.names = order(self.cells)
        known = [c for c in self._fit if set(PREDICTORS) & set(c["said"]) - {"additive_marginals"}]
        self.fitted = len(known)
        self.scores: dict[str, dict[str, list]] = {}

    def said(self, name: str, kind: Kind, cells: Sequence[dict] | None = None) -> np.ndarray:
        """List what a predictor says, in the unit that the kind of score needs."""
        cells = self.cells if cells is None else cells
        if name == _CEILING:
            return np.array([cell[f"{kind.quantity}_again"] for cell in cells])
        found = np.array(values(cells, name, kind.quantity))
        if not kind.fitted or in_units(cells, name, kind.quantity):
            return found
        known = np.array(values(self._fit, name, kind.quantity))
        slope, offset = line(known, np.array([c[kind.quantity] for c in self._fit]))
        return slope * found + offset

    def main(self) -> Iterator[str]:
        """Score every predictor."""
        yield f"{'predictor':<24}{'n':>4}" + "".join(f"{kind.name:>26}" for kind in KINDS)
        for name in (*self.names, _CEILING):
            cells, self.scores[name] = 0, {}
            text = ""
            for kind in KINDS:
                n, value, (low, high) = scored(self.cells, self.said(name, kind), kind)
                self.scores[name][kind.name] = [value, low, high]
                fitted = (
                    kind.fitted
                    and name in PREDICTORS
                    and not in_units(self.cells, name, kind.quantity)
                )
                cells = max(cells, n)
                shown = (
                    "-"
                    if math.isnan(value)
                    else f"{number(value)}{'*' if fitted else ''} [{number(low)}, {number(high)}]"
                )
                text += f"{shown:>26}"
            label = f"({_CEILING})" if name == _CEILING else title(name)
            yield f"{label:<24}{cells:>4}{text}"

    def beaten(self) -> Iterator[str]:
        """Compare the forecast with every other predictor."""
        yield f"{'capacity.forecast minus':<24}{'n':>4}" + "".join(
            f"{kind.name:>26}" for kind in KINDS
        )
        self.unbeaten: list[str] = []
        for name in (*self.names[1:], _CEILING):
            text, cells, lost = "", 0, False
            for kind in KINDS:
                n, value, (low, high) = difference(
                    self.cells, self.said(FORECAST, kind), self.said(name, kind), kind
                )
                cells = max(cells, n)
                ends = f"[{number(low, '+')}, {number(high, '+')}]"
                text += f"{number(value, '+') + ' ' + ends:>26}"
                lost |= math.isfinite(value) and not low > 0
            if lost and name in PREDICTORS and not PREDICTORS[name].post_hoc:
                self.unbeaten.append(name)
            label = f"({_CEILING})" if name == _CEILING else title(name)
            yield f"{label:<24}{cells:>4}{text}"

    def groups(self) -> Iterator[str]:
        """Score the forecast, those without a limit and the ceiling by groups of cells."""
        kinds = [kind for kind in KINDS if kind.name in {"R2 drop", "R2 rise", "rank drop"}]
        names = [
            n for n in (FORECAST, REHEARSAL, SIMULATION, _CEILING) if n in (*self.names, _CEILING)
        ]
        head = "".join(f"{k.name:>{8 * len(names) + 2}}" for k in kinds)
        yield f"{'':<20}{'n':>4}{head}"
        short = {FORECAST: "5 %", REHEARSAL: "all", SIMULATION: "linear", _CEILING: "ceiling"}
        each = "".join(f"{short[n]:>8}" for n in names)
        yield f"{'':<24}" + f"  {each}" * len(kinds)
        parts = [("all, 20+ epochs", self.cells), ("fewer epochs", self.short)]
        for key in ("family", "optimizer", "architecture", "epochs"):
            for value in sorted({c[key] for c in self.every}, key=str):
                own = self.every if key == "epochs" else self.cells
                parts.append((f"{key} {value}", [c for c in own if c[key] == value]))
        for label, some in parts:
            text = ""
            for kind in kinds:
                text += "  "
                for name in names:
                    _, value, _ = scored(some, self.said(name, kind, some), kind, intervals=False)
                    text += f"{'-' if math.isnan(value) else f'{value:.3f}':>8}"
            yield f"{label:<20}{len(some):>4}{text}"

    def cost(self) -> Iterator[str]:
        """Say what the forecasts took."""
        for name in self.names[1:]:
            some = [c for c in self.cells if c["said"].get(name)]
            wall = np.array([c["said"][name]["seconds"] / c["training_s"] for c in some])
            counted = [c["said"][name].get("cost") for c in some]
            known = [x for x in counted if x is not None]
            text = f"{np.median(known):.3f} (at most {max(known):.3f})" if known else "-"
            low, high = bootstrap(some, partial(_median, wall))
            yield (
                f"  {title(name):<24}operations {text:<26}time {np.median(wall):8.2f} "
                f"[{low:.2f}, {high:.2f}]"
            )
        over = [c for c in self.cells if c["said"].get(ENGINE, {}).get("asked", 0) > BUDGET]
        none = sum(ENGINE not in c["said"] for c in self.cells)
        yield (
            f"  {len(over)} of {len(self.cells)} trainings are too small for a forecast within "
            f"{100 * BUDGET:.0f} %: the smallest one that there is was taken; {none} have none."
        )

    def strategies(self) -> Iterator[str]:
        """Say how well the best strategy is named."""
        cells = [c for c in self.every if c["strategies"] and ENGINE in c["said"]]
        cells = [c for c in cells if any(v is not None for v in c["strategies"].values())]
        self.named = math.nan
        if not cells:
            yield "  no cell with strategies"
            return

        def foreseen(cell: dict, by: str) -> str | None:
            made = cell["said"][by]["strategies"]
            worth = {n: s.get("average_accuracy") for n, s in made.items()}
            have = {n: w for n, w in worth.items() if w is not None}
            return max(have, key=lambda n: have[n]) if have else None

        for by in (ENGINE, FORECAST):
            n, self.named, lost = naming(cells, partial(foreseen, by=by))
            yield f"  {title(by):<24}{self.named:>8.3f}{lost:>12.2f}   ({n} cells)"
        for name in cells[0]["strategies"]:
            _, share, lost = naming(cells, lambda _, always=name: always)
            yield f"  {'always ' + name:<24}{share:>8.3f}{lost:>12.2f}"

    def goals(self) -> Iterator[str]:
        """Say which goals are reached."""

        def verdict(what: str, value: float, good: bool, text: str) -> str:
            return f"  {what:<56}{value:>8.3f}  {text}: {'reached' if good else 'NOT reached'}"

        ours = self.scores[FORECAST]
        for name, goal in GOALS.items():
            value = ours[name][0]
            yield verdict(
                f"capacity.forecast at 5 %, {name}", value, value >= goal, f"at least {goal}"
            )
        for name in ("R2 drop", "R2 rise"):
            gap = self.scores[_CEILING][name][0] - self.scores[REHEARSAL][name][0]
            yield verdict(
                f"noise ceiling minus unlimited budget, {name}",
                gap,
                gap <= _NEAR,
                f"at most {_NEAR}",
            )
        left = len(self.unbeaten)
        names = f" ({', '.join(self.unbeaten)})" if left else ""
        yield (
            verdict(
                "baselines, controls not beaten in every score they have", left, not left, "none"
            )
            + names
        )
        share = covered(self.cells, "drop")
        if share is not None:
            low, high = _COVERED
            yield verdict(
                "90 % intervals of the drop cover", share, low <= share <= high, f"{low} to {high}"
            )
        yield verdict(
            "best strategy of six named, or within two points", self.named, self.named >= _NAMED,
            f"at least {_NAMED}",
        )  # fmt: skip


def write(cells: Sequence[dict], half: str) -> tuple[str, dict[str, object]]:
    """Write the table of one half.

    Args:
        cells: All cells: the development half gives the lines of predictors without a unit.
        half: Which half is scored.

    Returns:
        The text, and the scores behind it.
    """
    made = Scoring(cells, half)
    lines = [
        f"Forecasts of forgetting, {half} half: {len(made.every)} transitions of "
        f"{len({c['stream'] for c in made.every})} pairs and sequences of tasks",
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread; "
        "[95 % intervals: bootstrap over whole pairs and sequences]",
        "",
        f"Trainings of at least {LONG} epochs ({len(made.cells)} cells):",
        *made.main(),
        "R2: of the forecast as it is; * after a line fitted on the development half "
        f"({made.fitted} cells of it).",
        "rank: Spearman. AUROC: a drop of more than five points. n: of a sequence, the registry is",
        "asked at three transitions of nine. Ceilings (B4 second_order_true, kl_on_new)",
        "know the network after B; the last line is the same cell trained in another data order.",
        "",
        "Differences on the same cells, drawn together:",
        *made.beaten(),
        "",
        "By groups:",
        *made.groups(),
        "",
        *calibration_lines(made.cells),
        "",
        "Cost, as a share of B's training (median [its interval]):",
        *made.cost(),
        "",
        "Best of six strategies: share named right or within two points, mean points given away:",
        *made.strategies(),
        "",
        "The ten largest errors of the drop (forecast for measured), with a cause from what was",
        "recorded:",
        *worst(made.cells),
        "",
        f"Goals, {half} half:",
        *made.goals(),
    ]
    return "\n".join(text.rstrip() for text in lines), {"half": half, "scores": made.scores}
