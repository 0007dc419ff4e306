"""All predictors of forgetting in one list: the engine, baselines, controls, post-hoc ceilings."""

from __future__ import annotations

from collections.abc import Sequence

from capacity.base.checks import one_of
from capacity.base.registry import register_installed
from capacity.predictors import controls, kernel_baselines, local_baselines, trained
from capacity.predictors.predictor import Cell, Prediction, Predictor, Setting

_BUILT_IN = (
    trained.LINEARIZED,
    trained.PSEUDO_KERNEL,
    trained.ADDITIVE_MARGINALS,
    local_baselines.PATH_BOUND,
    local_baselines.PATH_BOUND_SQUARED,
    local_baselines.GRADIENT_CURVATURE,
    local_baselines.CURVATURE_BOUND,
    local_baselines.SECOND_ORDER,
    kernel_baselines.MSE_DRIFT,
    kernel_baselines.SUBSPACE_OVERLAP,
    kernel_baselines.INPUT_OVERLAP,
    trained.PILOT,
    trained.NEW_TASK_LOSS,
    controls.EFFECTIVE_RANK,
    controls.CAPACITY_ALONE,
    controls.DIMENSION_ALONE,
    local_baselines.SECOND_ORDER_TRUE,
    trained.KL_ON_NEW,
)

PREDICTORS: dict[str, Predictor] = {predictor.name: predictor for predictor in _BUILT_IN}
"""Predictors by name."""


def register(predictor: Predictor) -> Predictor:
    """Add a predictor of one's own to all lists; a later one of its name takes its place.

    Args:
        predictor: It, with its name.

    Returns:
        The same.

    Raises:
        ValueError: If it is no `Predictor`, or has no name or that of a built-in one.
    """
    if not isinstance(predictor, Predictor) or not predictor.name:
        raise ValueError(
            f"predictor = {predictor!r} is none; pass a capacity.predictors.predictor.Predictor "
            "with a name"
        )
    if predictor.name in {known.name for known in _BUILT_IN}:
        raise ValueError(
            f"predictor.name = {predictor.name!r} is the package's own; give it another one"
        )
    PREDICTORS[predictor.name] = predictor
    return predictor


def run_controls() -> list[str]:
    """List the predictors that every run shows beside its forecasts.

    Returns:
        Names, sorted.
    """
    return sorted(name for name, predictor in PREDICTORS.items() if predictor.in_runs)


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


register_installed("capacity.predictors", register)
