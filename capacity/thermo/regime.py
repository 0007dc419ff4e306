"""Where the loss drop stands for the cost of a path, and where it does not.

For gradient flow the loss falls by the action of the path, so that T dL/|d theta|^2 is the
inefficiency ([S] eq. 12). Steps of finite length differ by O(lr times curvature), minibatch noise
is in the path alone, and beyond the edge of stability the two have nothing to do with each other:
the loss may even rise, where no path costs less than nothing (theory.md#loss-drop-ratio).
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from capacity.records.estimate import Estimate, Status

CLOSE = 0.01
"""Share of the action within which the two agree whatever their errors: one replica has none."""
FAR = 0.1
"""Share beyond which they do not agree, however wide the errors."""


def agrees(action: Tensor, other: Tensor) -> bool:
    """Tell whether something that equals the action for gradient flow equals it here.

    Args:
        action: Of every replica (n,), or what it is divided by something.
        other: The same in the other form (n,).

    Returns:
        Whether their mean difference lies within both their standard errors, and in any case within
        a tenth, or within a hundredth of the action.
    """
    share = gap(action, other)
    if not math.isfinite(share):
        return False
    error = 0.0
    if len(action) > 1:
        spread = torch.stack([action, other]).std(-1) / math.sqrt(len(action))
        error = float(spread.square().sum().sqrt() / action.abs().mean())
    return share <= max(CLOSE, min(error, FAR))


def gap(action: Tensor, other: Tensor) -> float:
    """Mean difference of the two over the mean action, of the same replicas.

    Args:
        action: Of every replica (n,).
        other: The same in the other form (n,).

    Returns:
        The share; NaN where nothing moved.
    """
    scale = float(action.abs().mean())
    return float((action - other).abs().mean()) / scale if scale else math.nan


def marked(estimate: Estimate, action: Tensor, other: Tensor) -> Estimate:
    """Mark a form of the cost where it does not agree with the action.

    Args:
        estimate: Of the form.
        action: Of every replica (n,).
        other: The form's value of every replica (n,).

    Returns:
        The estimate itself where the two agree; else the same value, `out_of_regime`.
    """
    if agrees(action, other):
        return estimate
    share = gap(action, other)
    said = f"by {share:.1%} of it" if math.isfinite(share) else "beyond measure"
    note = (
        f"Differs from the action of the path {said}: the steps are too long, or too noisy, to "
        "follow gradient flow, and the loss drop is not what the path cost."
    )
    return replace(estimate, status=Status.OUT_OF_REGIME, note=f"{note} {estimate.note}".strip())
