"""Will learning B make the network forget A? Four forms of the criterion, side by side (ours).

- literal: m_B > R_A, dimensions of parameter space ([II]). Vacuous in over-parameterised networks.
- capacity: what the old tasks leave of the kernel in the modes that B needs (`function_space`).
- transport_cost: how much dearer B becomes when A is to be spared (`function_space`).
- directional: the share of A's samples that learning B carries over their margins (`directional`).

The first three ask how much room there is, which is what avoiding forgetting would cost; plain
training takes no notice of that, and none of them decides real cases. The directional form asks
where B goes, and it alone does: `SOURCE` holds all four against measured forgetting, on task pairs
that chose nothing. It is weakest where each task has a head of its own, so that forgetting goes
through changed features only and is small, and where training is so long that the kernel turns. The
thresholds come from the half of the pairs that chose them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from capacity.base.checks import finite_tensor, positive_float, positive_int
from capacity.base.slow_paths import noting
from capacity.criterion.convergence import Convergence
from capacity.criterion.criterion_verdicts import Verdicts, judge
from capacity.criterion.directional_form import by_flow, by_forecast
from capacity.criterion.function_space import room
from capacity.criterion.output_drift import expected_drift
from capacity.criterion.preserving import default_allowances
from capacity.criterion.transition_kernels import TransitionKernels
from capacity.forecasting.kernel_flow import LOST, learning_time
from capacity.networks.door import fit
from capacity.networks.flat_model import FlatModel
from capacity.networks.own_losses_door import check_outputs_are_known
from capacity.recipe.config import Training
from capacity.records.estimate import Estimate, Status
from capacity.records.intervals import interval
from capacity.tasks.losses import additive
from capacity.tasks.task import Task

SOURCE = "benchmarks/forecast/results/criterion.txt"
"""The committed table whose choosing half gave the constants below."""
KEPT_THRESHOLD = 0.96
"""Share of N_eff kept, below which `capacity` predicts forgetting."""
COST_THRESHOLD = 1.3
"""C above which `transport_cost` predicts forgetting."""

_OUTPUTS = 10
_LEAST_DISPLACEMENT = 1e-6
"""A scale to count by where B is not expected to move theta."""
_BY_FLOW = (
    "It sees where B moves A's outputs; on task pairs that chose nothing it told forgetting from "
    "none best, while counts of dimensions and of room did not."
)
_BY_FORECAST = (
    "Steps of {optimizer!r} that are clipped or scaled by their history are no gradient flow: a "
    "compressed training of the network itself says what becomes of A, while counts of dimensions "
    "and of room see the room only."
)
_DIVERGED = Estimate(value=None, status=Status.DIVERGED, note=LOST)
_UNMOVED = Estimate(
    value=None,
    status=Status.NOT_RESOLVED,
    note="B is not expected to move the parameters, so no displacement says what sparing A costs.",
)
_NOTES = {
    "literal": (
        "m_B > R_A. In an over-parameterised network R_A is about P and m_B a few dozen, so it "
        "almost never fires, and it does not see how the tasks are aligned."
    ),
    "capacity": (
        "Share of the kernel's effective dimensions that sparing A leaves, in B's modes: what "
        "could be learned without forgetting, not what plain training does."
    ),
    "transport_cost": (
        "Squared displacement that B takes if A is spared, over what it takes alone: the price of "
        "not forgetting, not whether plain training forgets."
    ),
}


def _with_warning(verdicts: Verdicts, said: str) -> Verdicts:
    return replace(verdicts, warnings=(*verdicts.warnings, said))


@noting(_with_warning)
@torch.no_grad()
def assess_transition(
    model: FlatModel,
    theta: Tensor,
    old: Sequence[Task],
    new: Task,
    training: Training,
    *,
    tolerance: float | list[float] | tuple[float, ...] | None = None,
    displacement: float | None = None,
    capacity: Estimate | None = None,
    dimension: Estimate | None = None,
    convergence: Convergence | None = None,
    samples: int = 400,
    room_samples: int = 40,
    groups: int = 5,
    seed: int = 0,
) -> Verdicts:
    """Judge, before B is learned, whether it will make the network forget A.

    Args:
        model: The network.
        theta: Its parameters after the old tasks (P,).
        old: Every task learned so far, A; each keeps its own allowance, and the drift is that of
            their average.
        new: The task to come, B.
        training: B's planned training.
        tolerance: a, allowed rise of an old task's mean loss, nats, or one number per old task;
            None takes the noise of each task's loss.
        displacement: d, how far B moves theta; None takes what its gradient flow is expected to.
        capacity: R_A(t) in directions, where it is known; None counts P minus the directions that
            A's curvature takes, all of them accessible.
        dimension: m_B, where it is known; None takes the GGN's stable rank on the samples.
        convergence: How far A is from being learned, where it is known; None measures it on the
            samples of the other forms.
        samples: Most samples of B, and of A, behind the directional form.
        room_samples: The same for the other forms, whose kernels have all outputs (or 10 random
            combinations of more).
        groups: Groups of B's samples in the jackknives; 0 gives no errors.
        seed: Seed of the random combinations.

    Returns:
        The verdicts.

    Raises:
        ValueError: If there is no old task, a task does not fit the network, theta the model, or a
            number its range.
    """
    if not old:
        raise ValueError("old is empty: without a task A there is nothing to forget; pass it first")
    if finite_tensor("theta", theta).shape != (model.size,):
        raise ValueError(f"theta has shape {tuple(theta.shape)}; the model needs ({model.size},)")
    for name, count in (("samples", samples), ("room_samples", room_samples)):
        positive_int(name, count, minimum=2)
    positive_int("groups", groups, minimum=0)
    if displacement is not None:
        positive_float("displacement", displacement)
    *old, new = fit(model, theta, (*old, new), two_modes=True)
    check_outputs_are_known((*old, new), "R_A, m_B and verdicts")
    if tolerance is None:
        tolerance = default_allowances(model, theta, old)
    allowances = list(tolerance) if isinstance(tolerance, list | tuple) else [tolerance] * len(old)
    if len(allowances) != len(old):
        raise ValueError(
            f"tolerance has {len(allowances)} numbers for {len(old)} old tasks; give one for all, "
            "or one each"
        )
    tolerance = math.fsum(positive_float("tolerance", a) for a in allowances) / len(old)
    old, new = [additive(task, task.train) for task in old], additive(new, new.train)

    time = learning_time(training, len(new.train))
    drift, why, moved = None, _BY_FLOW, None
    if time is not None:
        drift = expected_drift(
            model, theta, old, new,
            time=time, new_samples=samples, old_samples=samples, groups=groups,
        )  # fmt: skip
        directional, moved = by_flow(drift, tolerance), drift.displacement.value
    else:
        directional, moved = by_forecast(
            model, theta, old, new, training, tolerance=tolerance, seed=seed
        )
        why = _BY_FORECAST.format(optimizer=training.optimizer)
    kernels = TransitionKernels(
        model, theta, old, new, samples=room_samples, outputs=_OUTPUTS, seed=seed
    )
    alpha = kernels.count / time if time is not None else kernels.needed_eigenvalue()
    spoiled = _DIVERGED if drift is not None and moved is None else None
    derived = displacement is None
    if displacement is None:
        displacement = kernels.displacement(alpha) if moved is None else moved
        if not displacement > _LEAST_DISPLACEMENT:
            displacement, spoiled = _LEAST_DISPLACEMENT, spoiled or _UNMOVED
    thresholds = [2 * a / displacement**2 for a in allowances]

    measured = room(
        kernels.new, kernels.softly(thresholds), kernels.residual,
        alpha=alpha, samples=kernels.count, groups=groups,
    )  # fmt: skip
    measured = replace(
        measured,
        log_volume=_spoiled(measured.log_volume, spoiled),
        kept=_spoiled(measured.kept, spoiled),
        cost=_spoiled(measured.cost, spoiled),
        extra=_spoiled(measured.extra, spoiled),
    )
    taken = kernels.removed(thresholds)
    removed = len(taken)
    room_left = capacity or Estimate(value=float(model.size - removed))
    need = dimension or kernels.dimension(taken, groups=groups)
    # What is known of R_A and m_B does not hang on the displacement derived here.
    literal = _difference(room_left, need)
    if derived and (capacity is None or dimension is None):
        literal = _spoiled(literal, spoiled)
    return Verdicts(
        literal=judge("literal", literal, 0.0, fires_above=False, note=_NOTES["literal"]),
        capacity=judge(
            "capacity", measured.kept, KEPT_THRESHOLD, fires_above=False, note=_NOTES["capacity"]
        ),
        transport_cost=judge(
            "transport_cost", measured.cost, COST_THRESHOLD,
            fires_above=True, note=_NOTES["transport_cost"],
        ),
        directional=directional,
        decides="directional",
        why=why,
        room=measured,
        drift=drift,
        removed=removed,
        tolerance=tolerance,
        displacement=displacement,
        time=time,
        warnings=_warnings(
            kernels, thresholds, allowances, removed, training,
            flow=time is not None, convergence=convergence,
        ) + _of_mode(model),
        source=SOURCE,
    )  # fmt: skip


def _difference(room_left: Estimate, need: Estimate) -> Estimate:
    """R_A - m_B with the errors of both."""
    if room_left.value is None or need.value is None:
        return need if need.value is None else room_left
    known = [e.stderr for e in (room_left, need) if e.stderr is not None]
    value = room_left.value - need.value
    if not known:
        return Estimate(value=value)
    stderr = math.hypot(*known)
    return Estimate(value=value, stderr=stderr, interval=interval(value, stderr))


def _spoiled(value: Estimate, by: Estimate | None) -> Estimate:
    """Mark a value whose inputs are not what they stand for: it must not be judged by."""
    if by is None or value.value is None:
        return value
    return replace(value, status=by.status, note=by.note)


def _of_mode(model: FlatModel) -> tuple[str, ...]:
    """Say which network is judged, where it trains as another."""
    if not model.two_modes:
        return ()
    return (
        f"Judged is the network in evaluation mode, as it is scored; {model.modes.named} trains "
        "otherwise.",
    )


def _warnings(
    kernels: TransitionKernels,
    thresholds: list[float],
    allowances: list[float],
    removed: int,
    training: Training,
    *,
    flow: bool,
    convergence: Convergence | None,
) -> tuple[str, ...]:
    made = []
    if kernels.sketched:
        made.append(
            f"Capacity and cost are measured on {_OUTPUTS} random combinations of the outputs."
        )
    # One quantity has one reader: what was measured already is not measured again otherwise.
    if convergence is None:
        convergence = kernels.convergence(thresholds, allowances)
    if convergence.note:
        made.append(convergence.note)
    if removed >= kernels.size:
        made.append("The projector keeps nothing: every direction costs A more than tolerated.")
    if training.decays and flow:
        made.append("The gradient flow leaves weight decay out.")
    if training.curriculum is not None and flow:
        made.append("The gradient flow leaves the curriculum out.")
    if training.strategy.name != "naive":
        made.append(
            f"The verdict is for plain training: the strategy {training.strategy.name!r} is left "
            "out."
        )
    return tuple(made)
