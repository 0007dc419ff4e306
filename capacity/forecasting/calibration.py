"""What earlier transitions say of a new forecast: a correction where one helps, and its intervals.

The corpus ships with the package and holds, per transition, what the engine said and what training
did. `benchmarks/forecast/corpus.py` builds it from the development half of the scored grid.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin

from capacity.config import Training
from capacity.estimate import Estimate, Status
from capacity.forecasting.conformal import GroupedConformal
from capacity.forecasting.corrector import CANDIDATES, corrected, features, left_out, residual

if TYPE_CHECKING:
    from capacity.forecasting.forecast import Forecast

QUANTITIES = ("drop", "rise", "new_accuracy", "new_loss")
CORRECTED = ("drop", "rise")
"""Of the quantities, those that a correction may stand for."""
_BEYOND = 2.0
"""How far outside the corpus, as a factor, steps, parameters and budget may lie."""
_RANGES = {"drop": (-1.0, 1.0), "new_accuracy": (0.0, 1.0)}
"""Of quantities that have one."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a forecast was made for.

    Attributes:
        training: The plan.
        strategy: Name of the strategy, or its label where options differ from the defaults.
        samples: Training samples of the new task.
        parameters: P.
        budget: Budget of the forecast; None for the full simulation.
        losses: Names of the losses of all tasks.
    """

    training: Training
    strategy: str
    samples: int
    parameters: int
    budget: float | None
    losses: frozenset[object]

    @property
    def steps(self) -> int:
        """Steps of the planned training."""
        return self.training.steps(self.samples)


@dataclass(frozen=True)
class Corpus:
    """Earlier transitions.

    Attributes:
        rows: One record per transition and strategy.
        budget: Budget of their forecasts.
        corrector: Name of the correction in use by quantity; None for the physics alone.
    """

    rows: tuple[Mapping[str, Any], ...]
    budget: float
    corrector: Mapping[str, str | None]

    def why_not(self, conditions: Conditions) -> str | None:
        """Say why the corpus does not speak of a forecast.

        Args:
            conditions: What the forecast was made for.

        Returns:
            The reason, for people; None where it does.
        """
        plan = conditions.training
        if conditions.budget is None:
            return "the corpus holds forecasts within a budget, not full simulations"
        if conditions.losses != {"cross_entropy"}:
            return "the corpus holds tasks with cross-entropy only"
        for name, value in (("optimizer", plan.optimizer), ("strategy", conditions.strategy)):
            known = sorted({row[name] for row in self.rows})
            if value not in known:
                return f"the corpus has no {name} {value!r} ({', '.join(known)})"
        if plan.schedule != "constant" or plan.weight_decay or plan.clip_norm is not None:
            return "the corpus holds constant rates, without weight decay or clipping"
        for name, number, low, high in (
            ("a budget of", conditions.budget, self.budget, self.budget),
            ("steps:", conditions.steps, *self._range("steps")),
            ("parameters:", conditions.parameters, *self._range("parameters")),
        ):
            if not low / _BEYOND <= number <= high * _BEYOND:
                return f"{name} {number:g} is far from the corpus's {low:g} to {high:g}"
        return None

    def _range(self, name: str) -> tuple[float, float]:
        values = [row[name] for row in self.rows]
        return min(values), max(values)

    @cached_property
    def _plain(self) -> list[Mapping[str, Any]]:
        return [row for row in self.rows if row["strategy"] == "naive"]

    @cached_property
    def _corrections(self) -> dict[str, RegressorMixin]:
        made = {}
        for name in CORRECTED:
            chosen = self.corrector.get(name)
            if chosen is not None:
                X, physics, measured = table(self._plain, name)
                made[name] = CANDIDATES[chosen](name).fit(X, residual(name, physics, measured))
        return made

    def corrected(self, name: str, said: Mapping[str, Any], strategy: str) -> float:
        """Correct a forecast, where a correction is in use.

        Args:
            name: The quantity.
            said: Numbers of the forecast and the plan, as `corrector.features` takes them.
            strategy: The strategy; corrections were learned without one.

        Returns:
            The quantity.
        """
        if strategy != "naive" or name not in self._corrections:
            return float(said[name])
        more = self._corrections[name].predict(np.array([features(said)]))
        return float(corrected(name, np.array([said[name]]), more)[0])

    def conformal(self, name: str, *, mitigated: bool) -> GroupedConformal:
        """Calibrate a quantity, once.

        Args:
            name: The quantity.
            mitigated: For forecasts under a strategy, which have rows of their own.

        Returns:
            The calibrated intervals.
        """
        key = (name, mitigated)
        if key not in self._calibrated:
            rows = [r for r in self.rows if (r["strategy"] != "naive") == mitigated]
            X, physics, measured = table(rows, name)
            pairs = [row["pair"] for row in rows]
            chosen = None if mitigated else self.corrector.get(name)
            if chosen is not None:
                wanted = residual(name, physics, measured)
                physics = corrected(name, physics, left_out(chosen, name, X, wanted, pairs))
            inputs = np.array([
                conformal_row(value, row[f"{name}_half"], row["steps"])
                for value, row in zip(physics, rows, strict=True)
            ])
            self._calibrated[key] = GroupedConformal().fit(inputs, measured, pairs)
        return self._calibrated[key]

    @cached_property
    def _calibrated(self) -> dict[tuple[str, bool], GroupedConformal]:
        return {}


def conformal_row(value: float, half: float, steps: int) -> list[float]:
    """Lay a forecast out for its interval.

    Args:
        value: The forecast.
        half: Half-width that the engine gives it.
        steps: Steps of the planned training: a short one leaves few to its forecast.

    Returns:
        The row.
    """
    return [value, half, math.log10(steps)]


def table(
    rows: Sequence[Mapping[str, Any]], name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Lay rows of a corpus out for a regression.

    Args:
        rows: The rows.
        name: The quantity.

    Returns:
        Features, forecasts and measurements of the quantity.
    """
    return (
        np.array([features(row) for row in rows]),
        np.array([row[name] for row in rows], float),
        np.array([row[f"measured_{name}"] for row in rows], float),
    )


