"""Earlier transitions: what the engine said of each, and what training then did.

Two corpora ship with the package, both of the development half of the scored grid: one of bare
constant rates (`corpus.json`, built by `benchmarks/forecast/corpus.py`), one of other plans
(`corpus_plans.json`, by `benchmarks/forecast/score_plans.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin

from capacity.forecasting.conformal import GroupedConformal
from capacity.forecasting.corrector import CANDIDATES, corrected, features, residual
from capacity.forecasting.domain import Domain
from capacity.forecasting.known_plans import BARE, KnownPlans
from capacity.forecasting.quantities import before, half_width, mean, within
from capacity.recipe.config import Training

if TYPE_CHECKING:
    from capacity.forecasting.engine import CheapForecast

PLAIN, MITIGATED = "plain", "mitigated"
"""Forecasts without a strategy, and under one: corrected and calibrated apart."""
_GRADIENTS = ("first_gradient", "largest_gradient", "last_gradient")
BIAS = {
    "drop": (0.039, 0.084), "rise": (0.364, 0.715),
    "new_accuracy": (0.148, 0.223), "new_loss": (0.334, 0.419),
}  # fmt: skip
"""`Corpus.bias` of bare constant rates (`benchmarks/forecast/score_physics.py`)."""
_BEYOND = 2.0
"""How far outside the corpus, as a factor, steps, parameters and budget may lie."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a forecast was made for.

    Attributes:
        training: The plan.
        strategy: Name of the strategy.
        label: The same with what differs from its default options; empty for the strategy alone.
        samples: Training samples of the new task.
        parameters: P.
        budget: Budget of the forecast; None for the full simulation.
        losses: Names of the losses of all tasks.
        architecture: Kind of network, as `architecture.architecture_of` names it.
        old_tasks: Number of old tasks.
    """

    training: Training
    strategy: str
    samples: int
    parameters: int
    budget: float | None
    losses: frozenset[object]
    architecture: str
    old_tasks: int
    label: str = ""

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
        corrector: Name of the correction in use, by kind (`plain`, `mitigated`) and quantity; None
            for the physics alone.
        old_tasks: Most old tasks of a transition.
        labels: Strategies of the rows with what differs from their default options, by name.
        plans: What their plans had beside a constant rate.
        bias: Half-width of the bias of compressed trainings that 90 % of such plans had no more
            of, of those that took as many steps as compressing the training asks for, and of
            others; losses on the scale of asinh.
    """

    rows: tuple[Mapping[str, Any], ...]
    budget: float
    corrector: Mapping[str, Mapping[str, str | None]]
    old_tasks: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    plans: KnownPlans = BARE
    bias: Mapping[str, Sequence[float]] = field(default_factory=lambda: BIAS)

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
        if plan.belief is not None:
            return "the corpus holds trainings of points, not of beliefs"
        if plan.curriculum is not None:
            return "the corpus holds no training with a curriculum"
        if conditions.losses != {"cross_entropy"}:
            return "the corpus holds tasks with cross-entropy only"
        for name, value in (
            ("optimizer", plan.optimizer),
            ("strategy", conditions.strategy),
            ("architecture", conditions.architecture),
        ):
            known = sorted({row[name] for row in self.rows})
            if value not in known:
                return f"the corpus has no {name} {value!r} ({', '.join(known)})"
        if (reason := self.plans.why_not(plan, conditions.samples)) is not None:
            return reason
        for name, number, low, high in (
            ("steps:", conditions.steps, *self._range("steps")),
            ("parameters:", conditions.parameters, *self._range("parameters")),
            ("samples:", conditions.samples, *self._range("samples")),
            ("old tasks:", conditions.old_tasks, 1, self.old_tasks),
        ):
            if not low / _BEYOND <= number <= high * _BEYOND:
                return f"{name} {number:g} is far from the corpus's {low:g} to {high:g}"
        return None

    def other_budget(self, conditions: Conditions) -> str | None:
        """Say whether a forecast spent another share of its training than those of the corpus.

        Args:
            conditions: What the forecast was made for.

        Returns:
            The reason why the corpus does not speak of it, for people; None where it does.
        """
        own, theirs = conditions.budget, self.budget
        if own is None or theirs / _BEYOND <= own <= theirs * _BEYOND:
            return None  # a simulation has no budget, and `why_not` says so
        return f"a budget of {own:g} is far from the corpus's {theirs:g}"

    def why_far(self, said: Mapping[str, Any]) -> str | None:
        """Say why the earlier transitions of a forecast's kind are not like it.

        Args:
            said: Numbers of the forecast and its plan, as `numbers` gives them.

        Returns:
            The reason, for people; None where they are like it.
        """
        kind = kind_of(said["strategy"])
        if kind not in self._domains:
            rows = self.of(kind)
            self._domains[kind] = Domain(rows, strategies_of(rows))
        return self._domains[kind].why_outside(said)

    @cached_property
    def _domains(self) -> dict[str, Domain]:
        return {}

    def unlike(self, conditions: Conditions) -> str:
        """Say in which options a strategy differs from the one that the corpus knows by its name.

        Args:
            conditions: What the forecast was made for.

        Returns:
            A sentence; empty where they agree.
        """
        known = self.labels.get(conditions.strategy, conditions.strategy)
        if (conditions.label or conditions.strategy) == known:
            return ""
        return f"Its options are others than those of the earlier transitions ({known})."

    def _range(self, name: str) -> tuple[float, float]:
        values = [row[name] for row in self.rows]
        return min(values), max(values)

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        """List the rows of one kind.

        Args:
            kind: `plain` or `mitigated`.

        Returns:
            The rows.
        """
        return [row for row in self.rows if kind_of(row["strategy"]) == kind]

    def corrected(self, name: str, said: Sequence[Mapping[str, Any]]) -> list[float]:
        """Correct forecasts, where a correction is in use for their kind.

        Args:
            name: The quantity.
            said: Numbers of each forecast and its plan, as `numbers` gives them.

        Returns:
            The quantity, for each.
        """
        made = [float(row[name]) for row in said]
        kinds = [kind_of(row["strategy"]) for row in said]
        for kind in dict.fromkeys(kinds):
            if self.corrector[kind][name] is None:
                continue
            own = [k for k, other in enumerate(kinds) if other == kind]
            names = strategies_of(self.of(kind))
            rows = np.array([features(said[k], names) for k in own])
            correction = self._correction(kind, name).predict(rows)
            found = corrected(name, np.array([made[k] for k in own]), correction)
            for k, value in zip(own, found, strict=True):
                made[k] = within(name, float(value))
        return made

    def _correction(self, kind: str, name: str) -> RegressorMixin:
        """Fit a correction that is in use, once, on the rows of its kind."""
        chosen = self.corrector[kind][name]
        assert chosen is not None
        if (kind, name) not in self._corrections:
            X, known, measured = table(self.of(kind), name)
            model = CANDIDATES[chosen](name).fit(X, residual(name, known, measured))
            self._corrections[kind, name] = model
        return self._corrections[kind, name]

    @cached_property
    def _corrections(self) -> dict[tuple[str, str], RegressorMixin]:
        return {}

    def conformal(self, name: str, kind: str) -> GroupedConformal:
        """Calibrate a quantity, once.

        Args:
            name: The quantity.
            kind: `plain` or `mitigated`.

        Returns:
            The calibrated intervals.
        """
        if (kind, name) not in self._calibrated:
            rows = self.of(kind)
            # What a correction says of a row that it has not seen: it errs less on its own rows.
            inputs = [
                conformal_row(row[f"unseen_{name}"], row[f"{name}_half"], row["steps"])
                for row in rows
            ]
            measured = [row[f"measured_{name}"] for row in rows]
            pairs = [row["pair"] for row in rows]
            self._calibrated[kind, name] = GroupedConformal().fit(inputs, measured, pairs)
        return self._calibrated[kind, name]

    @cached_property
    def _calibrated(self) -> dict[tuple[str, str], GroupedConformal]:
        return {}


