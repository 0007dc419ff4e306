"""The kernel's view of training: what the tangent kernel at one moment says the learning will cost.

At theta the network is linearised; its outputs then relax mode by mode of the kernel Theta =
Phi Phi', Phi = d f / d theta, and the residue Delta = f - y says how much there is to learn along
each mode. Predicted displacement, loss drop, length and inefficiency ([S] eqs. 12-16, with the 1/2
that its (13) and (14) lack; theory.md#kernel-regime) stand beside what training then did. [S] is
Seroussi, Alemi, Helias and Ringel, arXiv 2307.14653.

The mean loss L = |f - y|^2/(2n) has the kernel Theta/n and the residue Delta/sqrt(n); those are the
numbers kept here, so that time is learning time, the sum of the learning rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.base.checks import one_of, positive_float, positive_int
from capacity.closed_forms.gradient_flow import kernel_flow
from capacity.networks.flat_model import FlatModel
from capacity.products.feature_rows import features
from capacity.products.output_sketches import every_output, summed_outputs
from capacity.products.output_space import residual, task_outputs
from capacity.records.estimate import Estimate, from_samples, not_defined
from capacity.tasks.task import Task
from capacity.thermo.path import PathCost


@dataclass(frozen=True, kw_only=True)
class KernelView:
    """Spectrum of the kernel and what the residue puts on it, for every replica.

    Attributes:
        eigenvalues: Of Theta/n (R, m), largest first; m = n C, all outputs kept, for either kind.
        residues: Delta/sqrt(n) along the eigenvectors (R, m); the sign is the eigenvector's.
        samples: n.
        outputs: `kept` for the full kernel, `summed` for the pseudo-kernel.
    """

    eigenvalues: Tensor
    residues: Tensor
    samples: int
    outputs: str

    @property
    def loss(self) -> Tensor:
        """Mean loss |Delta|^2/(2n) of every replica (R,)."""
        return 0.5 * self.residues.square().sum(-1)

    def overlap(self) -> Tensor:
        """Share of |Delta|^2 in the first k modes (R, m), k = 1 ... m; the last entry is 1.

        Returns:
            The cumulative residue overlap; NaN for a replica without residue.
        """
        squares = self.residues.square()
        return squares.cumsum(-1) / squares.sum(-1, keepdim=True)

    def modes_holding(self, share: float) -> Estimate:
        """Count the leading modes that hold a share of the squared residue.

        Args:
            share: Between 0 and 1.

        Returns:
            The count, its spread over replicas.

        Raises:
            ValueError: If the share is not between 0 and 1.
        """
        wanted = positive_float("share", share)
        if wanted > 1:
            raise ValueError(f"share = {share!r} must lie between 0 and 1")
        below = self.overlap() < wanted * (1 - 1e-12)
        return from_samples((below.sum(-1) + 1).double().tolist())


@dataclass(frozen=True, kw_only=True)
class FlowCost:
    """What a stretch of gradient flow costs; every entry with its spread over replicas.

    Attributes:
        learning_time: T.
        displacement_sq: |theta_T - theta_0|^2.
        loss_drop: L_0 - L_T of the mean loss.
        length_ratio: Curve length over chord.
        inefficiency: T (L_0 - L_T)/|theta_T - theta_0|^2.
    """

    learning_time: float
    displacement_sq: Estimate
    loss_drop: Estimate
    length_ratio: Estimate
    inefficiency: Estimate


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One quantity as the kernel predicted it and as training had it.

    Attributes:
        name: Which; an attribute of `FlowCost`.
        predicted: By the kernel at the start.
        measured: Of the path.
        ratio: Predicted over measured, of the means; the standard errors are added as independent.
    """

    name: str
    predicted: Estimate
    measured: Estimate
    ratio: Estimate


