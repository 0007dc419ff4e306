"""The kernels of one transition at theta_A, with all outputs, and what is read off them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from capacity.base.checks import positive_float
from capacity.base.random_streams import stream
from capacity.criterion.convergence import Convergence, furthest
from capacity.criterion.function_space import (
    curvatures,
    restrict_soft,
    stable_rank,
)
from capacity.criterion.preserving_union import independent
from capacity.networks.flat_model import FlatModel
from capacity.products.curvature_operators import loss_gradient
from capacity.products.feature_rows import features
from capacity.products.output_sketches import projected_outputs
from capacity.products.output_space import metric_root, residual, task_outputs
from capacity.products.row_sets import Features, Stacked
from capacity.records.estimate import Estimate, not_defined
from capacity.records.jackknife import jackknife
from capacity.tasks.task import Split, Task

_ROWS = 2000
"""Most rows of all old tasks together: K_A is inverted."""
_NOTHING = 1e-12
"""What rounding may leave of a kernel where there is nothing, relative to its size."""


class TransitionKernels:
    """K_A, K_AB, K_B and B's residual on some training samples.

    The old tasks' rows Phi_A stand below one another, their loss metric and sample weights in them,
    so that the eigenvalues of a task's own block of K_A are those of its GGN: each task keeps its
    own allowance.

    Attributes:
        size: P.
        count: Samples of B.
        new: K_B (m_B, m_B), float64.
        old: K_A (m_A, m_A), float64.
        cross: K_AB (m_A, m_B), float64.
        residual: B's residual (m_B,).
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
            samples: Most samples of B, and of every old task; of the old tasks fewer where their
                outputs together would exceed 2,000 rows.
            outputs: Most combinations of outputs per sample; as many as there are is exact.
            seed: Seed of the combinations.
        """
        self.size = model.size
        width = task_outputs(model, theta, new, new.train.x[:1]).shape[1]
        most = _ROWS // (len(old) * min(width, outputs))
        per_task = max(2, min(samples, most))

        def combinations(task: Task, f: Tensor) -> Tensor:
            draw = stream(seed, "outputs", task.name)
            return projected_outputs(len(f), f.shape[1], f, draw, kept=outputs)

        def curved(task: Task, split: Split) -> Features:
            """Rows with the root of the loss metric: their Gram matrix has the GGN's values."""
            f = task_outputs(model, theta, task, split.x)
            root = metric_root(task, f, split.y).mT / len(f) ** 0.5
            w = combinations(task, f) @ root
            return features(model, theta, task, split.x, w.to(theta))

        splits = [task.train.first(per_task) for task in old]
        parts = [curved(task, split) for task, split in zip(old, splits, strict=True)]
        self._counts = [part.count for part in parts]
        self._old_rows = Stacked(parts)
        self._parts, self._names = parts, [task.name for task in old]
        self._gradients = [
            loss_gradient(model, task, theta, split)
            for task, split in zip(old, splits, strict=True)
        ]

        split = new.train.first(samples)
        self.count = len(split)
        f = task_outputs(model, theta, new, split.x)
        w = combinations(new, f)
        self.sketched = f.shape[1] > outputs
        self.residual = torch.einsum("nqc,nc->nq", w, residual(new, f, split.y)).flatten()
        phi = features(model, theta, new, split.x, w.to(theta))
        self._curved_new = curved(new, split)
        self.new, self.cross = phi.gram(phi), self._old_rows.gram(phi)
        self.old = self._old_rows.gram(self._old_rows)

    def removed(self, thresholds: Sequence[float]) -> Tensor:
        """Find the directions that the old tasks' curvatures take, each by its own threshold.

        Args:
            thresholds: Curvature 2a/d^2 of every old task.

        Returns:
            W (k, m_A), float64: the rows of W Phi_A are an orthonormal basis of their span.
        """
        made, ratios, start = [], [], 0
        for count, threshold in zip(self._counts, thresholds, strict=True):
            own = slice(start, start + count)
            values, vectors = curvatures(self.old[own, own])
            above = values > positive_float("threshold", threshold)
            # An eigenvector of G is Phi' v / sqrt(lambda).
            rows = self.old.new_zeros(int(above.sum()), len(self.old))
            rows[:, own] = (vectors[:, above] / values[above].sqrt()).T
            made.append(rows)
            ratios.append(values[above] / threshold)
            start += count
        rows = torch.cat(made)[torch.cat(ratios).argsort(descending=True, stable=True)]
        chosen, lower = independent(rows @ self.old @ rows.T)
        if not chosen:
            return rows[:0]
        return torch.linalg.solve_triangular(lower, rows[chosen], upper=False)

    def softly(self, thresholds: Sequence[float]) -> Tensor:
        """Restrict B's kernel by what displacements cost the old tasks together.

        Args:
            thresholds: Curvature 2a/d^2 of every old task.

        Returns:
            Phi_B (1 + sum of G over its threshold)^-1 Phi_B'.
        """
        scale = self._repeated([threshold**-0.5 for threshold in thresholds])
        old = scale[:, None] * self.old * scale
        return restrict_soft(self.new, scale[:, None] * self.cross, old, 1.0)

    def _repeated(self, values: Sequence[float]) -> Tensor:
        """Give every row of the old tasks the number of its task."""
        counts = torch.tensor(self._counts, device=self.old.device)
        return torch.tensor(values, dtype=torch.float64).to(self.old).repeat_interleave(counts)

    def dimension(self, removed: Tensor, *, groups: int) -> Estimate:
        """Measure m_B: the stable rank of B's GGN in the preserving space.

        Args:
            removed: W, as `removed` gives it.
            groups: Groups of B's samples in the jackknife; fewer than 2 give no error.

        Returns:
            m_B; `not_defined` where P_A H_B P_A = 0.
        """
        rows = self._curved_new
        whole = rows.gram(rows)
        seen = removed @ self._old_rows.gram(rows)
        restricted = whole - seen.T @ seen
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

    def convergence(self, thresholds: Sequence[float], tolerances: Sequence[float]) -> Convergence:
        """Measure how far the old tasks are from being learned, on the samples at hand.

        Args:
            thresholds: Curvature 2a/d^2 of every old task.
            tolerances: a of each.

        Returns:
            |g| and 1/2 g'(G_A + 2a/d^2)^-1 g of the task that is furthest from learned: by how much
            its mean loss could still fall, g its gradient.
        """
        made, start = [], 0
        for k, count in enumerate(self._counts):
            own = slice(start, start + count)
            start += count
            gradient, threshold = self._gradients[k], thresholds[k]
            seen = self._parts[k].apply(gradient[None])[0].double()
            inner = self.old[own, own] + threshold * torch.eye(count).to(self.old)
            taken = float(seen @ torch.linalg.solve(inner, seen))
            squared = float(gradient.double().square().sum())
            made.append(
                Convergence(
                    gradient=Estimate(value=squared**0.5),
                    remaining=Estimate(value=0.5 * max(squared - taken, 0.0) / threshold),
                    tolerance=tolerances[k],
                    task=self._names[k],
                )
            )
        return furthest(made)
