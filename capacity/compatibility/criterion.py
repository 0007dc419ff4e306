"""Will learning B make the network forget A? Four forms of the criterion, side by side (ours).

- literal: m_B > R_A, dimensions of parameter space ([II]). Vacuous in over-parameterised networks.
- capacity: what the old tasks leave of the kernel in the modes that B needs (`function_space`).
- transport_cost: how much dearer B becomes when A is to be spared (`function_space`).
- directional: the share of A's samples that B's gradient flow carries over their margins (`drift`).

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

import torch
from torch import Tensor

from capacity.checks import finite_tensor, positive_float, positive_int
from capacity.compatibility.drift import Drift, expected_drift
from capacity.compatibility.function_space import restrict_soft, room
from capacity.compatibility.kernel_flow import learning_time
from capacity.compatibility.output_space import check_fit
from capacity.compatibility.preserving import default_tolerance
from capacity.compatibility.transition_kernels import TransitionKernels
from capacity.compatibility.verdicts import FormVerdict, Verdicts, judge, own_half_width
from capacity.config import Training
from capacity.dynamics.flat import FlatModel
from capacity.estimate import Z90, Estimate, Status, not_defined
from capacity.tasks.task import Task

SOURCE = "benchmarks/forecast/results/criterion.txt"
"""The committed table whose choosing half gave the constants below."""
KEPT_THRESHOLD = 0.96
"""Share of N_eff kept, below which `capacity` predicts forgetting."""
COST_THRESHOLD = 1.3
"""C above which `transport_cost` predicts forgetting."""
LOST_THRESHOLD = 0.061
"""Share of A lost above which `directional` predicts forgetting."""
LOST_STRETCH = 0.95
"""Factor that makes intervals of the share lost hold 90 % of the measured drops."""
LOST_FLOOR = 0.01
"""Added to their half-width before: where no sample changes sides there is no spread to see."""

_OUTPUTS = 10
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
    "directional": "Share of A's held-out samples that B's gradient flow carries over the margin.",
}


@torch.no_grad()
def assess_transition(
    model: FlatModel,
    theta: Tensor,
    old: Sequence[Task],
    new: Task,
    training: Training,
    *,
    tolerance: float | None = None,
    displacement: float | None = None,
    capacity: Estimate | None = None,
    dimension: Estimate | None = None,
    samples: int = 400,
    room_samples: int = 40,
    groups: int = 5,
    seed: int = 0,
) -> Verdicts:
    """Judge, before B is learned, whether it will make the network forget A.

    Args:
        model: The network.
        theta: Its parameters after the old tasks (P,).
        old: Every task learned so far; A is their average.
        new: The task to come, B.
        training: B's planned training.
        tolerance: a, allowed rise of A's mean loss, nats; None takes the noise of that loss.
        displacement: d, how far B moves theta; None takes what its gradient flow is expected to.
        capacity: R_A(t) in directions, where it is known; None counts P minus the directions that
            A's curvature takes, all of them accessible.
        dimension: m_B, where it is known; None takes the GGN's stable rank on the samples.
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
    check_fit(model, theta, (*old, new))
    if tolerance is None:
        tolerance = default_tolerance(model, theta, old)
    positive_float("tolerance", tolerance)

    time = learning_time(training, len(new.train))
    drift = None
    if time is not None:
        drift = expected_drift(
            model, theta, old, new,
            time=time, new_samples=samples, old_samples=samples, groups=groups,
        )  # fmt: skip
    kernels = TransitionKernels(
        model, theta, old, new, samples=room_samples, outputs=_OUTPUTS, seed=seed
    )
    alpha = kernels.count / time if time is not None else kernels.needed_eigenvalue()
    if displacement is None:
        known = drift.displacement.value if drift is not None else None
        displacement = kernels.displacement(alpha) if known is None else known
        # A task that is learned already moves nothing, and any small scale will do.
        displacement = max(displacement, 1e-6)
    threshold = 2 * tolerance / displacement**2

    restricted = restrict_soft(kernels.new, kernels.cross, kernels.old, 1 / threshold)
    measured = room(
        kernels.new, restricted, kernels.residual,
        alpha=alpha, samples=kernels.count, groups=groups,
    )  # fmt: skip
    removed = kernels.removed(threshold)
    room_left = capacity or Estimate(value=float(model.size - removed))
    need = dimension or kernels.dimension(threshold, groups=groups)
    directional = _directional(drift, training, tolerance)
    decides, why = _decide(directional)
    return Verdicts(
        literal=judge(
            "literal", _difference(room_left, need), 0.0, fires_above=False, note=_NOTES["literal"]
        ),
        capacity=judge(
            "capacity", measured.kept, KEPT_THRESHOLD, fires_above=False, note=_NOTES["capacity"]
        ),
        transport_cost=judge(
            "transport_cost", measured.cost, COST_THRESHOLD,
            fires_above=True, note=_NOTES["transport_cost"],
        ),
        directional=directional,
        decides=decides,
        why=why,
        room=measured,
        drift=drift,
        removed=removed,
        tolerance=tolerance,
        displacement=displacement,
        time=time,
        warnings=_warnings(kernels, threshold, tolerance, removed, training),
        source=SOURCE,
    )  # fmt: skip


