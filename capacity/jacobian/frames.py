"""Orthonormal frames of tangents, carried along the training without losing the faint directions.

Tangents that are only pushed turn into the most expanding direction. Orthonormalised now and then
(F = Q R), a frame keeps every direction, and the diagonals of R keep what was divided out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from capacity.jacobian.training_jacobian import push
from capacity.jacobian.trajectory import TrainingStep, Trajectory
from capacity.optimizers.update_map import State


class Frame:
    """K tangents of the optimiser state.

    Attributes:
        rows: One tensor (K, P) per part of the state, theta's first.
        logs: log|diag R| summed over the orthonormalisations so far (K,), float64.
    """

    def __init__(self, theta_rows: Tensor, parts: int, *, chunk: int = 128) -> None:
        self.rows: State = (theta_rows,)
        self.start_phase(parts)
        self.logs = torch.zeros(len(theta_rows), dtype=torch.float64, device=theta_rows.device)
        self._chunk = chunk

    def push(self, trajectory: Trajectory, step: TrainingStep) -> None:
        """Push the frame through one step.

        Args:
            trajectory: The phase.
            step: The step.
        """
        chunks = zip(*(part.split(self._chunk) for part in self.rows), strict=True)
        moved = [push(trajectory, step, chunk) for chunk in chunks]
        self.rows = tuple(torch.cat(parts) for parts in zip(*moved, strict=True))

    def orthonormalise(self) -> Tensor:
        """Replace the frame by an orthonormal one that spans the same.

        Returns:
            log|diag R| of this factorisation (K,), float64; NaN where the frame is not finite.
        """
        # float64 whatever the tangents are: this is where many small logarithms add up.
        stacked = torch.cat(self.rows, dim=1).double()
        if not bool(torch.isfinite(stacked).all()):
            logs = torch.full_like(self.logs, torch.nan)
        else:
            q, r = torch.linalg.qr(stacked.T)
            logs = r.diagonal().abs().log()
            size = self.rows[0].shape[1]
            self.rows = tuple(part.to(self.rows[0].dtype) for part in q.T.split(size, dim=1))
        self.logs = self.logs + logs
        return logs

    def start_phase(self, parts: int) -> None:
        """Forget the moments, as a new phase does, and with them their tangents.

        Args:
            parts: Parts of the new phase's optimiser state.
        """
        theta_rows = self.rows[0]
        self.rows = (theta_rows, *(torch.zeros_like(theta_rows) for _ in range(parts - 1)))
