"""J_t shared among processes: each pushes its part of the tangents, all get the result.

Every process holds the trajectory, as data-parallel training leaves it, or records it by the same
seeds, and all call the same functions with the same arguments in the same order. Results are those
of one process, the same on each, so estimators built on them take the same decisions everywhere.
Start the processes with `torchrun` (benchmarks/transport/sharded_spectrum.py is an example); gloo
serves the CPU, NCCL GPUs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.jacobian.trajectory import Trajectory

Group = dist.ProcessGroup


class ShardedJacobian:
    """A `TrainingJacobian` with its tangents shared among the processes of a group.

    Args:
        jacobian: J_t, the same on each process, on the device that its backend serves.
        group: The processes; None takes all.

    Attributes:
        size: P.
        products: Vectors pushed forward, and pulled back, by all processes together.
        trajectories: The phases.
    """

    def __init__(self, jacobian: TrainingJacobian, group: Group | None = None) -> None:
        self._inner, self._shards = jacobian, _Shards(group)
        self.size, self.trajectories = jacobian.size, jacobian.trajectories
        self.products = dict(jacobian.products)
        found = [number for path in self.trajectories for number in _fingerprint_of(path)]
        numbers = torch.tensor(found, dtype=torch.float64, device=self.like.device)
        self._shards.require_same("trajectories", numbers)

    @property
    def like(self) -> Tensor:
        """A vector of theta's size, dtype and device."""
        return self._inner.like

    def forward(self, tangents: Tensor) -> Tensor:
        """Push tangents of theta_0 to theta_t.

        Rows that differ between processes are a ValueError; what fails in one fails in all.

        Args:
            tangents: V, one per row (K, P), the same on each process.

        Returns:
            J V, one per row (K, P), the same on each process.
        """
        return self._run("forward", self._inner.forward, tangents)

    def adjoint(self, cotangents: Tensor) -> Tensor:
        """Pull cotangents of theta_t back to theta_0. Errors are those of `forward`.

        Args:
            cotangents: U, one per row (K, P), the same on each process.

        Returns:
            J' U, one per row (K, P), the same on each process.
        """
        return self._run("adjoint", self._inner.adjoint, cotangents)

    def _run(self, direction: str, product: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        if rows.dim() != 2 or rows.shape[1] != self.size:
            return product(rows)  # says what is wrong, on each process
        result = self._shards.apply(product, rows, self.like.dtype)
        self.products[direction] += len(rows)
        self.products["gradients"] += len(rows) * sum(map(len, self.trajectories))
        return result


class _Shards:
    """Rows of a matrix, dealt out to the processes of a group."""

    def __init__(self, group: Group | None) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError(
                "torch.distributed has no process group; call "
                "torch.distributed.init_process_group() first, in a program started with "
                "torchrun, or use TrainingJacobian itself in a single process"
            )
        everybody = dist.group.WORLD
        assert everybody is not None
        self._group = everybody if group is None else group
        if dist.get_rank(self._group) < 0:
            raise ValueError("group does not contain this process; only its members may ask")
        self._rank, self._count = dist.get_rank(self._group), dist.get_world_size(self._group)

    def apply(
        self, product: Callable[[Tensor], Tensor], rows: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Map rows (K, P), each on one process, and hand the images to all."""
        self.require_same("rows", _fingerprint(rows))
        result = torch.empty(rows.shape, dtype=dtype, device=rows.device)
        parts = result.tensor_split(self._count)
        failure: Exception | None = None
        try:
            mine = rows.tensor_split(self._count)[self._rank]
            if len(mine):
                parts[self._rank].copy_(product(mine))
        except Exception as error:
            # The others wait in the exchange: they must hear of it, or they would wait forever.
            failure = error
        failed = self._exchange(torch.tensor([float(failure is not None)], device=rows.device))
        if failure is not None:
            raise failure
        if bool(failed.any()):
            raise FloatingPointError(
                f"process {int(failed.flatten().nonzero()[0])} failed on its rows; "
                "the error was raised there"
            )
        # One broadcast per part, into its place: parts of any size, and no second copy of them.
        for sender, part in enumerate(parts):
            if len(part):
                dist.broadcast(part, dist.get_global_rank(self._group, sender), self._group)
        return result

    def require_same(self, name: str, numbers: Tensor) -> None:
        """Raise a ValueError on each process unless all have the same numbers, bit for bit."""
        # The length goes first, as all must send as much. As bits, NaNs compare equal.
        lengths = self._exchange(torch.tensor([len(numbers)], device=numbers.device))
        same = bool((lengths == lengths[0]).all())
        if same:
            bits = self._exchange(numbers.view(torch.int64))
            same = bool((bits == bits[0]).all())
        if not same:
            raise ValueError(
                f"{name} differ between the {self._count} processes; they must get the same "
                "arguments in the same order: seed the generators of all alike, train with "
                "deterministic kernels (torch.use_deterministic_algorithms), and give all the "
                "same number of threads"
            )

    def _exchange(self, numbers: Tensor) -> Tensor:
        every = [torch.empty_like(numbers) for _ in range(self._count)]
        dist.all_gather(every, numbers, self._group)
        return torch.stack(every)


def _fingerprint(rows: Tensor) -> Tensor:
    """A few sums that tell matrices apart, float64: shape, values, and where the values are."""
    flat = rows.detach()
    columns = flat.sum(0, dtype=torch.float64)
    places = torch.arange(1, len(flat) + 1, dtype=torch.float64, device=flat.device)
    by_row = flat.sum(1, dtype=torch.float64)
    scale = flat.norm().double() if flat.numel() else by_row.sum()
    weights = torch.linspace(1, 2, columns.numel(), dtype=torch.float64, device=flat.device)
    shape = torch.tensor(flat.shape, dtype=torch.float64, device=flat.device)
    sums = torch.stack([columns.sum(), scale, (by_row * places).sum(), (columns * weights).sum()])
    return torch.cat([shape, sums])


def _fingerprint_of(trajectory: Trajectory) -> list[float]:
    """Where a phase began, how many steps it took with what rates, and where it led."""
    rates, last = 0.0, None
    for last in trajectory.forwards():
        rates += last.lr * last.count
    assert last is not None
    parts = [trajectory.like[None], *(part[None] for part in last.state), last.x.flatten(1)]
    found = torch.cat([_fingerprint(part.double()) for part in parts])
    return [float(len(trajectory)), rates, *found.tolist()]
