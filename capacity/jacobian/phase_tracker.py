"""One phase's transport as training goes on: its trajectory, its tangents and its log-volume."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from capacity.base.slow_paths import slow_paths
from capacity.jacobian.batch_store import Data
from capacity.jacobian.framed_log_volume import MOST_COLUMNS, framed_log_volume
from capacity.jacobian.log_volume import LogVolume
from capacity.jacobian.projected_maps import rank_of
from capacity.jacobian.spectrum import spectrum
from capacity.jacobian.spectrum_record import Spectrum
from capacity.jacobian.training_jacobian import TrainingJacobian, footprint_of, push_rows
from capacity.jacobian.trajectory import DEFAULT_BUDGET, Layout, TrainingStep, Trajectory
from capacity.krylov.lanczos import random_signs
from capacity.optimizers.optimizer import stated
from capacity.optimizers.update_map import State, UpdateMap
from capacity.products.hessian_products import HessianProducts, Loss
from capacity.records.estimate import Estimate, with_note


class PhaseTracker:
    """Follows one phase: records the trajectory, pushes tangents, accumulates the log-volume.

    Attributes:
        trajectory: The steps so far.
        probes: Rademacher tangents of theta at the start of the phase (K, P), after the first step.
    """

    def __init__(
        self,
        loss: Loss,
        update: UpdateMap,
        *,
        tangents: int,
        log_volume_probes: int,
        log_volume_nodes: int,
        generator: torch.Generator,
        log_volume_columns: int = MOST_COLUMNS,
        budget: int = DEFAULT_BUDGET,
        data: Data | None = None,
        layout: Layout = (),
        products: HessianProducts | None = None,
    ) -> None:
        self.trajectory = Trajectory(
            loss, update, budget=budget, data=data, layout=layout, products=products
        )
        self._count, self._generator = tangents, generator
        self._log_volume = LogVolume(
            self.trajectory.products,
            update,
            probes=log_volume_probes,
            nodes=log_volume_nodes,
            generator=generator,
        )
        self.probes: Tensor | None = None
        self._tangents: State = ()
        self._chunk: int | None = None
        self._columns = log_volume_columns
        self._framed: tuple[int, Estimate] | None = None
        self._slow: list[str] = []

    @torch.no_grad()
    def step(
        self,
        state: State,
        x: Tensor,
        y: Tensor,
        lr: float,
        update: UpdateMap | None = None,
        *,
        index: Tensor | None = None,
    ) -> TrainingStep:
        """Follow one step.

        Args:
            state: Optimiser state before the step; tensors (P,), theta first.
            x: Inputs of the batch.
            y: Targets of the batch.
            lr: Learning rate.
            update: Update map of this step, where a schedule moves more than the rate.
            index: The batch's rows in the phase's data (b,), if it has any.

        Returns:
            The step.
        """
        if self.probes is None:
            count = min(self._count, state[0].numel())
            self.probes = random_signs(count, state[0], self._generator)
            moments = (torch.zeros_like(self.probes) for _ in state[1:])
            self._tangents = (self.probes.clone(), *moments)
        seen = self.trajectory.record(state, x, y, lr, update, index=index)
        with slow_paths() as found:
            if self._chunk is None:
                used = footprint_of(self.trajectory, seen, state[0])
                self._chunk = used.chunk(None, state[0].device)
            push_rows(self.trajectory, seen, self._tangents, chunk=self._chunk)
            self._log_volume.observe(seen)
        self._slow += [line for line in found if line not in self._slow]
        return seen

    def state(self) -> dict[str, Tensor]:
        """Give what `restore` needs to go on from here, but for the trajectory.

        Returns:
            The tangents, the log-volume's sums and the generator, by name; the probes are drawn
            anew. Nothing before the first step.
        """
        if not self._tangents:
            return {}
        kept = {f"tangents.{k}": part for k, part in enumerate(self._tangents)}
        kept |= {f"log_volume.{k}": part for k, part in self._log_volume.state().items()}
        return kept | {
            "chunk": torch.tensor(self._chunk),
            "generator": self._generator.get_state(),
            "slow": torch.tensor(list("\n".join(self._slow).encode()), dtype=torch.uint8),
        }

    def restore(self, kept: dict[str, Tensor]) -> None:
        """Go on where `state` was taken; `retrace` brings the trajectory back.

        Args:
            kept: What `state` gave. The tracker is new, with its generator at the same start.
        """
        if not kept:
            return
        parts = sorted(name for name in kept if name.startswith("tangents."))
        tangents = tuple(kept[name].clone() for name in parts)
        self.probes = random_signs(len(tangents[0]), tangents[0][0], self._generator)
        self._tangents = tangents
        self._chunk = int(kept["chunk"])
        if "slow" in kept:
            self._slow = bytes(kept["slow"].tolist()).decode().splitlines()
        self._generator.set_state(kept["generator"].cpu())
        prefix = "log_volume."
        self._log_volume.restore({
            name.removeprefix(prefix): part
            for name, part in kept.items()
            if name.startswith(prefix)
        })

    def retrace(
        self, state: State, x: Tensor, y: Tensor, lr: float, *, index: Tensor | None = None
    ) -> None:
        """Record a step that was followed before, in a run that was cut off since.

        Args:
            state: As in `step`.
            x: As in `step`.
            y: As in `step`.
            lr: As in `step`.
            index: As in `step`.
        """
        self.trajectory.record(state, x, y, lr, index=index)

    @property
    def images(self) -> Tensor:
        """J V for the probes (K, P); the next step overwrites it.

        Raises:
            ValueError: If no step was taken.
        """
        if not self._tangents:
            raise ValueError("no step was tracked; track the training before asking for J_t")
        return self._tangents[0]

    def log_volume(self) -> Estimate:
        """Estimate log|det J| of the phase.

        Returns:
            The estimate in nats; for steps that are not symmetric, `not_defined` in large networks.
            Its note says which slow paths the steps took.
        """
        return with_note(self._of_volume(), " ".join(self._slow))

    def _of_volume(self) -> Estimate:
        steps = len(self.trajectory)
        if stated(self.trajectory.update).symmetric_decay is not None or not steps:
            return self._log_volume.estimate()
        if self._framed is None or self._framed[0] != steps:
            self._framed = steps, framed_log_volume(self.trajectory, most=self._columns)
        return self._framed[1]

    def log_volume_steps(self) -> Tensor:
        """Give log|det| of every step.

        Returns:
            One number per step, float64; empty for steps that are not symmetric.
        """
        return self._log_volume.steps

    def spectrum(
        self, *, top: int, sweeps: int, generator: torch.Generator, **options: Any
    ) -> Spectrum:
        """Resolve the phase's spectrum.

        Args:
            top: Largest singular values wanted, where there are as many.
            sweeps: Most forward-and-adjoint passes to spend.
            generator: Source of the starting block.
            **options: Those of `capacity.jacobian.spectrum.spectrum`.

        Returns:
            The spectrum.
        """
        images = self.images
        assert self.probes is not None
        limit = self.trajectory.size
        limit = min(limit, rank_of(options.get("projector"), limit) or limit)
        return spectrum(
            TrainingJacobian([self.trajectory]),
            self.probes,
            images,
            top=min(top, limit),
            sweeps=sweeps,
            generator=generator,
            bottom=min(options.pop("bottom", 3), limit),
            **options,
        )
