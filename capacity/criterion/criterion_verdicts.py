"""What the forms of the criterion say about one transition, and how a number becomes a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from capacity.criterion.function_space import Room
from capacity.criterion.output_drift import Drift
from capacity.records.estimate import Estimate, Status
from capacity.records.notebook import InNotebook
from capacity.records.plain import Plain
from capacity.tasks.scoring import said_scores

_VOID = frozenset({Status.DIVERGED, Status.NOT_RESOLVED})
"""What an estimate may carry a number in that is none to judge by."""
PREDICTED, ROOM_LEFT, UNDECIDED = "forgetting predicted", "room left", "undecided"


@dataclass(frozen=True, kw_only=True)
class FormVerdict(Plain):
    """One form of the criterion on one transition.

    Attributes:
        form: Its name.
        value: What it measures; for `literal` R_A - m_B, in directions.
        threshold: Where it turns.
        fires_above: Whether forgetting is predicted above the threshold, rather than below.
        margin: Distance to the threshold, positive where there is room left; None without a value,
            or where it is `diverged` or `not_resolved`.
        half_width: Half of the margin's 90 % interval; 0 where the value is exact.
        verdict: `forgetting predicted`, `room left`, or `undecided` where the margin's interval
            holds 0 or there is no margin.
        note: What the reader must know to read it.
    """

    WRITTEN = (
        "form",
        "value",
        "threshold",
        "fires_above",
        "margin",
        "half_width",
        "fires",
        "verdict",
        "note",
    )

    form: str
    value: Estimate
    threshold: float
    fires_above: bool
    margin: float | None
    half_width: float
    verdict: str
    note: str

    @property
    def fires(self) -> bool:
        """Whether forgetting is predicted beyond the uncertainty."""
        return self.verdict == PREDICTED


def own_half_width(value: Estimate) -> float:
    """Halve an estimate's interval.

    Args:
        value: The estimate.

    Returns:
        Half of the interval's length; 0 where there is none.
    """
    return 0.0 if value.interval is None else (value.interval[1] - value.interval[0]) / 2


def facing_half_width(value: Estimate, threshold: float) -> float:
    """Measure an interval on the side where a threshold stands; an interval may be lopsided.

    Args:
        value: The estimate.
        threshold: The threshold.

    Returns:
        Distance from the value to that end, 0 at least; 0 where there is no interval.
    """
    if value.value is None or value.interval is None:
        return 0.0
    low, high = value.interval
    return max(value.value - low if value.value > threshold else high - value.value, 0.0)


def judge(
    form: str,
    value: Estimate,
    threshold: float,
    *,
    fires_above: bool,
    note: str = "",
    half_width: float | None = None,
) -> FormVerdict:
    """Hold an estimate against a threshold.

    Args:
        form: Name of the form.
        value: What it measures.
        threshold: Where it turns.
        fires_above: Whether forgetting is predicted above the threshold.
        note: What the reader must know; without a value, the value's own note is taken.
        half_width: Half of the 90 % interval to judge by; None takes the value's own, on the side
            of the threshold.

    Returns:
        The verdict; `undecided` without a value, where it diverged or is not resolved, or where the
        90 % interval holds the threshold.
    """
    margin, half, verdict = None, 0.0, UNDECIDED
    if value.value is not None and value.status not in _VOID:
        half = facing_half_width(value, threshold) if half_width is None else half_width
        margin = threshold - value.value if fires_above else value.value - threshold
        if abs(margin) > half:
            verdict = ROOM_LEFT if margin > 0 else PREDICTED
    return FormVerdict(
        form=form,
        value=value,
        threshold=threshold,
        fires_above=fires_above,
        margin=margin,
        half_width=half,
        verdict=verdict,
        note=note if margin is not None else value.note,
    )


@dataclass(frozen=True, kw_only=True)
class Verdicts(Plain, InNotebook):
    """Every form of the criterion on one transition, and which one to read.

    Attributes:
        literal: m_B against R_A; does not decide real cases.
        capacity: Share of B's effective dimensions that is left; does not decide real cases.
        transport_cost: C_{A->B}; does not decide real cases.
        directional: Expected share of A lost, by gradient flow or, for steps that are none, by a
            compressed training; decides.
        decides: Name of the form to read.
        why: The reason, in one sentence.
        room: All function-space measures.
        drift: All directional measures; None where the training is no gradient flow.
        removed: Directions that A's curvature takes, of those that its samples can show.
        tolerance: a, nats.
        displacement: d.
        time: Learning time S; None where the training is no gradient flow.
        warnings: What may spoil the verdict.
        source: Committed table of how well each form does, which the thresholds come from.
        scored_on: What the old tasks' scores are scores on: `test`, `training`, or both; empty
            where it stands elsewhere (in the tasks of a run).
        scoring: The same in words.
    """

    WRITTEN = (
        "verdict", "decides", "why", "literal", "capacity", "transport_cost", "directional",
        "room", "drift", "removed", "tolerance", "displacement", "time", "warnings", "source",
    )  # fmt: skip

    literal: FormVerdict
    capacity: FormVerdict
    transport_cost: FormVerdict
    directional: FormVerdict
    decides: str
    why: str
    room: Room
    drift: Drift | None
    removed: int
    tolerance: float
    displacement: float
    time: float | None
    warnings: tuple[str, ...]
    source: str
    scored_on: str = ""
    scoring: str = ""

    @property
    def forms(self) -> tuple[FormVerdict, ...]:
        """The forms, the literal one first."""
        return self.literal, self.capacity, self.transport_cost, self.directional

    @property
    def verdict(self) -> str:
        """What the form that decides says."""
        return next(form.verdict for form in self.forms if form.form == self.decides)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types.

        Returns:
            One entry per attribute, and the verdict.
        """
        return super().to_dict() | said_scores(self)
