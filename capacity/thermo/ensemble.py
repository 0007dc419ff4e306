"""Ensembles: N replicas of one system, moved together and measured while they move.

The replicas go in chunks that fit a memory budget, one at a time where they must. Each has its own
initialisation, data order and noise, which depend on its number alone: neither the chunks nor the
other replicas change where it goes. Every step is read once and summed up; positions are kept at
the checkpoints only, on disk where memory does not hold them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from capacity.base.checks import finite_tensor, positive_float, positive_int
from capacity.base.random_streams import stream
from capacity.optimizers.dynamics import Dynamics
from capacity.optimizers.optimizer import Optimizer, stated
from capacity.optimizers.update_map import UpdateMap
from capacity.thermo.action import checked_ratio
from capacity.thermo.chunk_memory import chunk_size
from capacity.thermo.ensemble_record import (
    Checkpoint,
    EnsembleRecord,
    Excluded,
    Series,
    Start,
)
from capacity.thermo.entropy import gaussian_bound
from capacity.thermo.gram_matrices import layer_grams, squared_distance
from capacity.thermo.landscape import BatchEnergies, Energies, Landscape
from capacity.thermo.observers import LogDetMeter, StreamMeter
from capacity.thermo.positions import Positions
from capacity.thermo.update_kinds import check_update, of_replicas, time_scale_of
from capacity.training.loop import Slope, steps

MARKS = 100
"""Most steps at which the running sums are kept, where the caller names none."""
_NEWS_EVERY = 10.0


class Ensemble:
    """N replicas, and where they stand.

    Args:
        initial: Positions (N, P), or a function of the replica's number that gives (P,), called
            once per replica: the start of an ensemble too large for memory.
        replicas: N, where `initial` is a function.
        start: Law of the initial positions; `Start.DELTA` where all are one point.
        entropy_start: Its differential entropy H_0 in nats, where it is known, -inf on a subspace;
            Langevin dynamics needs it for Sigma.
        memory: Bytes that replicas may take together while they move; half of it holds positions
            before they go to disk.
        folder: Where positions go that memory does not hold; None takes the system's own.

    Raises:
        ValueError: If positions are not (N, P) or not finite, or their number is missing.
    """

    def __init__(
        self,
        initial: Tensor | Callable[[int], Tensor],
        *,
        replicas: int | None = None,
        start: Start = Start.COLD,
        entropy_start: float | None = None,
        memory: int = 1 << 30,
        folder: Path | None = None,
    ) -> None:
        if isinstance(initial, Tensor):
            finite_tensor("initial", initial)
            if initial.dim() != 2 or not initial.is_floating_point():
                raise ValueError(
                    f"initial has shape {tuple(initial.shape)} and dtype {initial.dtype}; pass "
                    "positions (N, P) of a floating-point dtype"
                )
            replicas, first = len(initial), initial[0]
        elif replicas is None:
            raise ValueError("replicas is None; give their number beside a function `initial`")
        else:
            first = initial(0)
        self.count = positive_int("replicas", replicas)
        self.start, self.entropy_start = start, entropy_start
        self._memory = positive_int("memory", memory)
        self._folder = folder
        self._device = first.device
        self._lost: dict[int, Excluded] = {}
        held = Positions(1, (self.count, first.numel()), first, memory=memory // 2, folder=folder)
        for i in range(self.count):
            held.put(0, [i], (initial[i] if isinstance(initial, Tensor) else initial(i))[None])
        self._theta = held.slots[0]

    @property
    def theta(self) -> Tensor:
        """Where the replicas stand (N, P); rows of replicas that diverged are not finite."""
        return self._theta

    def learn(
        self,
        landscape: Landscape,
        update: UpdateMap,
        rates: Sequence[float],
        *,
        checkpoints: Sequence[int] = (),
        marks: Sequence[int] | None = None,
        log_volume: int = 0,
        seed: int = 0,
        chunk: int | None = None,
    ) -> EnsembleRecord:
        """Move the replicas and measure how they moved. They stay where they arrive.

        No step, arguments that do not fit each other, and a training in which every replica
        diverged are a ValueError.

        Args:
            landscape: The energy that they descend, its coupled weight decay included.
            update: How; its noise, if any, is that of each replica's own number.
            rates: dt of every step.
            checkpoints: Steps after which positions and Gram matrices are kept, besides the end.
            marks: Steps after which the running sums are kept, besides the end; None takes some
                100 of them.
            log_volume: Hessian products per step and replica for log|det J|; 0 for none.
            seed: Seed of the probes of the log-volume.
            chunk: Replicas that move together; None takes what the memory budget allows.

        Returns:
            What was measured.
        """
        rates = [positive_float("rates", float(rate)) for rate in rates]
        stops = _stops("checkpoints", checkpoints, len(rates))
        spaced = range(1, len(rates) + 1, -(-len(rates) // MARKS))
        read = sorted({*stops, *_stops("marks", spaced if marks is None else marks, len(rates))})
        moved_by = stated(update)
        kind = moved_by.dynamics(full=landscape.full)
        check_update(moved_by, kind, log_volume)
        made = Positions(
            len(stops),
            (self.count, self._theta.shape[1]),
            self._theta,
            memory=self._memory // 2,
            folder=self._folder,
        )
        plan = _Plan(landscape, moved_by, rates, stops, read, log_volume, seed)
        together = chunk or chunk_size(plan.landscape, update, self._row(0), self._memory)
        parts, began = [], time.monotonic()
        for first in range(0, self.count, together):
            replicas = range(first, min(first + together, self.count))
            parts.append(self._move(plan, replicas, made))
            if time.monotonic() - began > _NEWS_EVERY and replicas.stop < self.count:
                sys.stderr.write(f"{replicas.stop} of {self.count} replicas moved\n")
                began = time.monotonic()
        record = self._record(plan, kind, _joined(parts), made)
        self._theta = made.slots[-1]
        self.start, self.entropy_start = Start.WARM, None
        return record

    def _row(self, replica: int) -> Tensor:
        return self._theta[replica : replica + 1].to(self._device)

    def _move(self, plan: _Plan, replicas: range, made: Positions) -> dict[str, Any]:
        """Move some replicas together."""
        landscape, update = plan.landscape, of_replicas(plan.update, replicas.start)
        theta = self._theta[replicas.start : replicas.stop].to(self._device)
        state = update.init(theta)
        kinetic = update.kinetic_energy(state, None, plan.rates[0])
        standing = landscape.full and not landscape.moving
        meter = StreamMeter(
            plan.marks,
            curved=standing and update.symmetric_decay is not None,
            noisy=update.dynamics(full=True).noisy,
        )
        volumes = None
        if plan.log_volume:
            seeds = [stream(plan.seed, "log-volume", r) for r in replicas]
            volumes = LogDetMeter(plan.log_volume, seeds)
        energies = [landscape.energies(theta, 0.0).cpu()]
        heat = torch.zeros(len(replicas), dtype=torch.float64)
        heats, log_dets = [], []
        along = landscape.steps(replicas, [*plan.rates, plan.rates[-1]])
        energy = next(along)

        def slope_at(lr: float, point: Tensor) -> Slope:
            loss, gradient, product = _gradient(energy, point, keep=volumes is not None)
            if volumes is not None:
                volumes.add(lr, theta.shape[1], product, theta)
            return Slope(gradient, loss, lr)

        for step in steps(update, state, (partial(slope_at, lr) for lr in plan.rates)):
            meter.add(step.lr, step.before[0], step.after[0], step.gradient, step.loss)
            if landscape.moving:
                with torch.no_grad():
                    heat = heat + (step.loss.double() - energy(step.after[0]).double()).cpu()
            last, state = step.before, step.after
            if step.count in plan.marked:
                heats.append(heat)
                if volumes is not None:
                    log_dets.append(volumes.sum.cpu())
            if step.count in plan.stopped:
                made.put(plan.stops.index(step.count), replicas, state[0])
                energies.append(landscape.energies(state[0], meter.time).cpu())
            energy = next(along)
        # There is one energy more than rates: it gives the gradient where the last step arrives.
        series = meter.finish(_gradient(energy, state[0])[1])
        return {
            "series": replace(
                series,
                heat=torch.stack(heats) if landscape.moving else None,
                log_det=torch.stack(log_dets) if log_dets else None,
            ),
            "energies": torch.stack(energies),
            "lost": meter.lost.cpu(),
            "first_kinetic": kinetic,
            "last_kinetic": update.kinetic_energy(state, last, plan.rates[-1]),
            "folds": _most(meter.folds, None if volumes is None else volumes.folds),
        }

    def _record(
        self, plan: _Plan, kind: Dynamics, moved: dict[str, Any], made: Positions
    ) -> EnsembleRecord:
        """Read the Gram matrices of the replicas that stayed finite."""
        finite = torch.isfinite(moved["energies"]).all(0)
        for i, step in enumerate(moved["lost"].tolist()):
            if (step or not finite[i]) and i not in self._lost:
                self._lost[i] = Excluded(i, step or len(plan.rates))
        kept = [i for i in range(self.count) if i not in self._lost]
        if not kept:
            first = min(e.step for e in self._lost.values())
            raise ValueError(
                f"rates: all {self.count} replicas diverged, the first at step {first}; use a "
                "smaller learning rate"
            )
        rows = torch.tensor(kept)
        layout = plan.landscape.layout(self._theta.shape[1])
        sizes = dict(layout)
        series = moved["series"].select(rows)
        times = dict(zip(series.step.tolist(), series.time.tolist(), strict=True))
        scale = time_scale_of(plan.update)
        marks = []
        for k, ((before, after), step) in enumerate(
            zip(pairwise([self._theta, *made.slots]), plan.stops, strict=True)
        ):
            marks.append(
                Checkpoint(
                    step=step,
                    time=times[step],
                    energy=moved["energies"][k + 1][rows],
                    grams=layer_grams(self._theta, after, sizes, rows=rows),
                    leg_sq=squared_distance(before, after, rows=rows),
                    entropy=gaussian_bound(after, rows=rows),
                )
            )
        # Cauchy-Schwarz holds for every path; if it fails here, the accounting above is wrong.
        squared = marks[-1].grams.moved.diagonal(dim1=-2, dim2=-1).sum(0)
        checked_ratio(times[plan.stops[-1]], series.action[-1], squared)
        picked = {
            name: None if moved[name] is None else moved[name][rows]
            for name in ("first_kinetic", "last_kinetic", "folds")
        }
        return EnsembleRecord(
            dynamics=kind,
            optimizer=plan.update.name,
            temperature=float(getattr(plan.update, "temperature", 0.0)),
            full=plan.landscape.full,
            start=self.start,
            replicas=tuple(kept),
            excluded=tuple(self._lost[i] for i in sorted(self._lost)),
            layout=layout,
            learning_time=times[plan.stops[-1]] * scale,
            energy_start=moved["energies"][0][rows],
            entropy_start=self.entropy_start,
            entropy_start_bound=gaussian_bound(self._theta, rows=rows),
            series=series,
            checkpoints=tuple(marks),
            theta_start=self._theta,
            theta=tuple(made.slots),
            time_scale=scale,
            **picked,
        )


@dataclass(frozen=True)
class _Plan:
    """What one call of `learn` does."""

    landscape: Landscape
    update: Optimizer
    rates: list[float]
    stops: list[int]
    marks: list[int]
    log_volume: int
    seed: int

    @cached_property
    def marked(self) -> frozenset[int]:
        return frozenset(self.marks)

    @cached_property
    def stopped(self) -> frozenset[int]:
        return frozenset(self.stops)


def _stops(argument: str, steps: Sequence[int], total: int) -> list[int]:
    if total < 1:
        raise ValueError("rates is empty; give the dt of at least one step")
    wrong = [s for s in steps if not 1 <= s <= total]
    if wrong:
        raise ValueError(f"{argument} has step {wrong[0]!r}; accepted: 1 to {total}, the last step")
    return sorted({*steps, total})


def _gradient(
    energy: Energies, theta: Tensor, *, keep: bool = False
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """Energies, gradients and, with `keep`, products with the Hessian, of independent rows."""
    if isinstance(energy, BatchEnergies):
        gradient, values = energy.gradient(theta)
        return values, gradient, partial(energy.product, theta)
    with torch.enable_grad():
        rows = theta.detach().requires_grad_()
        values = energy(rows)
        (gradient,) = torch.autograd.grad(values.sum(), rows, create_graph=keep)

    def product(v: Tensor) -> Tensor:
        # A linear energy has no graph left to differentiate; its Hessian is 0.
        if not gradient.requires_grad:
            return torch.zeros_like(v)
        return torch.autograd.grad(gradient, rows, v, retain_graph=True)[0]

    return values.detach(), gradient.detach(), product


def _most(along: Tensor | None, probed: Tensor | None) -> Tensor | None:
    """Steps that fold (n,), as the steps themselves or the probes show more of them."""
    seen = [folds.cpu() for folds in (along, probed) if folds is not None]
    return torch.stack(seen).amax(0) if seen else None


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Put the chunks side by side."""
    series = [part.pop("series") for part in parts]
    fields = {}
    for name, value in vars(series[0]).items():
        together = isinstance(value, Tensor) and value.dim() == 2
        fields[name] = torch.cat([getattr(s, name) for s in series], 1) if together else value
    made: dict[str, Any] = {
        name: None if value is None else torch.cat([part[name] for part in parts], -1)
        for name, value in parts[0].items()
    }
    return {**made, "series": Series(**fields)}
