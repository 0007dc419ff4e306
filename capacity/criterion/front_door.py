"""Capacity, dimension and verdicts for a network that somebody has, without a run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from capacity.base.ambient import in_own_precision
from capacity.base.checks import positive_float, positive_int, resolve_device
from capacity.criterion.criterion import Verdicts, assess_transition
from capacity.criterion.task_dimension import Dimension
from capacity.criterion.transition import CapacityRecord, assess
from capacity.jacobian.tracker import TransportTracker
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.networks.belief import believed
from capacity.networks.door import fit
from capacity.networks.flat_model import FlatModel
from capacity.networks.own_losses_door import check_outputs_are_known
from capacity.recipe.config import Measure, Training
from capacity.tasks.loaders import with_loader_batches
from capacity.tasks.scoring import scored_on, words_of_all
from capacity.tasks.task import LossFunction, Task
from capacity.tasks.tensors import as_task, old_tasks_of


@in_own_precision
def compatible_capacity(
    model: nn.Module,
    *,
    old: object,
    new: object = None,
    jacobian: TransportTracker | TrainingJacobian | None = None,
    tolerance: float | None = None,
    displacement: float | None = None,
    eps: Sequence[float] = (0.1,),
    loss: str | LossFunction = "cross_entropy",
    samples: int = 512,
    seed: int = 0,
    device: str | torch.device = "auto",
) -> CapacityRecord:
    """Measure the room that old tasks leave in a network: the compatible capacity R_A(t).

    R_A(t) = 1/2 log det(1 + eps^-2 J' P_A J): how many directions keep the old tasks (P_A) and are
    still reached by training (J); theory.md#compatible-capacity. Old tasks that are not learned yet
    (their gradient is large) are said in a warning, since "keeping" them is then a first-order
    matter. A network with dropout or batch norm is measured in evaluation mode, as it is scored.
    The model is not changed.

    Args:
        model: The network as it is after the old tasks; only `requires_grad` parameters count.
        old: The old task, or a *list* of them. A task is a `Task`, an `(x, y)` pair of tensors, a
            pair of such pairs (train, test), a `Dataset`, a `DataLoader`, or an Avalanche
            experience.
        new: The task to come, in one of the same forms: adds what it needs (m_B) and the verdicts.
        jacobian: The training so far: the `TransportTracker` that watched it, or the
            `TrainingJacobian` of one; None counts every preserving direction as accessible.
        tolerance: Allowed rise a of the old tasks' mean loss; None takes the standard error of
            their own test loss.
        displacement: How far d a direction is moved; a direction of curvature lambda preserves if
            lambda d^2 / 2 <= a. None takes how far the tracked training moved the parameters.
        eps: Scales below which a displacement does not count; the first is the headline.
        loss: Loss of the tasks that do not bring one: `cross_entropy`, `mse`, or a function of
            (outputs, targets) that returns the mean.
        samples: Most samples of a task behind its curvature.
        seed: Seed of the random probes.
        device: Where to compute: auto, cpu, cuda or cuda:N.

    Returns:
        The record: `capacity[0].directions` and `.nats` with their errors, `preserving`,
        `convergence`, `sensitivity` to tolerance and eps, and with `new` also `dimension` and
        `literal`.

    Raises:
        ValueError: If the model, a task, a number or the device cannot be used; the message says
            which and why.

    Example:
        >>> import torch, capacity
        >>> model = torch.nn.Linear(4, 2)
        >>> x, y = torch.randn(32, 4), torch.randint(2, (32,))
        >>> made = capacity.compatible_capacity(model, old=(x, y), tolerance=10.0, displacement=1.0)
        >>> made.capacity[0].directions.value  # all 10 parameters: nothing costs a loss of 10
        10.0
    """
    where = resolve_device(device)
    flat = FlatModel(model)
    old_tasks = _old_tasks(old, loss)
    new_task = None if new is None else as_task(new, name="new", loss=loss)
    theta = flat.to(where).initial()
    given = old_tasks if new_task is None else (*old_tasks, new_task)
    made = fit(flat, theta, [task.to(where) for task in given], two_modes=True)
    check_outputs_are_known(made, "R_A and m_B")
    old_tasks = made[: len(old_tasks)]
    new_task = None if new_task is None else made[-1]
    operator = jacobian.jacobian() if isinstance(jacobian, TransportTracker) else jacobian
    if operator is not None and not isinstance(operator, TrainingJacobian):
        raise ValueError(
            f"jacobian is a {type(jacobian).__name__}; pass the TransportTracker that watched the "
            "training, its jacobian(), or None"
        )
    if operator is not None and operator.size != flat.size:
        raise ValueError(
            f"jacobian is of {operator.size} parameters, the model has {flat.size}; pass the "
            "tracker of this model's training"
        )
    if displacement is None and operator is None:
        raise ValueError(
            "displacement is None, and no tracked training says how far a task moves the "
            "parameters; pass displacement (the norm of the change of the parameters that a task "
            "makes, say), or jacobian=tracker"
        )
    measure = Measure(
        tolerance=None if tolerance is None else positive_float("tolerance", tolerance),
        displacement=None if displacement is None else positive_float("displacement", displacement),
        eps=tuple(positive_float("eps", e) for e in eps),
        curvature_samples=positive_int("samples", samples),
    )
    moved = 1.0 if operator is None or displacement is not None else _moved(operator, theta)
    record = assess(
        flat,
        theta,
        old_tasks,
        new_task,
        operator,
        measure,
        displacement=moved,
        generator=torch.Generator(where).manual_seed(seed),
    )
    if record.convergence.note:
        warnings.warn(record.convergence.note, stacklevel=3)
    return _labelled(record, old_tasks)


@in_own_precision
def task_dimension(
    model: nn.Module,
    *,
    old: object,
    new: object,
    jacobian: TransportTracker | TrainingJacobian | None = None,
    tolerance: float | None = None,
    displacement: float | None = None,
    loss: str | LossFunction = "cross_entropy",
    samples: int = 512,
    seed: int = 0,
    device: str | torch.device = "auto",
) -> Dimension:
    """Measure how many dimensions a new task needs of the room that old tasks leave: m_B.

    m_B is the stable rank of the new task's Hessian on the directions that keep the old tasks
    (theory.md#task-dimension). Arguments and errors are those of `compatible_capacity`.

    Args:
        model: The network as it is after the old tasks.
        old: The old task, or a *list* of them.
        new: The task to come.
        jacobian: The tracked training so far; only for the default of `displacement`.
        tolerance: Allowed rise of the old tasks' mean loss.
        displacement: How far a direction is moved.
        loss: Loss of the tasks that do not bring one.
        samples: Most samples of a task behind its curvature.
        seed: Seed of the random probes.
        device: Where to compute.

    Returns:
        Stable rank, intrinsic dimension, largest curvature; `no_demand` where the task asks
        nothing of the preserving space.

    Raises:
        ValueError: If `new` is None; else as in `compatible_capacity`.

    Example:
        >>> import torch, capacity
        >>> model = torch.nn.Linear(4, 2)
        >>> x, y = torch.randn(32, 4), torch.randint(2, (32,))
        >>> made = capacity.task_dimension(
        ...     model, old=(x, y), new=(x, 1 - y), tolerance=10.0, displacement=1.0
        ... )
        >>> 1 <= made.stable_rank.value <= 10
        True
    """
    if new is None:
        raise ValueError("new is None; m_B is the dimension of a new task: pass its data")
    if displacement is None and jacobian is not None:
        tracked = jacobian.jacobian() if isinstance(jacobian, TransportTracker) else jacobian
        displacement = _moved(tracked, FlatModel(model).initial())
    # J_t has no part in m_B, and the identity in its place costs nothing.
    made = compatible_capacity(
        model,
        old=old,
        new=new,
        tolerance=tolerance,
        displacement=displacement,
        loss=loss,
        samples=samples,
        seed=seed,
        device=device,
    )
    assert made.dimension is not None
    return made.dimension


@in_own_precision
def verdict(
    model: nn.Module,
    *,
    old: object,
    new: object,
    training: Training | None = None,
    capacity: CapacityRecord | None = None,
    tolerance: float | None = None,
    displacement: float | None = None,
    loss: str | LossFunction = "cross_entropy",
    samples: int = 400,
    seed: int = 0,
    device: str | torch.device = "auto",
) -> Verdicts:
    """Judge whether learning a new task will make a network forget old ones, before it is learned.

    Four forms of the criterion, each with its margin and uncertainty, and `undecided` where the
    interval holds the threshold. The literal one, m_B > R_A, practically never fires in an
    over-parameterised network; `decides` names the form to read, `why` says why.

    Args:
        model: The network as it is after the old tasks; it is not changed.
        old: The old task, or a *list* of them, as in `compatible_capacity`.
        new: The task to come.
        training: How it would be learned; None takes `Training()`.
        capacity: What `compatible_capacity` found for the same tasks: its R_A and m_B stand in the
            literal form, and its tolerance is taken. None counts every direction as accessible.
        tolerance: Allowed rise of the old tasks' mean loss; None takes that of `capacity`, or the
            standard error of their own test loss.
        displacement: How far the new task moves the parameters; None takes what is expected.
        loss: Loss of the tasks that do not bring one.
        samples: Most samples of each side.
        seed: Seed of random combinations of outputs.
        device: Where to compute: auto, cpu, cuda or cuda:N.

    Returns:
        The verdicts: `.verdict`, `.decides`, `.why`, one record per form, `.warnings`.

    Raises:
        ValueError: If the model, a task, a number or the device cannot be used; the message says
            which and why.

    Example:
        >>> import torch, capacity
        >>> model = torch.nn.Linear(4, 2)
        >>> x = torch.randn(64, 4)
        >>> old, new = (x, (x[:, 0] > 0).long()), (x, (x[:, 1] > 0).long())
        >>> made = capacity.verdict(model, old=old, new=new, training=capacity.Training(lr=0.1))
        >>> made.literal.verdict, made.decides
        ('room left', 'directional')
    """
    where = resolve_device(device)
    old_tasks = _old_tasks(old, loss)
    if new is None:
        raise ValueError("new is None; a verdict is on a new task: pass its data")
    new_task = as_task(new, name="new", loss=loss)
    how = with_loader_batches(training, [new_task])
    flat = FlatModel(believed(model, how, classifies=new_task.classifies))
    theta = flat.initial()
    allowed: float | tuple[float, ...] | None
    if tolerance is None and capacity is not None:
        kept = capacity.preserving
        own = len(kept.allowances) == len(old_tasks)
        allowed = kept.allowances if own else kept.tolerance
    else:
        allowed = tolerance
    need = None if capacity is None else capacity.dimension
    made = assess_transition(
        flat.to(where),
        theta.to(where),
        [task.to(where) for task in old_tasks],
        new_task.to(where),
        how,
        tolerance=allowed,
        displacement=displacement,
        capacity=None if capacity is None else capacity.capacity[0].directions,
        dimension=None if need is None else need.stable_rank,
        convergence=None if capacity is None else capacity.convergence,
        samples=positive_int("samples", samples),
        seed=seed,
    )
    said = words_of_all(old_tasks)
    noted = replace(made.directional, note=f"{made.directional.note} {said}".strip())
    return replace(made, directional=noted, scored_on=scored_on(old_tasks), scoring=said)


def _labelled(record: CapacityRecord, old: Sequence[Task]) -> CapacityRecord:
    """Say what the old tasks' scores are scores on, with the record and with m_B."""
    kind, said = scored_on(old), words_of_all(old)
    need = record.dimension
    if need is not None:
        need = replace(need, scored_on=kind, scoring=said)
    return replace(record, dimension=need, scored_on=kind, scoring=said)


def _old_tasks(old: object, loss: str | LossFunction) -> tuple[Task, ...]:
    if old is None or (isinstance(old, list) and not old):
        raise ValueError(
            "old is empty: capacity is the room that old tasks leave, and there is no task yet; "
            "pass at least one that the network has learned"
        )
    return old_tasks_of(old, loss=loss)


def _moved(jacobian: TrainingJacobian, theta: Tensor) -> float:
    """How far the last tracked phase moved the parameters, up to where they are now."""
    first = next(iter(jacobian.trajectories[-1].forwards())).state[0]
    moved = float((theta.to(first) - first).double().norm())
    if not moved > 0:
        raise ValueError(
            "displacement is None, and the tracked training did not move the parameters; pass "
            "displacement, or track the training that led here"
        )
    return moved
