"""What an ensemble leaves behind: streamed sums of every step, Gram matrices of checkpoints.

Nothing here grows with the number of parameters but the stored positions, which may lie on disk.
Replicas that diverged are in no number; they are named in `excluded`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor

from capacity.optimizers.dynamics import Dynamics
from capacity.thermo.gram_matrices import LayerGrams
from capacity.thermo.landscape import Layout

SINGULAR = (
    "The ensemble starts on a subspace, where its law has no density: H_0 is -inf, F_0 and what "
    "thermal noise dissipates from there infinite. Start from a Gaussian over all parameters."
)
"""Why what starts from a singular law has no free energy."""


class Start(StrEnum):
    """The law that the ensemble starts from."""

    DELTA = "delta"
    """All replicas at one point: W2 of the replicas' own displacement is exact."""
    COLD = "cold"
    """A random initialisation."""
    WARM = "warm"
    """Where a previous task left the ensemble."""


@dataclass(frozen=True)
class Excluded:
    """A replica that diverged.

    Attributes:
        replica: Its number.
        step: Step (from 1) at which its energy or its parameters stopped being finite.
    """

    replica: int
    step: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """Running sums of every replica, read at some steps. All float64, on the CPU.

    Sums run over all steps, never over the marks only.

    Attributes:
        step: Steps at which they are read (M,); the last is the end.
        time: Learning time sum dt_k (M,), dt_k = lr_k.
        loss: Batch energy at the last step before the mark (M, N).
        action: sum |d theta_k|^2/dt_k (M, N).
        length: sum |d theta_k| (M, N).
        trapezoid: -sum d theta_k . (g_k + g_{k+1})/2 (M, N), the drop along the path; for
            minibatches each g is of its own batch.
        noise_free: -sum d theta_k . g_{k+1} (M, N): on a fresh batch, without minibatch noise to
            first order in lr.
        heat: sum of the drop of the energy within steps (M, N): E_0 - E_T + work.
        log_det: sum log|det d theta_{k+1}/d theta_k| (M, N), or None if it was not probed.
        drive: sum dt_k |g_k|^2 (M, N), or None without thermal noise.
    """

    step: Tensor
    time: Tensor
    loss: Tensor
    action: Tensor
    length: Tensor
    trapezoid: Tensor
    noise_free: Tensor
    heat: Tensor | None = None
    log_det: Tensor | None = None
    drive: Tensor | None = None

    @property
    def velocity(self) -> Tensor:
        """E|v|^2 between two marks (M,), averaged over its steps and the replicas."""
        spent = torch.diff(self.time, prepend=self.time.new_zeros(1))
        paid = torch.diff(self.action, dim=0, prepend=self.action.new_zeros(1, len(self.action[0])))
        return (paid / spent[:, None]).mean(-1)

    def select(self, rows: Tensor) -> Series:
        """Keep some replicas.

        Args:
            rows: Their positions (n,).

        Returns:
            Their series.
        """
        held = {
            name: value[:, rows]
            for name, value in vars(self).items()
            if isinstance(value, Tensor) and value.dim() == 2
        }
        return replace(self, **held)


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianBound:
    """Diagonal Gaussian upper bound of the entropy, with what a jackknife needs.

    Attributes:
        value: The bound in nats, unbiased for Gaussian coordinates (digamma correction); -inf where
            a coordinate does not vary.
        without: The bound without replica i (N,).
        frozen: Number of coordinates that do not vary over the ensemble.
    """

    value: float
    without: Tensor
    frozen: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """The ensemble at one moment, relative to its start.

    Attributes:
        step: Steps taken so far.
        time: Learning time so far.
        energy: Whole energy of every replica (N,), float64.
        grams: Gram matrices of [theta_0 - mean; displacement], per block of theta.
        leg_sq: |theta - theta at the previous checkpoint|^2 (N,).
        entropy: Diagonal Gaussian bound of H here; None for fewer than 4 replicas.
    """

    step: int
    time: float
    energy: Tensor
    grams: LayerGrams
    leg_sq: Tensor
    entropy: GaussianBound | None


@dataclass(frozen=True, kw_only=True, eq=False)
class EnsembleRecord:
    """Everything measured on an ensemble while it moved, without the replicas that diverged.

    Attributes:
        dynamics: What moved it.
        optimizer: Name of the update map.
        temperature: tau; 0 for deterministic training and SGD.
        full: Whether every step saw the whole energy.
        start: Law that it started from.
        replicas: Numbers of the replicas in this record, N of them.
        excluded: Those that diverged.
        layout: Names and sizes of the blocks of theta.
        learning_time: T; in the time in which T Sigma >= W2^2 is meant: sum lr_k, for heavy ball
            sum lr_k/(1 - mu), for underdamped Langevin t/gamma.
        last_kinetic: |last step|^2/(2 lr) of heavy ball, p^2/2 at the end for underdamped
            Langevin, (N,); else None.
        first_kinetic: p^2/2 at the start for underdamped Langevin (N,), else None.
        energy_start: Whole energy of every replica at the start (N,), float64.
        entropy_start: H_0 in nats where the user knows it, -inf for a law without density, else
            None.
        entropy_start_bound: Diagonal Gaussian bound of H_0; None for fewer than 4 replicas.
        series: Running sums.
        checkpoints: In time; the last is the end.
        theta_start: Positions at the start (N, P), in memory or mapped from disk.
        theta: Positions at every checkpoint, each (N, P), in memory or mapped from disk.
        time_scale: learning_time over sum lr_k.
        folds: Steps of each replica (N,) in which lr times a curvature was seen above 1, along the
            step or by the probes of the log-volume; None where neither can tell.
    """

    dynamics: Dynamics
    optimizer: str
    temperature: float
    full: bool
    start: Start
    replicas: tuple[int, ...]
    excluded: tuple[Excluded, ...]
    layout: Layout
    learning_time: float
    last_kinetic: Tensor | None
    first_kinetic: Tensor | None
    energy_start: Tensor
    entropy_start: float | None
    entropy_start_bound: GaussianBound | None
    series: Series
    checkpoints: tuple[Checkpoint, ...]
    theta_start: Tensor
    theta: tuple[Tensor, ...]
    time_scale: float = 1.0
    folds: Tensor | None = None

    @property
    def size(self) -> int:
        """P."""
        return sum(size for _, size in self.layout)

    @property
    def singular(self) -> bool:
        """Whether the law of the start is known to have no density."""
        return self.entropy_start is not None and math.isinf(self.entropy_start)

    @property
    def folded(self) -> bool:
        """Whether a step was seen to fold: lr times a curvature above 1."""
        return self.folds is not None and bool((self.folds > 0).any())

    @property
    def end(self) -> Checkpoint:
        """The last checkpoint."""
        return self.checkpoints[-1]

    @property
    def excluded_note(self) -> str:
        """Name the replicas that diverged, in a sentence; empty if there are none."""
        if not self.excluded:
            return ""
        names = ", ".join(f"{e.replica} (step {e.step})" for e in self.excluded)
        total = len(self.excluded) + len(self.replicas)
        return f"{len(self.excluded)} of {total} replicas diverged and are left out: {names}."
