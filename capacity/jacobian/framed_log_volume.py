"""log|det d theta_T / d theta_0| of steps that are not symmetric, with all P columns (small P).

On (theta, moments) the determinant of a momentum or Adam step is a constant of the optimiser and
says nothing about theta. Its block d theta_T / d theta_0, with the first moments held fixed, has
singular values far below the rounding of its largest, so it is never written out: the frame of all
P tangents (1, 0)' is pushed along the path and orthonormalised every few steps, F = Q R, and

    log|det d theta_T / d theta_0| = sum log|det R| + log|det Q_theta|,

Q_theta the part of the last frame that belongs to theta. Its smallest singular value says how far
the frame has turned into the moments, and its inverse carries the rounding into the result.
"""

from __future__ import annotations

import math

import torch

from capacity.base.interruption import check
from capacity.jacobian.frames import Frame
from capacity.jacobian.trajectory import Trajectory
from capacity.records.estimate import Estimate, Status, from_error, not_defined

MOST_COLUMNS = 2000
"""Largest P whose columns are all carried: time grows as P^2 per product and P^3 per frame."""


@torch.no_grad()
def framed_log_volume(
    trajectory: Trajectory, *, every: int = 20, most: int = MOST_COLUMNS, chunk: int = 128
) -> Estimate:
    """Compute log|det d theta_T / d theta_0| of one phase, for any kind of step.

    Args:
        trajectory: The phase.
        every: Steps between two orthonormalisations.
        most: Largest P to take on.
        chunk: Tangents that are carried at once.

    Returns:
        The value in nats. Its standard error is that of rounding, not of sampling; `not_defined`
        above `most` parameters, `not_resolved` where rounding leaves no digit, `diverged` where a
        tangent is no longer finite.
    """
    size, steps = trajectory.size, len(trajectory)
    parts = len(trajectory.update.init(trajectory.like))
    if size > most:
        return not_defined(
            f"For {trajectory.update.name} the log-volume of theta takes all P columns of J_t, "
            f"which is done up to P = {most} (here P = {size})"
            + (
                "; the determinant of a step on (theta, moments) is a constant of the optimiser."
                if parts > 1
                else "."
            )
        )
    frame = Frame(torch.eye(size).to(trajectory.like), parts, chunk=chunk)
    for step in trajectory.forwards():
        check()
        frame.push(trajectory, step)
        if step.count % every == 0 or step.count == steps:
            frame.orthonormalise()
    cost, logs, last = float(size * steps), frame.logs.sum(), frame.rows[0].double()
    if not bool(torch.isfinite(last).all() and torch.isfinite(logs)):
        return Estimate(
            value=None,
            status=Status.DIVERGED,
            cost=cost,
            note="A tangent is no longer finite, or J_t is exactly singular.",
        )
    singular = torch.linalg.svdvals(last)
    epsilon = torch.finfo(trajectory.like.dtype).eps
    if float(singular[-1]) < 100 * epsilon * math.sqrt(steps * size):
        return Estimate(
            value=None,
            status=Status.NOT_RESOLVED,
            cost=cost,
            note="The frame turned into the moments until rounding left no digit; try float64.",
        )
    # Every step rounds every vector of the frame, at random; theta's part hands that on.
    handed = epsilon * math.sqrt(steps) * float(singular.pow(-2).sum().sqrt())
    value = float(logs + singular.log().sum())
    return from_error(
        value,
        math.hypot(handed, torch.finfo(torch.float64).eps * value),
        cost=cost,
        note=f"All {size} columns, orthonormalised every {every} steps; the error is rounding.",
    )
