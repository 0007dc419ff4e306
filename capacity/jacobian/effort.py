"""How many more sweeps would resolve what is not resolved, from how the errors fell so far."""

from __future__ import annotations

import math
from collections.abc import Sequence

from capacity.krylov.block_krylov import SingularSpace
from capacity.krylov.spectral_measure import RESOLVED, SpectralMeasure, open_mass
from capacity.records.estimate import Estimate, Status

_SEEN = 4
"""Sweeps whose decay is extrapolated."""


def missing_sweeps(
    space: SingularSpace,
    measure: SpectralMeasure,
    *,
    top: int,
    tolerance: float,
    edges: Sequence[float],
) -> Estimate:
    """Extrapolate the sweeps that top values and counts still need.

    Args:
        space: The space.
        measure: Its measure.
        top: Singular values wanted.
        tolerance: Residual, relative to the value, at which one is resolved.
        edges: Thresholds whose counts are wanted.

    Returns:
        The number of sweeps; 0 where nothing is missing, `uncalibrated` where it is extrapolated,
        and at most what fills the whole space, where everything is exact.
    """
    if measure.exact or space.closed:
        return Estimate(value=0.0)
    depth = space.sweeps
    most = math.ceil((measure.dimension - len(space.values)) / max(space.blocks[-1], 1))
    needed: list[float] = []
    errors = [
        float(ratios[:top].max()) if len(ratios) >= top else math.inf
        for ratios in space.history[-_SEEN:]
    ]
    if errors[-1] > tolerance:
        needed.append(_further(errors, tolerance))
    for edge in edges:
        certain = len(measure.known) and edge >= float(measure.known[-1])
        counts = [measure.count(high=edge), measure.count(edge)]
        if certain or all(found.resolved for found in counts):
            continue
        # Both sides of a threshold share its bracket; the smaller count is the harder one.
        fewest = min(found.value or 0.0 for found in counts)
        target = max(2 * RESOLVED * fewest, 1.0)
        depths = range(max(depth - _SEEN + 1, 1), depth + 1)
        needed.append(_further([open_mass(space, edge, k) for k in depths], target))
    if not needed:
        return Estimate(value=0.0)
    worst = max(needed)
    if worst < most:
        return Estimate(
            value=worst,
            status=Status.UNCALIBRATED,
            note=f"Extrapolated from the errors of the last {min(depth, _SEEN)} sweeps; they often "
            "fall faster later.",
        )
    return Estimate(
        value=float(most),
        status=Status.NOT_RESOLVED,
        note="The errors do not fall yet; so many sweeps fill the whole space, which is exact.",
    )


def _further(errors: Sequence[float], target: float) -> float:
    """Continue a geometric decay to its target."""
    known = [error for error in errors if math.isfinite(error) and error > 0]
    if len(known) < 2 or known[-1] >= known[0]:
        return math.inf
    rate = math.log(known[0] / known[-1]) / (len(known) - 1)
    return float(max(math.ceil(math.log(known[-1] / target) / rate), 1))
