"""J_t in a run: follows replica 0 through one task and keeps what the result needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from capacity.config import Measure
from capacity.dynamics.flat import FlatModel
from capacity.dynamics.strategies.step import StrategyStep
from capacity.dynamics.train import Step
from capacity.dynamics.updates import UpdateMap
from capacity.estimate import Estimate, from_error, not_defined
from capacity.tasks.task import Task
from capacity.transport.jacobian import TrainingJacobian
from capacity.transport.spectrum import spectrum
from capacity.transport.spectrum_record import Spectrum, lost_spectrum
from capacity.transport.tracker import PhaseTracker
from capacity.transport.trajectory import LostTrajectory, Trajectory


class PhaseTransport:
    """Observes the training of one task; `finish` resolves its spectrum."""

    def __init__(
        self,
        model: FlatModel,
        task: Task,
        update: UpdateMap,
        measure: Measure,
        generator: torch.Generator,
        strategy: StrategyStep | None = None,
    ) -> None:
        self._measure = measure
        self._tracker = PhaseTracker(
            model.loss(task) if strategy is None else strategy.loss_of(0),
            update if strategy is None else strategy.update_of(update, 0),
            tangents=measure.tangents,
            log_volume_probes=measure.log_volume_probes,
            log_volume_nodes=measure.log_volume_nodes,
            log_volume_columns=measure.log_volume_columns,
            generator=generator,
            data=(task.train.x, task.train.y) if strategy is None else strategy.data_of(0),
            layout=model.layout,
        )
        self._spectrum: Spectrum | None = None

    def observe(self, step: Step) -> None:
        """Follow replica 0 through one step.

        Args:
            step: The step.
        """
        state = tuple(part[0] for part in step.before)
        index = None if step.index is None else step.index[0]
        self._tracker.step(state, step.x[0], step.y[0], step.lr, index=index)

    @property
    def trajectory(self) -> Trajectory:
        """The recorded steps."""
        return self._tracker.trajectory

    @property
    def log_volume(self) -> Estimate:
        """log|det J| of the phase."""
        return self._tracker.log_volume()

    @property
    def finished(self) -> bool:
        """Whether the spectrum was resolved; a run can be interrupted before."""
        return self._spectrum is not None

    def finish(self, generator: torch.Generator) -> None:
        """Resolve the spectrum.

        Args:
            generator: Source of the starting block.
        """
        self._tracker.log_volume()  # here, where its time is counted; the tracker keeps it
        try:
            self._spectrum = self._tracker.spectrum(
                top=self._measure.top_values,
                sweeps=self._measure.sweeps,
                moved_sweeps=self._measure.moved_sweeps,
                generator=generator,
            )
        except (FloatingPointError, LostTrajectory) as error:
            self._spectrum = lost_spectrum(str(error))

    def tensors(self) -> dict[str, Tensor]:
        """Give what goes into `spectra.safetensors`.

        Returns:
            Singular values, residuals and per-step log-volumes, float64.
        """
        assert self._spectrum is not None
        values = self._spectrum.singular_values
        return {
            "singular_values": torch.tensor([s.value for s in values], dtype=torch.float64),
            "residuals": torch.tensor([s.residual for s in values], dtype=torch.float64),
            "log_volume_steps": self._tracker.log_volume_steps(),
        }

    def to_dict(self, total: Estimate) -> dict[str, Any]:
        """Return plain JSON types, as the result schema has them.

        Args:
            total: log|det| composed over the tasks so far.

        Returns:
            The `.transport` entry of a phase.
        """
        assert self._spectrum is not None
        return {
            "log_volume": self.log_volume.to_dict(),
            "log_volume_total": total.to_dict(),
            **self._spectrum.to_dict(),
            "tangents": self._measure.tangents,
        }


def composed_spectrum(
    phases: list[PhaseTransport], measure: Measure, generator: torch.Generator
) -> Spectrum:
    """Resolve the spectrum of J_t over all tasks, which no product of theirs would show.

    Args:
        phases: The phases in order, at least one.
        measure: How much to spend.
        generator: Source of the starting block.

    Returns:
        The spectrum.
    """
    jacobian = TrainingJacobian([phase.trajectory for phase in phases])
    try:
        return spectrum(
            jacobian,
            top=min(measure.top_values, jacobian.size),
            bottom=min(3, jacobian.size),
            sweeps=measure.sweeps,
            moved_sweeps=measure.moved_sweeps,
            generator=generator,
        )
    except (FloatingPointError, LostTrajectory) as error:
        return lost_spectrum(str(error))


def composed_log_volume(phases: list[PhaseTransport]) -> Estimate:
    """Add log|det J| over phases: determinants multiply, and probes are independent.

    Args:
        phases: The phases in order.

    Returns:
        The sum; `not_defined` if one phase is.
    """
    parts = [phase.log_volume for phase in phases]
    if any(part.value is None for part in parts):
        return not_defined("The log-volume of at least one task is not defined.")
    value = sum(part.value or 0.0 for part in parts)
    stderr = sum((part.stderr or 0.0) ** 2 for part in parts) ** 0.5
    notes = " ".join(dict.fromkeys(part.note for part in parts if part.note))
    cost = sum(part.cost for part in parts)
    return from_error(value, stderr, n=parts[0].n, cost=cost, note=notes)
