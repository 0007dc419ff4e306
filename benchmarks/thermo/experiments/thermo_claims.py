"""What is held against an experiment: claims that it could refute, and checks that it could not.

A claim says what would have refuted it, and the smallest effect that would have been seen: a claim
that nothing could refute is no finding. An identity holds whatever is trained; it checks the meter,
and is listed apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from scipy import stats
from thermo_drawing import Value, value_of

from capacity.records.estimate import Estimate
from capacity.records.numbers import number
from capacity.report.charts import Figure
from capacity.report.tables import Table

ERRORS = 3.0
"""Standard errors from which a deviation counts, where a claim names no other criterion."""
LEVEL = 0.95


@dataclass(frozen=True)
class Claim:
    """Something that theory, or a paper, says, held against an experiment that can refute it.

    Attributes:
        theory: What is said.
        here: What came out.
        verdict: `holds`, `does not hold` or `inconclusive`.
        refuted: What would have refuted it, and the smallest effect that would have been seen.
    """

    theory: str
    here: str
    verdict: str
    refuted: str

    @property
    def caption(self) -> str:
        """The claim in two sentences, for below a figure."""
        return f"Theory: {self.theory}. Here: {self.here}; {self.verdict}."


@dataclass(frozen=True)
class Check:
    """An identity, which no training can break: it checks what measures.

    Attributes:
        identity: What must come out.
        here: What came out.
        passed: Whether it did.
    """

    identity: str
    here: str
    passed: bool

    @property
    def verdict(self) -> str:
        """In a word."""
        return "meter right" if self.passed else "meter broken"


@dataclass(frozen=True)
class Section:
    """One experiment on the page.

    Attributes:
        id: Anchor, and name of the experiment's record.
        title: In a few words.
        told: Sentences; the first is the headline.
        figures: In order.
        tables: Below them.
        claims: What could have been refuted.
        checks: Identities, which check the meter.
    """

    id: str
    title: str
    told: Sequence[str]
    figures: Sequence[Figure]
    tables: Sequence[Table] = field(default=())
    claims: Sequence[Claim] = field(default=())
    checks: Sequence[Check] = field(default=())

    @property
    def short(self) -> str:
        """Title without its second half."""
        return self.title.partition(":")[0].partition(",")[0]

    @property
    def lead(self) -> int:
        """Number of figures as wide as the column; those half as wide come after them, in pairs."""
        return sum(not figure.half for figure in self.figures)


def held(holds: bool | None) -> str:
    """Word a verdict; None is inconclusive."""
    if holds is None:
        return "inconclusive"
    return "holds" if holds else "does not hold"


def visible(estimates: Iterable[Estimate], *, errors: float = ERRORS) -> str:
    """Say how small a deviation every one of some estimates would have shown, relative to it."""
    parts = [errors * (e.stderr or 0.0) / abs(value_of(e)) for e in estimates if value_of(e)]
    return f"{number(100 * max(parts), 2)} %"


def rare(total: int) -> str:
    """Say which share of events shows at least once in so many tries, 19 times out of 20."""
    return f"{number(100 * (1 - (1 - LEVEL) ** (1 / total)), 2)} %"


def exponent(points: Sequence[tuple[float, Value]]) -> Estimate:
    """Fit y = c x^p to every point, and give p its interval.

    Its error is that of the scatter about the line or that of the points' own standard errors,
    whichever is larger.

    Args:
        points: (x, y), at least 3 of them, all above 0.

    Returns:
        p with its 95 % interval.

    Raises:
        ValueError: If there are fewer than 3 points: two have a slope, and no interval.
    """
    if len(points) < 3:
        raise ValueError(f"points has {len(points)} of them; an exponent's interval takes 3")
    x = [math.log(at) for at, _ in points]
    y = [math.log(value_of(v) if isinstance(v, Estimate) else float(v or 0)) for _, v in points]
    middle, level = math.fsum(x) / len(x), math.fsum(y) / len(y)
    leverage = math.fsum((at - middle) ** 2 for at in x)
    slope = math.fsum((at - middle) * up for at, up in zip(x, y, strict=True)) / leverage
    rest = math.fsum(
        (up - level - slope * (at - middle)) ** 2 for at, up in zip(x, y, strict=True)
    ) / (len(x) - 2)
    own = math.fsum(
        ((at - middle) * (v.stderr or 0.0) / value_of(v)) ** 2
        for at, (_, v) in zip(x, points, strict=True)
        if isinstance(v, Estimate)
    )
    error = max(math.sqrt(rest / leverage), math.sqrt(own) / leverage)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, len(points) - 2)) * error
    return Estimate(
        value=slope,
        stderr=error,
        interval=(slope - half, slope + half),
        level=LEVEL,
        n=len(points),
    )
