"""Products with J_t in another precision than training had.

A step adds lr H v to v, most of the time far less than v's own rounding in bfloat16, so the
tangents, and all that is added up over steps, stay in float32 at least. What may be lower is the
Hessian product itself, which is where the time goes: its relative error enters J v - v, not J v.
In float64 everything but the recorded path is computed in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from capacity.jacobian.trajectory import TrainingStep, Trajectory
from capacity.optimizers.optimizer import stated
from capacity.optimizers.update_map import UpdateMap
from capacity.products.hessian_products import Loss

PRECISIONS = (torch.bfloat16, torch.float32, torch.float64)


class Products(Protocol):
    """Products with the Hessian of a loss; see `HessianProducts`."""

    def __call__(self, theta: Tensor, x: Tensor, y: Tensor, tangents: Tensor) -> Tensor:
        """Multiply tangents (K, P) with the Hessian."""

    def with_gradient(
        self, theta: Tensor, x: Tensor, y: Tensor, tangents: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Give the gradient (P,), and the tangents' products (K, P)."""

    def add_to(
        self,
        tangents: Tensor,
        theta: Tensor,
        x: Tensor,
        y: Tensor,
        *,
        scale: float,
        into: Tensor | None = None,
    ) -> Tensor:
        """Add scale H V to `into`, or to V itself."""


class Path(Protocol):
    """The steps of a phase, as J_t needs them; see `Trajectory`."""

    @property
    def loss(self) -> Loss:
        """The loss of the phase."""

    @property
    def update(self) -> UpdateMap:
        """Its update map."""

    @property
    def products(self) -> Products:
        """Hessian products of the loss."""

    @property
    def size(self) -> int:
        """P."""

    @property
    def like(self) -> Tensor:
        """A vector of the tangents' size, dtype and device."""

    def __len__(self) -> int:
        """Count the steps."""

    def forwards(self) -> Iterator[TrainingStep]:
        """Walk the steps in order."""

    def backwards(self) -> Iterator[TrainingStep]:
        """Walk the steps from the last to the first."""


class CastProducts:
    """Hessian products in another precision; tangents come and go in their own.

    Attributes:
        dtype: Precision of the products.
    """

    def __init__(self, products: Products, dtype: torch.dtype) -> None:
        self._products, self.dtype = products, dtype

    def __call__(self, theta: Tensor, x: Tensor, y: Tensor, tangents: Tensor) -> Tensor:
        """Multiply tangents with the Hessian.

        Args:
            theta: Where (P,).
            x: Inputs of the batch.
            y: Targets of the batch.
            tangents: V, one per row (K, P).

        Returns:
            H V, one per row (K, P).
        """
        return self._products(*self._cast(theta, x, y, tangents)).to(tangents.dtype)

    def with_gradient(
        self, theta: Tensor, x: Tensor, y: Tensor, tangents: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Multiply tangents with the Hessian, and give the gradient.

        Args:
            theta: Where (P,).
            x: Inputs of the batch.
            y: Targets of the batch.
            tangents: V, one per row (K, P).

        Returns:
            The gradient (P,) and H V (K, P).
        """
        gradient, product = self._products.with_gradient(*self._cast(theta, x, y, tangents))
        return gradient.to(theta.dtype), product.to(tangents.dtype)

    def add_to(
        self,
        tangents: Tensor,
        theta: Tensor,
        x: Tensor,
        y: Tensor,
        *,
        scale: float,
        into: Tensor | None = None,
    ) -> Tensor:
        """Add scale H V to `into`, or to V itself; the sum is in its precision."""
        target = tangents if into is None else into
        return target.add_(self._products(*self._cast(theta, x, y, tangents)), alpha=scale)

    def _cast(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(_to(tensor, self.dtype) for tensor in tensors)


class Recast:
    """A recorded phase, walked over in another precision. The path is the recorded one.

    Attributes:
        loss: The loss of the phase.
        update: Its update map.
        products: Its Hessian products, in the precision asked for.
    """

    def __init__(self, trajectory: Trajectory, precision: torch.dtype) -> None:
        self._trajectory = trajectory
        self._dtype = torch.promote_types(precision, torch.float32)
        self.loss, self.update = trajectory.loss, trajectory.update
        self.products: Products = trajectory.products
        if precision != self._dtype:
            self.products = CastProducts(trajectory.products, precision)

    def __len__(self) -> int:
        return len(self._trajectory)

    @property
    def size(self) -> int:
        """P."""
        return self._trajectory.size

    @property
    def like(self) -> Tensor:
        """Start of the phase, in the tangents' precision."""
        return self._trajectory.like.to(self._dtype)

    def forwards(self) -> Iterator[TrainingStep]:
        """Walk the steps in order.

        Yields:
            Every step.
        """
        yield from map(self._cast, self._trajectory.forwards())

    def backwards(self) -> Iterator[TrainingStep]:
        """Walk the steps from the last to the first.

        Yields:
            Every step.
        """
        yield from map(self._cast, self._trajectory.backwards())

    def _cast(self, step: TrainingStep) -> TrainingStep:
        return replace(
            step,
            state=tuple(_to(part, self._dtype) for part in step.state),
            x=_to(step.x, self._dtype),
            y=_to(step.y, self._dtype),
        )


@torch.no_grad()
def in_precision(trajectory: Trajectory, precision: torch.dtype | None) -> Path:
    """See a phase in another precision.

    Args:
        trajectory: The phase.
        precision: That of its Hessian products; None, or the one it was trained in, changes
            nothing.

    Returns:
        The phase.

    Raises:
        ValueError: If the precision is not accepted, the phase's kind of step has none of its own,
            or its loss cannot be evaluated in it.
    """
    trained = trajectory.like.dtype
    if precision is None or precision == trained:
        return trajectory
    if precision not in PRECISIONS:
        raise ValueError(
            f"precision = {precision!r}; accepted: {', '.join(map(str, PRECISIONS))}"
            + (" (float16 overflows at 65504)" if precision == torch.float16 else "")
        )
    if precision == torch.bfloat16 and not stated(trajectory.update).from_gradient:
        raise ValueError(
            "precision = torch.bfloat16 is that of Hessian products, of which a BatchStep has "
            "none; use float32 or float64"
        )
    step = next(trajectory.forwards())
    try:
        trajectory.loss(*(_to(tensor, precision) for tensor in (step.state[0], step.x, step.y)))
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"precision = {precision}: the loss cannot be evaluated in it "
            f"({' '.join(str(error).split())}); tensors that it holds must follow theta's dtype"
        ) from error
    return Recast(trajectory, precision)


def _to(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
