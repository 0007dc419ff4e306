"""The GGN as a product of a factor with itself, G = F'F: closed forms where outputs are few.

F = L' Phi / sqrt(n) with L L' the Hessian of the loss in the outputs of each sample: n x C rows at
most. With m rows every function of G is one of the m x m Gram matrix F F' (Woodbury), exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.base.differential import hessian, pullback, vmap
from capacity.base.interruption import check
from capacity.networks.flat_model import FlatModel
from capacity.tasks.losses import additive
from capacity.tasks.task import Split, Task

MOST_ROWS = 2048
"""Rows up to which a factor is made: its Gram matrix takes 32 MB, its eigenvalues some seconds."""

_CHUNK = 64
_NOTHING = 1e-7


@dataclass(frozen=True)
class Factor:
    """F with G = F'F, and the eigenproblem of its Gram matrix.

    Attributes:
        rows: F (m, P).
    """

    rows: Tensor

    def __call__(self, vectors: Tensor) -> Tensor:
        """Multiply with G.

        Args:
            vectors: V (K, P).

        Returns:
            G V (K, P).
        """
        return (vectors @ self.rows.T) @ self.rows

    def eigen(self) -> tuple[Tensor, Tensor]:
        """Solve the eigenproblem of G through that of the Gram matrix.

        Returns:
            Eigenvalues (r,) above rounding, largest first, float64, and unit eigenvectors (r, P).
        """
        values, vectors = torch.linalg.eigh(self._gram())
        values, vectors = values.flip(0), vectors.flip(1)
        eps = torch.finfo(self.rows.dtype).eps
        floor = len(values) * eps * float(values[0]) if len(values) else 0.0
        kept = values > floor
        values, vectors = values[kept], vectors[:, kept]
        scaled = (vectors / values.sqrt()).T.to(self.rows.dtype)
        return values, scaled @ self.rows

    def shrink(self, vectors: Tensor, strength: float) -> Tensor:
        """Apply (1 + s G)^-1 exactly (Woodbury): v - F' (1/s + F F')^-1 F v.

        Args:
            vectors: V (K, P).
            strength: s > 0.

        Returns:
            (1 + s G)^-1 V (K, P).
        """
        gram = self._gram()
        gram.diagonal().add_(1 / strength)
        inner = (vectors @ self.rows.T).double()
        solved = torch.linalg.solve(gram, inner.T).T.to(vectors.dtype)
        return vectors - solved @ self.rows

    def _gram(self) -> Tensor:
        rows = self.rows.double()
        return rows @ rows.T


def factor_rows(tasks: Sequence[tuple[Task, Split]], outputs: int) -> int:
    """Count the rows that the factor of several tasks' GGN has at most.

    Args:
        tasks: The tasks with their samples.
        outputs: Width of the model's output.

    Returns:
        Samples times outputs, over all tasks.
    """
    return sum(
        len(split) * (outputs if task.outputs is None else len(task.outputs))
        for task, split in tasks
    )


def ggn_factor(model: FlatModel, tasks: Sequence[tuple[Task, Split]], theta: Tensor) -> Factor:
    """Factor the GGN of the mean loss of some tasks.

    Args:
        model: The network.
        tasks: The tasks with their samples; their losses are averaged.
        theta: Where (P,).

    Returns:
        The factor; rows that are zero are left out. A loss that is not convex in the outputs, so
        that G has no such factor, is a ValueError.
    """
    blocks = []
    for task, split in tasks:
        scale = (len(split) * len(tasks)) ** -0.5
        task = additive(task, split)
        for x, y in zip(split.x.split(_CHUNK), split.y.split(_CHUNK), strict=True):
            check()
            blocks.append(scale * _rows(model, task, theta, x, y))
    return Factor(torch.cat(blocks))


@torch.no_grad()
def _rows(model: FlatModel, task: Task, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    values = model.outputs(theta, x)

    def loss_of_one(f: Tensor, label: Tensor) -> Tensor:
        return task.loss_of(f[None], label[None])

    strengths, directions = torch.linalg.eigh(vmap(hessian(loss_of_one))(values, y).double())
    if float(strengths.min()) < -1e-6 * max(float(strengths.abs().max()), 1e-12):
        raise ValueError(
            f"task {task.name!r} has a loss that is not convex in the outputs, so that its GGN has "
            "no real factor; use capacity.products.curvature_operators.ggn"
        )
    weights = (directions * strengths.clamp(min=0).sqrt()[:, None, :]).mT.to(values.dtype)

    def of_one(sample: Tensor, cotangents: Tensor) -> Tensor:
        _, pull = pullback(lambda t: model.outputs(t, sample[None]), theta)
        return vmap(lambda u: pull(u[None])[0])(cotangents)

    rows = vmap(of_one)(x, weights).flatten(0, 1)
    sizes = rows.norm(dim=-1)
    return rows[sizes > _NOTHING * float(sizes.max())]
