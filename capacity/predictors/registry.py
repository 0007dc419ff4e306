"""All predictors of forgetting in one list: the engine, baselines, controls, post-hoc ceilings."""

from __future__ import annotations

from collections.abc import Sequence

from capacity.base.checks import one_of
from capacity.predictors import controls, kernel_baselines, local_baselines, trained
from capacity.predictors.predictor import Cell, Prediction, Predictor, Setting
from capacity.tasks.task import Task

_BOTH = frozenset({"accuracy_drop", "loss_increase"})


def _both(_: Task) -> frozenset[str]:
    return _BOTH


def _loss(_: Task) -> frozenset[str]:
    return frozenset({"loss_increase"})


def _drift(task: Task) -> frozenset[str]:
    return _BOTH if task.loss == "mse" else frozenset({"accuracy_drop"})


_LIST = (
    Predictor(
        name="linearized",
        title="linearised training",
        source="theory.md#linearised-training",
        of=trained.linearized,
        in_units=_both,
    ),
    Predictor(
        name="additive_marginals",
        code="B0",
        title="marginal means of earlier pairs",
        source="two-way table without interaction",
        of=trained.additive_marginals,
        in_units=_both,
    ),
    Predictor(
        name="path_bound",
        code="B1",
        title="sum of learning rates x |g_B|",
        source="first order in the learning time",
        of=local_baselines.path_bound,
    ),
    Predictor(
        name="path_bound_squared",
        code="B1",
        title="(sum of learning rates x |g_B|)^2",
        source="first order in the learning time",
        of=local_baselines.path_bound_squared,
    ),
    Predictor(
        name="gradient_curvature",
        code="B2",
        title="curvature of A along B's gradient",
        source="second order in the learning time, A at its minimum",
        of=local_baselines.gradient_curvature,
        in_units=_loss,
    ),
    Predictor(
        name="curvature_bound",
        code="B3",
        title="largest curvature of A x squared displacement",
        source="bound of a quadratic at its minimum; displacement of the linearised flow",
        of=local_baselines.curvature_bound,
        in_units=_loss,
    ),
    Predictor(
        name="second_order",
        code="B4",
        title="second-order expansion of A's loss",
        source="Taylor expansion at the displacement of the linearised flow",
        of=local_baselines.second_order,
        in_units=_loss,
    ),
    Predictor(
        name="mse_drift",
        code="B5",
        title="closed-form drift of the squared error",
        source="arXiv 2606.18024",
        of=kernel_baselines.mse_drift,
        in_units=_drift,
    ),
    Predictor(
        name="subspace_overlap",
        code="B6",
        title="overlap of the leading gradient directions",
        source="Doan et al. 2021 (arXiv 2010.04003)",
        of=kernel_baselines.subspace_overlap,
    ),
    Predictor(
        name="input_overlap",
        code="B6",
        title="share of B's gradient in A's input spaces",
        source="Saha et al. 2021 (arXiv 2103.09762)",
        of=kernel_baselines.input_overlap,
    ),
    Predictor(
        name="pilot",
        code="B7",
        title="a pilot run over 5 % of B's steps",
        source="training itself, cut short",
        of=trained.pilot,
        in_units=_both,
    ),
    Predictor(
        name="new_task_loss",
        code="B8",
        title="B's loss before it is learned",
        source="folklore",
        of=trained.new_task_loss,
    ),
    Predictor(
        name="effective_rank",
        title="control: effective rank of the features",
        source="Roy & Vetterli 2007",
        of=controls.effective_rank,
    ),
    Predictor(
        name="capacity_alone",
        title="control: R_A alone",
        source="theory.md#compatible-capacity; arXiv 2602.07950",
        of=controls.capacity_alone,
    ),
    Predictor(
        name="dimension_alone",
        title="control: m_B alone",
        source="theory.md#task-dimension; arXiv 2602.07950",
        of=controls.dimension_alone,
    ),
    Predictor(
        name="second_order_true",
        code="B4",
        title="ceiling: second order at the true displacement",
        source="Taylor expansion",
        of=local_baselines.second_order_true,
        post_hoc=True,
        in_units=_loss,
    ),
    Predictor(
        name="kl_on_new",
        title="ceiling: KL(before | after) on B",
        source="Shenfeld et al. 2025 (arXiv 2509.04259)",
        of=trained.kl_on_new,
        post_hoc=True,
    ),
)

PREDICTORS: dict[str, Predictor] = {predictor.name: predictor for predictor in _LIST}
"""Predictors by name."""


def predict(
    setting: Setting, names: Sequence[str] | None = None
) -> dict[str, tuple[Prediction, ...]]:
    """Ask several predictors about one setting.

    Args:
        setting: Networks, tasks and plan.
        names: Which predictors; None takes all that can answer before the new task is trained,
            and the post-hoc ones where `setting.after` is given.

    Returns:
        By name, a prediction per old task. One that cannot be made is `not_defined` with a reason.

    Raises:
        ValueError: If a name is unknown, there is no old task, or theta is not (R, P).
    """
    if names is None:
        names = [n for n, p in PREDICTORS.items() if not p.post_hoc or setting.after is not None]
    for name in names:
        one_of("names", name, PREDICTORS)
    if not setting.old:
        raise ValueError("setting.old is empty; pass at least one old task")
    if setting.theta.dim() != 2 or setting.theta.shape[1] != setting.model.size:
        raise ValueError(
            f"setting.theta has shape {tuple(setting.theta.shape)}; it must be (replicas, "
            f"{setting.model.size}): add a replica dimension with theta[None]"
        )
    cells = [Cell(setting, replica) for replica in range(len(setting.theta))]
    return {name: PREDICTORS[name].predict(cells) for name in names}
