"""Which combinations of its C outputs stand for a sample, and what leaving the others out costs.

A kernel over n samples has n C rows; a sketch keeps q combinations w (q x C) of the outputs of each
sample, hence n q rows. `every_output` is exact. The pseudo-kernel keeps one, the sum of the outputs
over sqrt(C), and puts its n x n kernel times the identity over outputs (Mohamadi et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.base.checks import positive_int
from capacity.records.estimate import Estimate
from capacity.records.plain import Plain


def every_output(samples: int, outputs: int, like: Tensor) -> Tensor:
    """Keep every output of every sample: the exact kernel.

    Args:
        samples: n.
        outputs: C.
        like: A tensor whose dtype and device the directions take.

    Returns:
        Directions (n, C, C).
    """
    return torch.eye(outputs).to(like).expand(samples, -1, -1)


def one_output(samples: int, outputs: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Keep one output per sample, drawn at random, times sqrt(C).

    Args:
        samples: n.
        outputs: C.
        like: A tensor whose dtype and device the directions take.
        generator: Source of the draw.

    Returns:
        Directions (n, 1, C).
    """
    drawn = torch.randint(outputs, (samples,), generator=generator)
    return outputs**0.5 * torch.nn.functional.one_hot(drawn, outputs)[:, None].to(like)


def projected_outputs(
    samples: int, outputs: int, like: Tensor, generator: torch.Generator, *, kept: int
) -> Tensor:
    """Keep q random orthogonal combinations of the outputs, the same for every sample.

    Args:
        samples: n.
        outputs: C.
        like: A tensor whose dtype and device the directions take.
        generator: Source of the draw.
        kept: q; C or more gives a rotation of all outputs, which is exact.

    Returns:
        Directions (n, min(q, C), C), scaled so that the mean of W'W over draws is the identity.
    """
    kept = min(positive_int("kept", kept), outputs)
    normal = torch.randn(outputs, kept, generator=generator, dtype=torch.float64)
    rows = torch.linalg.qr(normal)[0].T * (outputs / kept) ** 0.5
    return rows.to(like).expand(samples, -1, -1)


def summed_outputs(samples: int, outputs: int, like: Tensor) -> Tensor:
    """Keep the sum of the outputs over sqrt(C): the pseudo-kernel.

    Args:
        samples: n.
        outputs: C.
        like: A tensor whose dtype and device the directions take.

    Returns:
        Directions (n, 1, C).
    """
    return torch.full((outputs,), outputs**-0.5).to(like).expand(samples, 1, -1)


@dataclass(frozen=True, kw_only=True)
class SketchError(Plain):
    """How far a sketched kernel is from the exact one, on the samples that both were made of.

    Attributes:
        frobenius: |K' - K|_F / |K|_F, K' the sketch put back into the space of all outputs.
        top: Largest eigenvalue of K' over that of K.
        trace: Trace of K' over that of K.
        alignment: <K', K> / (|K'| |K|), the cosine between them.
        samples: Samples of the sub-block.
    """

    frobenius: Estimate
    top: Estimate
    trace: Estimate
    alignment: Estimate
    samples: int


def lift(kernel: Tensor, directions: Tensor) -> Tensor:
    """Put a sketched kernel back into the space of all outputs: W' K W.

    Args:
        kernel: Over sketched rows (n q, n q).
        directions: W (n, q, C).

    Returns:
        The estimate of the exact kernel (n C, n C).
    """
    w = torch.block_diag(*directions.double())
    return w.T @ kernel @ w


def times_identity(kernel: Tensor, outputs: int) -> Tensor:
    """Put a pseudo-kernel into the space of all outputs: K times the identity.

    Args:
        kernel: Over samples (n, n).
        outputs: C.

    Returns:
        The estimate of the exact kernel (n C, n C).
    """
    return torch.kron(kernel, torch.eye(outputs).to(kernel))


def sketch_error(exact: Tensor, sketched: Tensor, *, samples: int) -> SketchError:
    """Compare a sketch with the truth on a sub-block small enough for both.

    Args:
        exact: K (n C, n C).
        sketched: Its estimate (n C, n C), from `lift` or `times_identity`, or the Gram matrix of
            features with projected parameters.
        samples: n.

    Returns:
        The errors.
    """
    size, approximate = float(exact.norm()), float(sketched.norm())

    def measured(value: float) -> Estimate:
        return Estimate(value=value, n=samples)

    largest = [float(torch.linalg.eigvalsh(k)[-1]) for k in (sketched, exact)]
    return SketchError(
        frobenius=measured(float((sketched - exact).norm()) / size),
        top=measured(largest[0] / largest[1]),
        trace=measured(float(sketched.trace() / exact.trace())),
        alignment=measured(float((sketched * exact).sum()) / (size * approximate)),
        samples=samples,
    )
