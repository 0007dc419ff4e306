"""Finite-time Lyapunov exponents of training: how fast the leading directions grow per step.

A frame of k tangents is pushed along the path and orthonormalised every few steps (Benettin); the
i-th exponent is the mean over the path of log|R_ii| per step. It is a limit only for a stationary
process, which training need not be: the spread between stretches of the path says how far it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.base.checks import positive_int
from capacity.base.interruption import check
from capacity.jacobian.frames import Frame
from capacity.jacobian.trajectory import Trajectory
from capacity.records.estimate import Estimate, Status
from capacity.records.intervals import interval
from capacity.records.notebook import InNotebook
from capacity.records.plain import Plain

_BLOCKS = 10
"""Parts of the path behind a standard error: long enough to be nearly independent."""

_FEWEST_BLOCKS = 4


@dataclass(frozen=True, kw_only=True)
class LyapunovSpectrum(Plain, InNotebook):
    """The leading finite-time exponents.

    Attributes:
        exponents: Nats per step, in the frame's order, which is descending once it has settled.
        drift: Rate over the second half of the measured steps minus that over the first, per
            exponent; far outside its exponent's standard error, training is not stationary and the
            exponent is an average over a changing rate. Empty where one stretch was measured.
        sum: Sum of the exponents, the growth rate of the k-dimensional volume.
        steps: Steps measured.
        settling: Steps before them, in which the frame turned into place.
        every: Steps between two orthonormalisations.
        time_per_step: Mean learning rate of the measured steps; exponents divided by it are per
            unit of learning time.
    """

    exponents: tuple[Estimate, ...]
    drift: tuple[float, ...]
    sum: Estimate
    steps: int
    settling: int
    every: int
    time_per_step: float


@torch.no_grad()
def lyapunov(
    trajectories: Sequence[Trajectory],
    *,
    top: int,
    generator: torch.Generator,
    every: int = 10,
    settling: float = 0.25,
) -> LyapunovSpectrum:
    """Estimate the largest finite-time Lyapunov exponents.

    A tangent that vanishes or is no longer finite is a FloatingPointError that names the step.

    Args:
        trajectories: The phases, first to last, as `TrainingJacobian.trajectories` has them.
        top: Exponents wanted, k.
        generator: Source of the first frame.
        every: Steps between two orthonormalisations.
        settling: Share of the steps in which the frame only turns into place.

    Returns:
        The exponents. Their standard errors are over stretches of the path; `not_converged` where
        there are too few of them.

    Raises:
        ValueError: If there is no step, or an argument is out of range.
    """
    steps = sum(map(len, trajectories))
    if not steps:
        raise ValueError("trajectories hold no step; record a training before its exponents")
    size = trajectories[0].size
    if positive_int("top", top) > size:
        raise ValueError(f"top = {top} exceeds the {size} parameters")
    positive_int("every", every)
    if not 0 <= settling < 1:
        raise ValueError(f"settling = {settling!r} must lie in [0, 1)")
    logs, lengths, times = _stretches(trajectories, top, every, generator)
    # Whole stretches between two orthonormalisations; the last one is measured in any case.
    begins = torch.cumsum(lengths, 0) - lengths
    used = begins >= min(settling * steps, float(begins[-1]))
    logs, lengths, times = logs[used], lengths[used], times[used]
    measured = int(lengths.sum())
    half = torch.cumsum(lengths, 0) <= measured / 2
    drift = _rate(logs, lengths, ~half) - _rate(logs, lengths, half) if half.any() else half[:0]
    return LyapunovSpectrum(
        exponents=tuple(_estimate(column, lengths, steps * top) for column in logs.unbind(1)),
        drift=tuple(drift.tolist()),
        sum=_estimate(logs.sum(1), lengths, steps * top),
        steps=measured,
        settling=steps - measured,
        every=every,
        time_per_step=float(times.sum() / measured),
    )


def _stretches(
    trajectories: Sequence[Trajectory], top: int, every: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Push a frame along the path: log|diag R|, steps and learning time of every stretch."""
    like = trajectories[0].like
    start = torch.randn(
        top, like.numel(), generator=generator, device=generator.device, dtype=torch.float32
    )
    frame = Frame(start.to(like), 1)
    frame.orthonormalise()
    logs, lengths, times = [], [], []
    for phase, trajectory in enumerate(trajectories):
        frame.start_phase(len(trajectory.update.init(like)))
        length, time = 0, 0.0
        for step in trajectory.forwards():
            check()
            frame.push(trajectory, step)
            length, time = length + 1, time + step.lr
            if length == every or step.count == len(trajectory):
                made = frame.orthonormalise()
                if not bool(torch.isfinite(made).all()):
                    raise FloatingPointError(
                        f"a tangent is 0 or no longer finite at step {step.count} of phase "
                        f"{phase}, so the exponents are not defined from there on"
                    )
                logs.append(made.cpu())
                lengths.append(length)
                times.append(time)
                length, time = 0, 0.0
    kind = torch.float64
    return torch.stack(logs), torch.tensor(lengths, dtype=kind), torch.tensor(times, dtype=kind)


def _rate(logs: Tensor, lengths: Tensor, which: Tensor) -> Tensor:
    return logs[which].sum(0) / lengths[which].sum()


def _estimate(logs: Tensor, lengths: Tensor, cost: int) -> Estimate:
    """Average one exponent, with the spread between blocks of stretches as its error."""
    value = float(logs.sum() / lengths.sum())
    blocks = min(_BLOCKS, len(logs))
    pairs = zip(logs.tensor_split(blocks), lengths.tensor_split(blocks), strict=True)
    rates = torch.stack([part.sum() / length.sum() for part, length in pairs])
    if blocks < _FEWEST_BLOCKS:
        return Estimate(
            value=value,
            status=Status.NOT_CONVERGED,
            n=blocks,
            cost=float(cost),
            note=f"{blocks} orthonormalisations are too few for an error; train longer, or "
            "orthonormalise more often.",
        )
    stderr = float(rates.std()) / math.sqrt(blocks)
    return Estimate(
        value=value,
        stderr=stderr,
        interval=interval(value, stderr, degrees=blocks - 1),
        n=blocks,
        cost=float(cost),
    )