def corpus_of(record: Mapping[str, Any]) -> Corpus:
    """Read a corpus from its file's content.

    Args:
        record: `columns`, `rows`, `budget` and `corrector`.

    Returns:
        The corpus.
    """
    names = record["columns"]
    rows = tuple(dict(zip(names, row, strict=True)) for row in record["rows"])
    return Corpus(rows, record["budget"], record["corrector"])


@cache
def shipped() -> Corpus | None:
    """Read the corpus that ships with the package, when it is first asked for.

    Returns:
        The corpus; None where the package has none.
    """
    path = files("capacity.forecasting") / "corpus.json"
    return corpus_of(json.loads(path.read_text())) if path.is_file() else None


def calibrated(made: Forecast, conditions: Conditions, corpus: Corpus | None = None) -> Forecast:
    """Correct a forecast where that helps, and give it intervals that cover.

    Args:
        made: A forecast of the engine within a budget, under one strategy.
        conditions: What it was made for.
        corpus: Earlier transitions; None takes those that ship.

    Returns:
        The forecast with calibrated intervals; where the corpus does not speak of it, the same
        forecast, `uncalibrated`, with the reason in its notes.
    """
    known = shipped() if corpus is None else corpus
    reason = "no corpus of earlier transitions" if known is None else known.why_not(conditions)
    whole = [made.new_accuracy, made.new_loss]
    for each in made.old:
        whole += [each.accuracy_drop, each.loss_increase]
    if reason is None and any(e.value is None or e.interval is None for e in whole):
        reason = "the forecast has no interval to start from"
    if known is None or reason is not None:
        return _noted(made, f"Uncalibrated: {reason}.")
    strategy, corpus = conditions.strategy, known
    plan = {
        "steps": conditions.steps,
        "parameters": conditions.parameters,
        "optimizer": conditions.training.optimizer,
    }
    fresh = {"new_accuracy": made.new_accuracy, "new_loss": made.new_loss}
    reached = {n: _interval(corpus, n, e, e.value, conditions) for n, e in fresh.items()}
    old = []
    for each in made.old:
        parts = {"drop": each.accuracy_drop, "rise": each.loss_increase, **fresh}
        said = {**plan, **{name: estimate.value for name, estimate in parts.items()}}
        said |= {f"{name}_half": _half(parts[name]) for name in parts}
        drop, rise = (
            _interval(corpus, name, parts[name], corpus.corrected(name, said, strategy), conditions)
            for name in CORRECTED
        )
        old.append(replace(each, accuracy_drop=drop, loss_increase=rise))
    return replace(
        made,
        old=tuple(old),
        new_accuracy=reached["new_accuracy"],
        new_loss=reached["new_loss"],
    )


def _interval(
    corpus: Corpus, name: str, estimate: Estimate, value: float | None, conditions: Conditions
) -> Estimate:
    lowest, highest = _RANGES.get(name, (-np.inf, np.inf))
    assert value is not None
    value = float(np.clip(value, lowest, highest))
    model = corpus.conformal(name, mitigated=conditions.strategy != "naive")
    inputs = np.array([conformal_row(value, _half(estimate), conditions.steps)])
    low, high = model.predict_interval(inputs, estimate.level)[0]
    if not np.isfinite([low, high]).all():
        return estimate
    note = (
        f"The interval is calibrated on earlier transitions of {model.groups_} pairs of tasks "
        "(conformal)."
    )
    return replace(
        estimate,
        value=value,
        interval=(max(float(low), lowest), min(float(high), highest)),
        status=Status.OK,
        note=note,
    )


def _half(estimate: Estimate) -> float:
    return 0.0 if estimate.interval is None else (estimate.interval[1] - estimate.interval[0]) / 2


def _noted(made: Forecast, text: str) -> Forecast:
    def more(estimate: Estimate) -> Estimate:
        return replace(estimate, note=f"{estimate.note} {text}".strip())

    return replace(
        made,
        old=tuple(
            replace(
                each,
                accuracy_drop=more(each.accuracy_drop),
                loss_increase=more(each.loss_increase),
            )
            for each in made.old
        ),
        new_accuracy=more(made.new_accuracy),
        new_loss=more(made.new_loss),
    )
