"""J_t in a run: follows replica 0 through one task and keeps what the result needs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from capacity.jacobian.batch_store import Data
from capacity.jacobian.own_step_check import CHECKED_STEPS, check_step
from capacity.jacobian.phase_tracker import PhaseTracker
from capacity.jacobian.spectrum import spectrum
from capacity.jacobian.spectrum_record import lost_spectrum
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.jacobian.trajectory import LostTrajectory, TrainingStep, Trajectory
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.update_map import UpdateMap
from capacity.products.curvature_operators import hessian_products
from capacity.recipe.config import Measure
from capacity.records.estimate import Estimate, from_error, not_defined
from capacity.strategies.step import StrategyStep
from capacity.tasks.task import Task
from capacity.training.seeded_loss import SeededLoss, by_rows, lookup, marked
from capacity.training.steps import Step


class PhaseTransport:
    """Observes the training of one task; `finish` resolves its spectrum.

    Args:
        model: The network.
        task: The task.
        update: The update map of the training.
        measure: What to measure.
        generator: Source of the tangents and probes.
        strategy: What a strategy does to the steps; None where nothing.
        masks: Gives the seed of a step's random masks, for a network in training mode.
        batch: Samples that such a network sees together; None shows it all of a step's.
    """

    def __init__(
        self,
        model: FlatModel,
        task: Task,
        update: UpdateMap,
        measure: Measure,
        generator: torch.Generator,
        strategy: StrategyStep | None = None,
        masks: Callable[[int], int] | None = None,
        batch: int | None = None,
    ) -> None:
        self._measure, self._update = measure, update
        self._seeded = model.two_modes
        loss = model.loss(task) if strategy is None else strategy.loss_of(0)
        stored = (task.train.x, task.train.y) if strategy is None else strategy.data_of(0)
        data: Data = stored
        products = hessian_products(model, task) if strategy is None else None
        masks = masks if self._seeded else None
        if masks is not None:
            own = by_rows(model, task) if strategy is None else loss
            loss = SeededLoss(own, model, masks, batch)
            data, products = lookup(stored[0]), loss.products()
        self._tracker = PhaseTracker(
            loss,
            update if strategy is None else strategy.update_of(update, 0, masks),
            tangents=measure.tangents,
            log_volume_probes=measure.log_volume_probes,
            log_volume_nodes=measure.log_volume_nodes,
            log_volume_columns=measure.log_volume_columns,
            generator=generator,
            data=data,
            layout=model.layout,
            products=products,
        )
        self._retraced = 0

    def observe(self, step: Step) -> None:
        """Follow replica 0 through one step.

        Args:
            step: The step.
        """
        state = tuple(part[0] for part in step.before)
        index = None if step.index is None else step.index[0]
        x, y = step.x[0], step.y[0]
        if self._seeded:
            assert index is not None
            y = index = marked(index, step.count)
        if step.count <= CHECKED_STEPS:
            seen = (state, x, y, step.lr, step.count, self._update)
            check_step(self.trajectory.loss, TrainingStep(*seen))
        follow = self._tracker.retrace if step.count <= self._retraced else self._tracker.step
        follow(state, x, y, step.lr, index=index)

    def state(self) -> dict[str, Tensor]:
        """Give what `restore` needs to go on from here, but for the trajectory.

        Returns:
            Tensors by name; they grow with the tangents, not with the steps times P.
        """
        return self._tracker.state() | {"steps": torch.tensor(len(self._tracker.trajectory))}

    def restore(self, kept: dict[str, Tensor]) -> None:
        """Go on where `state` was taken, once the steps up to there were seen again.

        Args:
            kept: What `state` gave.
        """
        self._retraced = int(kept["steps"])
        self._tracker.restore({name: part for name, part in kept.items() if name != "steps"})

    def retrace_all(self) -> None:
        """See the steps for the trajectory alone: everything else was measured before."""
        self._retraced = sys.maxsize

    @property
    def trajectory(self) -> Trajectory:
        """The recorded steps."""
        return self._tracker.trajectory

    def finish(self, generator: torch.Generator) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Resolve the spectrum.

        Args:
            generator: Source of the starting block.

        Returns:
            The phase's log-volume, tangents and spectrum in plain JSON types; and what goes into
            `spectra.safetensors`: singular values, residuals and per-step log-volumes, float64.
        """
        log_volume = self._tracker.log_volume()
        try:
            found = self._tracker.spectrum(
                top=self._measure.top_values,
                sweeps=self._measure.sweeps,
                moved_sweeps=self._measure.moved_sweeps,
                generator=generator,
            )
        except (FloatingPointError, LostTrajectory) as error:
            found = lost_spectrum(str(error))
        record = {
            "log_volume": log_volume.to_dict(),
            "tangents": self._measure.tangents,
            "spectrum": found.to_dict(),
        }
        values = found.singular_values
        return record, {
            "singular_values": torch.tensor([s.value for s in values], dtype=torch.float64),
            "residuals": torch.tensor([s.residual for s in values], dtype=torch.float64),
            "log_volume_steps": self._tracker.log_volume_steps(),
        }


def transport_entry(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write down J_t of a task, as the result schema has it.

    Args:
        records: What `finish` gave for the tasks up to this one, in order, at least one.

    Returns:
        The `.transport` entry of a phase.
    """
    latest = records[-1]
    total = composed_log_volume([Estimate.from_dict(record["log_volume"]) for record in records])
    return {
        "log_volume": latest["log_volume"],
        "log_volume_total": total.to_dict(),
        **latest["spectrum"],
        "tangents": latest["tangents"],
    }


def composed_spectrum(
    phases: Sequence[Trajectory], measure: Measure, generator: torch.Generator
) -> dict[str, Any]:
    """Resolve the spectrum of J_t over all tasks, which no product of theirs would show.

    Args:
        phases: The phases in order, at least one.
        measure: How much to spend.
        generator: Source of the starting block.

    Returns:
        The spectrum in plain JSON types.
    """
    jacobian = TrainingJacobian(phases)
    try:
        found = spectrum(
            jacobian,
            top=min(measure.top_values, jacobian.size),
            bottom=min(3, jacobian.size),
            sweeps=measure.sweeps,
            moved_sweeps=measure.moved_sweeps,
            generator=generator,
        )
    except (FloatingPointError, LostTrajectory) as error:
        found = lost_spectrum(str(error))
    return found.to_dict()


def composed_log_volume(parts: Sequence[Estimate]) -> Estimate:
    """Add log|det J| over phases: determinants multiply, and probes are independent.

    Args:
        parts: Those of the phases in order.

    Returns:
        The sum; `not_defined` if one phase is.
    """
    if any(part.value is None for part in parts):
        return not_defined("The log-volume of at least one task is not defined.")
    value = sum(part.value or 0.0 for part in parts)
    stderr = sum((part.stderr or 0.0) ** 2 for part in parts) ** 0.5
    notes = " ".join(dict.fromkeys(part.note for part in parts if part.note))
    cost = sum(part.cost for part in parts)
    return from_error(value, stderr, n=parts[0].n, cost=cost, note=notes)