def kernel_view(
    model: FlatModel,
    theta: Tensor,
    task: Task,
    *,
    samples: int | None = None,
    outputs: str = "kept",
) -> KernelView:
    """Take the tangent kernel of a task apart.

    Args:
        model: The network.
        theta: Where: (P,), or (R, P) for replicas.
        task: A task with loss `mse`; its training split is used.
        samples: Most samples, spread evenly over the split; None takes all. The full kernel is
            dense, (n C) x (n C).
        outputs: `kept` for the full kernel; `summed` for the pseudo-kernel of the sum of the
            outputs over sqrt(C), times the identity over outputs (n x n; Mohamadi et al. 2023).

    Returns:
        Eigenvalues and residues.

    Raises:
        ValueError: If the loss is another, `outputs` is unknown, or theta has another size.
    """
    one_of("outputs", outputs, ["kept", "summed"])
    if task.loss != "mse":
        raise ValueError(
            f"task.loss = {task.loss!r} has no kernel flow in closed form; accepted: mse (give the "
            "classes as one-hot targets)"
        )
    split = task.train if samples is None else task.train.first(positive_int("samples", samples))
    rows = torch.atleast_2d(theta)
    if rows.dim() != 2 or rows.shape[1] != model.size:
        raise ValueError(
            f"theta has shape {tuple(theta.shape)}; accepted: (P,) or (R, P) with P = {model.size}"
        )
    values, deltas = [], []
    sketch = every_output if outputs == "kept" else summed_outputs
    for row in rows:
        f = task_outputs(model, row, task, split.x)
        delta = -residual(task, f, split.y.to(f)) / math.sqrt(len(split))
        phi = features(model, row, task, split.x, sketch(len(f), f.shape[1], f))
        value, vector = torch.linalg.eigh(phi.gram(phi) / len(split))
        value, vector = value.flip(0).clamp(min=0), vector.flip(1)
        if outputs == "summed":
            # One n x n kernel for each output: its eigenvalues come C times.
            value = value.repeat_interleave(f.shape[1])
            deltas.append((vector.T @ delta).reshape(-1))
        else:
            deltas.append(vector.T @ delta.reshape(-1))
        values.append(value)
    return KernelView(
        eigenvalues=torch.stack(values),
        residues=torch.stack(deltas),
        samples=len(split),
        outputs=outputs,
    )


def predicted_flow(view: KernelView, learning_time: float) -> FlowCost:
    """Predict gradient flow with the kernel held still ([S] eqs. 12-16).

    Args:
        view: The kernel where the flow starts.
        learning_time: T, above 0.

    Returns:
        The cost, with its spread over replicas.
    """
    t = positive_float("learning_time", learning_time)
    flow = kernel_flow(
        eigenvalues=view.eigenvalues.numpy(force=True),
        residues=view.residues.numpy(force=True),
        time=t,
    )
    chord = flow.displacement_squared
    if not (chord > 0).any():
        still = not_defined("Nothing moves: there is no residue, or the kernel does not see it.")
        ratio, inefficiency = still, still
    else:
        moved = chord > 0
        ratio = from_samples((flow.length[moved] / chord[moved] ** 0.5).tolist())
        inefficiency = from_samples((t * flow.loss_drop[moved] / chord[moved]).tolist())
    return FlowCost(
        learning_time=t,
        displacement_sq=from_samples(chord.tolist()),
        loss_drop=from_samples(flow.loss_drop.tolist()),
        length_ratio=ratio,
        inefficiency=inefficiency,
    )


def compared(predicted: FlowCost, measured: PathCost) -> list[Comparison]:
    """Hold the kernel's prediction against what training did.

    Args:
        predicted: From the kernel where the training started.
        measured: The path of that training.

    Returns:
        Displacement, loss drop, length ratio and T dL/|d theta|^2, which is the inefficiency of the
        predicted flow.

    Raises:
        ValueError: If the two speak of different learning times.
    """
    if not math.isclose(predicted.learning_time, measured.learning_time, rel_tol=1e-6):
        raise ValueError(
            f"predicted.learning_time = {predicted.learning_time:g} but the path took "
            f"{measured.learning_time:g}; predict for the path's own learning time"
        )
    return [
        Comparison(
            name=name,
            predicted=of_flow,
            measured=getattr(measured, name),
            ratio=_quotient(of_flow, getattr(measured, name)),
        )
        for name, of_flow in (
            ("displacement_sq", predicted.displacement_sq),
            ("loss_drop", predicted.loss_drop),
            ("length_ratio", predicted.length_ratio),
            ("loss_drop_ratio", predicted.inefficiency),
        )
    ]


def _quotient(top: Estimate, bottom: Estimate) -> Estimate:
    if top.value is None or not bottom.value:
        return not_defined("There is nothing to compare: one of the two has no value, or is 0.")
    value = top.value / bottom.value
    if top.stderr is None or bottom.stderr is None:
        return Estimate(value=value)
    parts = (top.stderr / bottom.value, value * bottom.stderr / bottom.value)
    return Estimate(value=value, stderr=math.hypot(*parts), n=top.n)
