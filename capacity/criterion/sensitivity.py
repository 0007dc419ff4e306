"""How much R_A hangs on the two numbers somebody has to choose: the tolerance a, and eps.

The old tasks' curvature has no gap to cut at, so the number of directions removed moves with the
tolerance, and R_A with both. The table shows it instead of one choice of many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from capacity.criterion.compatible_capacity import CapacityAtScale, at_scale
from capacity.criterion.preserving import Preserving
from capacity.jacobian.projected_maps import SquareMap
from capacity.records.estimate import Estimate
from capacity.records.plain import Plain, plain

FACTORS = (0.1, 10.0)
"""Tolerances of the table, as multiples of the one that was chosen."""


@dataclass(frozen=True, kw_only=True)
class SensitivityRow(Plain):
    """R_A at one tolerance, over eps.

    Attributes:
        preserving: The projector at this tolerance.
        capacity: R_A, one record per eps.
    """

    preserving: Preserving
    capacity: tuple[CapacityAtScale, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types.

        Returns:
            tolerance, what is removed, and the records by eps.
        """
        return plain({
            "tolerance": self.preserving.tolerance,
            "curvature_threshold": self.preserving.threshold,
            "removed": self.preserving.removed,
            "removed_complete": self.preserving.converged,
            "soft_removed": self.preserving.soft_removed,
            "by_eps": self.capacity,
        })


def sensitivity(
    jacobian: SquareMap | None,
    projectors: Sequence[Preserving],
    capacity: Sequence[CapacityAtScale],
) -> tuple[SensitivityRow, ...]:
    """Carry R_A at one tolerance over to others.

    Removing directions U more from P lowers 1/2 log det(1 + eps^-2 J'PJ), and giving them back
    raises it, by at most 1/2 log det(1 + eps^-2 U'JJ'U) (the matrix determinant lemma; the inverse
    in it is at most 1 and, by Jensen's inequality, at least that of the compression). So one
    adjoint product per direction brackets every row of the table. The bracket's far end is shown:
    it is exact where JJ' maps the span of U to itself, as the identity does, and J is the identity
    plus little.

    Args:
        jacobian: J_t; None takes the identity, for which the rows are exact.
        projectors: P_A at every tolerance, with nested ranges; the first is that of `capacity`.
        capacity: R_A at the first tolerance, over eps.

    Returns:
        One row per projector, in the order given.
    """
    base = projectors[0]
    basis = max(projectors, key=lambda p: p.removed).removed_basis
    pulled = basis if jacobian is None or not len(basis) else jacobian.adjoint(basis)
    gram = pulled.double() @ pulled.double().T
    rows = [SensitivityRow(preserving=base, capacity=tuple(capacity))]
    for projector in projectors[1:]:
        few, many = sorted((base.removed, projector.removed))
        part = gram[few:many, few:many]
        sign = 1.0 if projector.removed < base.removed else -1.0
        records = []
        for at in capacity:
            eye = torch.eye(len(part), dtype=part.dtype, device=part.device)
            change = 0.5 * float(torch.linalg.slogdet(eye + part / at.eps**2)[1])
            moved = _moved(at.nats, sign * change, exact=jacobian is None)
            records.append(at_scale(at.eps, moved, projector.rank))
        rows.append(SensitivityRow(preserving=projector, capacity=tuple(records)))
    return tuple(rows)


def _moved(found: Estimate, shift: float, *, exact: bool) -> Estimate:
    """Shift an estimate by something between 0 and a shift, most likely the whole of it."""
    if found.value is None:
        return found
    if exact:
        return replace(found, value=found.value + shift, cost=0.0)
    low, high = found.interval or (found.value, found.value)
    return replace(
        found,
        value=found.value + shift,
        stderr=math.hypot(found.stderr or 0.0, shift / math.sqrt(12)),
        interval=(low + min(shift, 0.0), high + max(shift, 0.0)),
        cost=0.0,
    )