def _directional(drift: Drift | None, training: Training, tolerance: float) -> FormVerdict:
    if drift is None:
        lost = not_defined(
            f"Steps of {training.optimizer!r}, clipped or scaled by their history, are no gradient "
            "flow; the expected drift of A's outputs is not known."
        )
        return judge("directional", lost, LOST_THRESHOLD, fires_above=True)
    if drift.lost.status is Status.NOT_DEFINED:
        # Regression has no accuracy: a rise of the loss beyond its own noise is forgetting.
        note = "Expected rise of A's loss under B's gradient flow, against the tolerance."
        return judge("directional", drift.loss_rise, tolerance, fires_above=True, note=note)
    return judge(
        "directional", drift.lost, LOST_THRESHOLD,
        fires_above=True, note=_NOTES["directional"], half_width=lost_half_width(drift.lost),
    )  # fmt: skip


def lost_half_width(lost: Estimate, *, stretch: float = LOST_STRETCH) -> float:
    """Widen the interval of the share lost by what it does not know: the linearisation's error.

    Where few samples of B decide, or A's are close to their margins, the linearisation errs most,
    too: the interval is stretched, not added to, until it held 90 % of the drops that were measured
    on the choosing half (split conformal prediction with a normalised score).

    Args:
        lost: Expected share lost.
        stretch: The factor.

    Returns:
        Half of the 90 % interval for the drop of accuracy to come.
    """
    return stretch * (own_half_width(lost) + LOST_FLOOR)


def _difference(room_left: Estimate, need: Estimate) -> Estimate:
    """R_A - m_B with the errors of both."""
    if room_left.value is None or need.value is None:
        return need if need.value is None else room_left
    known = [e.stderr for e in (room_left, need) if e.stderr is not None]
    value = room_left.value - need.value
    if not known:
        return Estimate(value=value)
    stderr = math.hypot(*known)
    return Estimate(
        value=value, stderr=stderr, interval=(value - Z90 * stderr, value + Z90 * stderr)
    )


def _decide(directional: FormVerdict) -> tuple[str, str]:
    if directional.margin is not None:
        return "directional", (
            "It sees where B moves A's outputs; on task pairs that chose nothing it told "
            "forgetting from none best, while counts of dimensions and of room did not."
        )
    return "transport_cost", (
        "The expected drift of A's outputs is not known; the transport cost is what is left, and "
        "tells less."
    )


def _warnings(
    kernels: TransitionKernels,
    threshold: float,
    tolerance: float,
    removed: int,
    training: Training,
) -> tuple[str, ...]:
    made = []
    if kernels.sketched:
        made.append(
            f"Capacity and cost are measured on {_OUTPUTS} random combinations of the outputs."
        )
    remaining = kernels.remaining(threshold)
    if remaining > tolerance:
        norm = float(kernels.gradient.double().norm())
        made.append(
            f"A is not converged: its gradient has norm {norm:.3g}, and its loss could still fall "
            f"by {remaining:.3g}, more than the tolerance of {tolerance:.3g}. Counts of preserving "
            "directions hold where it is 0."
        )
    if removed >= kernels.size:
        made.append("The projector keeps nothing: every direction costs A more than tolerated.")
    if training.weight_decay:
        made.append("The gradient flow leaves weight decay out.")
    if training.strategy.name != "naive":
        made.append(
            f"The verdict is for plain training: the strategy {training.strategy.name!r} is left "
            "out."
        )
    return tuple(made)
