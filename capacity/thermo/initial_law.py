"""A law of one's own for where an ensemble starts: a Gaussian, or a Gaussian on a subspace."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.base.checks import finite_tensor, positive_float
from capacity.base.random_streams import stream


@dataclass(frozen=True, kw_only=True, eq=False)
class InitialLaw:
    """Replicas drawn about a point: theta_0 = mean + std z, or mean + sum_k scale_k z_k b_k.

    z is standard normal. With `std` every parameter is drawn; with `basis` of fewer than P columns
    the replicas are drawn on a subspace, where their law has no density: from there Sigma of
    Langevin dynamics is infinite, and not defined in records.

    Args:
        std: Standard deviation, a number or one per parameter (P,), above 0.
        basis: Directions b_k of a subspace, the columns of (P, k); each is brought to length 1.
        scale: Standard deviation along every direction of `basis`, a number or (k,), above 0.
        mean: The middle (P,), laid out as theta; None takes the network's own parameters.

    Raises:
        ValueError: If not exactly one of `std` and `basis` is given, or one of them cannot be used.

    Example:
        >>> import torch, capacity
        >>> wide = capacity.InitialLaw(std=0.1)
        >>> line = capacity.InitialLaw(basis=torch.ones(10, 1), scale=0.5)
        >>> line.basis.norm().item()
        1.0
    """

    std: float | Tensor | None = None
    basis: Tensor | None = None
    scale: float | Tensor = 1.0
    mean: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.std is None) == (self.basis is None):
            raise ValueError(
                "std and basis are "
                + ("both None" if self.std is None else "both given")
                + "; give std for a Gaussian, or basis (and scale) for one on a subspace"
            )
        if self.mean is not None:
            _floats("mean", self.mean, 1)
        if self.basis is None:
            _deviations("std", self.std, None)
            if not _is_one(self.scale):
                raise ValueError("scale goes with basis; with std leave it out")
            return
        size, count = _floats("basis", self.basis, 2).shape
        _deviations("scale", self.scale, count)
        basis = _of_length_one(self.basis)
        if count > size or int(torch.linalg.matrix_rank(basis)) < count:
            raise ValueError(
                f"basis has {count} columns of length {size} that depend on each other; pass "
                "columns that do not"
            )
        object.__setattr__(self, "basis", basis)

    def check_size(self, size: int) -> None:
        """Refuse by ValueError a law of another number of parameters.

        Args:
            size: P.

        Raises:
            ValueError: If mean, std or basis is for another number.
        """
        for name in ("mean", "std", "basis"):
            part = getattr(self, name)
            if isinstance(part, Tensor) and part.dim() and len(part) != size:
                raise ValueError(
                    f"start.{name} is for {len(part)} parameters; the network has {size} trainable "
                    "ones, in the order of named_parameters"
                )

    @torch.no_grad()
    def draw(self, own: Tensor, seed: int, replica: int) -> Tensor:
        """Draw where a replica starts.

        Args:
            own: The network's own parameters (P,).
            seed: Root seed.
            replica: Number of the replica.

        Returns:
            theta (P,), on the device and in the precision of `own`.
        """
        middle = own if self.mean is None else self.mean.to(own)
        across = own.numel() if self.basis is None else self.basis.shape[1]
        source = stream(seed, "initial-law", replica)
        z = torch.randn(across, generator=source, dtype=torch.float64).to(own)
        wide = self.scale if self.std is None else self.std
        moved = z * (wide.to(own) if isinstance(wide, Tensor) else wide)
        return middle + (moved if self.basis is None else self.basis.to(own) @ moved)

    @torch.no_grad()
    def entropy(self, size: int) -> float:
        """Give the law's differential entropy.

        Args:
            size: P.

        Returns:
            H_0 in nats; -inf on a subspace.
        """
        wide, volume = self.scale if self.std is None else self.std, 0.0
        if self.basis is not None:
            if self.basis.shape[1] < size:
                return -math.inf
            volume = float(torch.linalg.slogdet(self.basis.double()).logabsdet)
        logs = torch.as_tensor(wide, dtype=torch.float64).log().expand(size)
        return 0.5 * size * math.log(2 * math.pi * math.e) + float(logs.sum()) + volume


def _of_length_one(basis: Tensor) -> Tensor:
    """Bring columns to length 1, whatever the squares of their entries are in their own dtype."""
    wide = basis.detach().double()
    wide = wide / wide.abs().amax(0).clamp_min(torch.finfo(torch.float64).tiny)
    return wide / wide.norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny)


def _floats(name: str, value: object, dims: int) -> Tensor:
    given = finite_tensor(name, value)
    if given.dim() != dims or not given.is_floating_point():
        wanted = "(P,)" if dims == 1 else "(P, k)"
        raise ValueError(
            f"{name} has shape {tuple(given.shape)} and dtype {given.dtype}; pass {wanted} of a "
            "floating-point dtype"
        )
    return given


def _deviations(name: str, value: object, count: int | None) -> None:
    if not isinstance(value, Tensor) or value.dim() == 0:
        positive_float(name, value.item() if isinstance(value, Tensor) else value)
        return
    given = _floats(name, value, 1)
    if count is not None and len(given) != count:
        raise ValueError(f"{name} has {len(given)} numbers for {count} columns of basis")
    if not bool((given > 0).all()):
        raise ValueError(f"{name} holds {float(given.min()):g}; every entry must be above 0")


def _is_one(scale: object) -> bool:
    return not isinstance(scale, Tensor) and scale == 1.0
