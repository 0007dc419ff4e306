"""The kernels of one transition at theta_A, with all outputs, and what is read off them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from capacity.compatibility.function_space import (
    curvatures,
    jackknife,
    restrict_hard,
    stable_rank,
)
from capacity.compatibility.kernels import features
from capacity.compatibility.output_space import metric_root, residual, task_outputs
from capacity.compatibility.rows import Features, Stacked
from capacity.compatibility.sketches import projected_outputs
from capacity.curvature.operators import loss_gradient
from capacity.dynamics.flat import FlatModel
from capacity.dynamics.seeds import stream
from capacity.estimate import Estimate, not_defined
from capacity.tasks.task import Split, Task

_NOTHING = 1e-12
"""What rounding may leave of a kernel where there is nothing, relative to its size."""


class TransitionKernels:
    """K_A, K_AB, K_B and B's residual on some training samples.

    A is the average of the old tasks; their loss metric and weights are part of Phi_A, so that the
    eigenvalues of K_A are those of A's GGN.

    Attributes:
        size: P.
        count: Samples of B.
        new: K_B (m_B, m_B), float64.
        old: K_A (m_A, m_A), float64.
        cross: K_AB (m_A, m_B), float64.
        residual: B's residual (m_B,).
        gradient: A's gradient on the same samples (P,).
        sketched: Whether B has more outputs than combinations were kept.
    """

    def __init__(
        self,
        model: FlatModel,
        theta: Tensor,
        old: Sequence[Task],
        new: Task,
        *,
        samples: int,
        outputs: int,
        seed: int,
    ) -> None:
        """Build them.

        Args:
            model: The network.
            theta: Where (P,).
            old: The old tasks.
            new: The new task.
            samples: Most samples of B, and of all old tasks together.
            outputs: Most combinations of outputs per sample; as many as there are is exact.
            seed: Seed of the combinations.
        """
        self.size = model.size
        share, per_task = 1 / len(old), max(2, math.ceil(samples / len(old)))

        def combinations(task: Task, f: Tensor) -> Tensor:
            draw = stream(seed, "outputs", task.name)
            return projected_outputs(len(f), f.shape[1], f, draw, kept=outputs)

        def curved(task: Task, split: Split, weight: float) -> Features:
            """Rows with the root of the loss metric: their Gram matrix has the GGN's values."""
            f = task_outputs(model, theta, task, split.x)
            root = metric_root(task, f, split.y).mT * (weight / len(f)) ** 0.5
            w = combinations(task, f) @ root
            return features(model, theta, task, split.x, w.to(theta))

        splits = [task.train.first(per_task) for task in old]
        parts = [curved(task, split, share) for task, split in zip(old, splits, strict=True)]
        self._old_rows = Stacked(parts)
        gradients = [
            loss_gradient(model, task, theta, split)
            for task, split in zip(old, splits, strict=True)
        ]
        self.gradient = share * torch.stack(gradients).sum(0)

        split = new.train.first(samples)
        self.count = len(split)
        f = task_outputs(model, theta, new, split.x)
        w = combinations(new, f)
        self.sketched = f.shape[1] > outputs
        self.residual = torch.einsum("nqc,nc->nq", w, residual(new, f, split.y)).flatten()
        phi = features(model, theta, new, split.x, w.to(theta))
        self._curved_new = curved(new, split, 1.0)
        self.new, self.cross = phi.gram(phi), self._old_rows.gram(phi)
        self.old = self._old_rows.gram(self._old_rows)

    def removed(self, threshold: float) -> int:
        """Count the directions that A's curvature takes.

        Args:
            threshold: Curvature 2a/d^2.

        Returns:
            Eigenvalues of K_A above it.
        """
        return int((torch.linalg.eigvalsh(self.old) > threshold).sum())

    def dimension(self, threshold: float, *, groups: int) -> Estimate:
        """Measure m_B: the stable rank of B's GGN in the preserving space.

        Args:
            threshold: Curvature 2a/d^2.
            groups: Groups of B's samples in the jackknife; fewer than 2 give no error.

        Returns:
            m_B; `not_defined` where P_A H_B P_A = 0.
        """
        rows = self._curved_new
        whole = rows.gram(rows)
        restricted = restrict_hard(whole, self._old_rows.gram(rows), self.old, threshold)
        if float(restricted.trace()) <= _NOTHING * float(whole.trace()):
            return not_defined("B asks nothing of the preserving space: P_A H_B P_A = 0.")
        left_out = []
        if groups >= 2 and self.count >= 2 * groups:
            for g in range(groups):
                keep = (torch.arange(self.count) % groups != g).to(restricted.device)
                r = keep.repeat_interleave(len(restricted) // self.count)
                left_out.append(stable_rank(restricted[r][:, r]))
        return jackknife(stable_rank(restricted), left_out)

    def needed_eigenvalue(self) -> float:
        """Find the regularisation where no learning time gives it.

        Returns:
            The least eigenvalue of K_B among the modes that hold 90 % of the residual; 1 where
            there is no residual, or K_B is 0.
        """
        values, vectors = curvatures(self.new)
        held = (vectors.T @ self.residual).square().cumsum(0)
        if not float(held[-1]) > 0:
            return 1.0
        last = int((held < 0.9 * held[-1]).sum())
        # Where no displacement moves B's outputs any regularisation will do.
        return max(float(values[last]), _NOTHING * float(values[0])) or 1.0

    def displacement(self, alpha: float) -> float:
        """Measure how far the regularised least-norm fit of B moves theta.

        Args:
            alpha: Regularisation.

        Returns:
            |Phi_B'(K_B + alpha)^-1 r|.
        """
        ridge = alpha * torch.eye(len(self.new)).to(self.new)
        dual = torch.linalg.solve(self.new + ridge, self.residual)
        return math.sqrt(max(float(dual @ self.new @ dual), 0.0))

    def remaining(self, threshold: float) -> float:
        """Measure how far A is from being learned.

        Args:
            threshold: Curvature 2a/d^2.

        Returns:
            1/2 g'(G_A + 2a/d^2)^-1 g: by how much A's loss could still fall, g its gradient.
        """
        seen = self._old_rows.apply(self.gradient[None])[0].double()
        inner = self.old + threshold * torch.eye(len(self.old)).to(self.old)
        taken = float(seen @ torch.linalg.solve(inner, seen))
        return 0.5 * max(float(self.gradient.double().square().sum()) - taken, 0.0) / threshold