def kind_of(strategy: str) -> str:
    """Say which rows speak of a strategy.

    Args:
        strategy: Its name.

    Returns:
        `plain` or `mitigated`.
    """
    return PLAIN if strategy == "naive" else MITIGATED


def strategies_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """List what a correction tells apart.

    Args:
        rows: Rows of a corpus.

    Returns:
        The names.
    """
    return sorted({row["strategy"] for row in rows})


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
    names = strategies_of(rows)
    return (
        np.array([features(row, names) for row in rows]),
        np.array([row[name] for row in rows], float),
        np.array([row[f"measured_{name}"] for row in rows], float),
    )


def numbers(said: CheapForecast, conditions: Conditions) -> dict[str, Any]:
    """Write a forecast down as the corpus does.

    Args:
        said: What the engine says.
        conditions: What it was made for.

    Returns:
        Numbers by name, `corrector.FEATURES` among them; means over old tasks; None where the
        forecast gives none.
    """
    old = said.old
    parts = {
        "drop": [reading.drop for reading in old], "rise": [reading.rise for reading in old],
        "new_accuracy": [said.new.accuracy], "new_loss": [said.new.loss],
    }  # fmt: skip
    made: dict[str, Any] = {}
    for name, estimates in parts.items():
        made[name] = mean([each.value for each in estimates])
        made[f"{name}_half"] = mean([half_width(each) for each in estimates])
    training = conditions.training
    return {
        **made,
        "old_accuracy": mean([before(reading.accuracy, reading.drop, 1) for reading in old]),
        "old_loss": mean([before(reading.loss, reading.rise, -1) for reading in old]),
        "displacement": said.displacement, "wander": said.wander,
        **dict(zip(_GRADIENTS, said.gradients, strict=True)),
        "new_loss_before": said.new_loss_before,
        "forecast_steps": said.steps, "forecast_batch": said.batch,
        "steps": conditions.steps, "samples": conditions.samples,
        "parameters": conditions.parameters, "optimizer": training.optimizer,
        "learning_time": math.fsum(training.learning_rates(conditions.samples)),
        "strategy": conditions.strategy,
    }  # fmt: skip


def complete(row: Mapping[str, Any]) -> bool:
    """Say whether a forecast has all its numbers.

    Args:
        row: Numbers and names.

    Returns:
        Whether none is missing or infinite.
    """
    return all(
        value is not None and (isinstance(value, str) or math.isfinite(value))
        for value in row.values()
    )


def corpus_of(record: Mapping[str, Any]) -> Corpus:
    """Read a corpus from its file's content.

    Args:
        record: `columns`, `rows`, `budget`, `corrector`, `old_tasks` and `labels`; `plans` and
            `bias` where they are others than those of bare constant rates.

    Returns:
        The corpus.
    """
    names = record["columns"]
    rows = tuple(dict(zip(names, row, strict=True)) for row in record["rows"])
    return Corpus(
        rows, record["budget"], record["corrector"], record["old_tasks"], record["labels"],
        KnownPlans(**record.get("plans", {})), record.get("bias", BIAS),
    )  # fmt: skip
