"""Four ways in which the speed limit can look wrong, detected, named and explained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from capacity.records.estimate import Estimate
from capacity.records.jackknife import widened
from capacity.records.plain import Plain
from capacity.thermo.wasserstein import Bracket

GAP = 10.0
"""Inefficiency above which the gap is called extreme: nine tenths of the cost bought nothing."""


@dataclass(frozen=True, kw_only=True)
class Signature(Plain):
    """One failure signature.

    Attributes:
        name: `bound violated`, `negative entropy production`, `W2 not resolved` or `extreme gap`.
        present: Whether it is there; None where the data do not tell.
        explanation: What it means here, and what to do, in plain sentences.
    """

    name: str
    present: bool | None
    explanation: str


def signatures(
    *, violated: bool, sigma: Estimate, w2: Bracket, inefficiency: Bracket, gap: float = GAP
) -> tuple[Signature, ...]:
    """Look for the four signatures.

    Args:
        violated: Whether the verdict is a violation.
        sigma: The Sigma that the verdict read.
        w2: W2^2 from both sides.
        inefficiency: T Sigma/W2^2 from both sides.
        gap: Inefficiency from which the gap is extreme.

    Returns:
        All four, present or not.
    """
    return (
        _violated(violated),
        _negative(sigma),
        _unresolved(w2),
        _gap(inefficiency, gap),
    )


def _violated(violated: bool) -> Signature:
    if not violated:
        return Signature(
            name="bound violated", present=False, explanation="T Sigma may reach W2^2."
        )
    return Signature(
        name="bound violated",
        present=True,
        explanation="T Sigma is below W2^2 beyond both intervals. No dynamics does that: the "
        "accounting is wrong. Look at the learning time (sum of the rates; K lr/(1 - mu) with "
        "momentum), at steps that were not summed, and at H_0.",
    )


def _negative(sigma: Estimate) -> Signature:
    name = "negative entropy production"
    if sigma.value is None:
        return Signature(name=name, present=None, explanation="There is no Sigma to judge.")
    low, high = widened(sigma, sigma.level)
    if high < 0:
        return Signature(
            name=name,
            present=True,
            explanation="Sigma is below 0 beyond its interval, though the second law forbids it: "
            "work was done on the ensemble that is not accounted for, H_0 is too large, or the "
            "steps are too long to follow the flow (lr times curvature above 2).",
        )
    if low < 0:
        return Signature(name=name, present=None, explanation="The interval of Sigma holds 0.")
    return Signature(name=name, present=False, explanation="Sigma is positive.")


def _unresolved(w2: Bracket) -> Signature:
    name = "W2 not resolved"
    upper, lower = w2.upper.value, w2.lower.value
    if upper is None or not math.isfinite(upper):
        return Signature(
            name=name,
            present=True,
            explanation="The displacement is not finite: the squared distance overflows or "
            "replicas diverged. Nothing can be said about W2.",
        )
    if lower is None or not w2.lower.resolved:
        return Signature(
            name=name,
            present=True,
            explanation=f"W2^2 is at most {upper:.4g} (path coupling), but nothing holds it above "
            "0: the replicas move each their own way, as from a random initialisation. Read the "
            "per-replica inefficiency; more replicas help only if they drift together.",
        )
    return Signature(
        name=name,
        present=False,
        explanation=f"W2^2 lies between {lower:.4g} and {upper:.4g}.",
    )


def _gap(inefficiency: Bracket, gap: float) -> Signature:
    name = "extreme gap"
    lower = inefficiency.lower
    if lower.value is None:
        return Signature(name=name, present=None, explanation="There is no inefficiency to judge.")
    low, high = widened(lower, lower.level)
    if low > gap:
        return Signature(
            name=name,
            present=True,
            explanation=f"T Sigma is at least {low:.3g} times W2^2: the ensemble took a long way "
            "round, went on after it had arrived, or was shaken by noise or steps near the edge "
            "of stability.",
        )
    above = inefficiency.upper.value
    if high > gap or above is None or above > gap:
        return Signature(
            name=name, present=None, explanation="W2^2 is not pinned well enough to tell."
        )
    return Signature(
        name=name, present=False, explanation=f"T Sigma is at most {above:.3g} times W2^2."
    )
