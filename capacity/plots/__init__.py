"""Figures for papers: those of the report, light, with their keys in the picture.

Every function takes a run, or the path of its directory, and returns a `Drawing`: a notebook shows
it, and `drawing.save("accuracy.pdf")` writes it as PDF, SVG or PNG. What the run did not measure is
a ValueError.

Example:
    >>> import capacity
    >>> sorted(capacity.plots.FIGURES)[:2]
    ['accuracy_matrix', 'capacity_against_dimension']
"""

from __future__ import annotations

from collections.abc import Callable

from capacity.base.checks import one_of
from capacity.plots.drawing import Drawing as Drawing
from capacity.plots.drawing import drawing_of
from capacity.report.closure_curve import closure_figure
from capacity.report.cost_over_time import cost_figure, inefficiency_figure
from capacity.report.forgetting import forgetting_figure
from capacity.report.learning import curve_figure, matrix_figure, train_figure
from capacity.report.measure_figures import spectrum_figure, thermo_figure, volume_figure
from capacity.report.prediction import capacity_figure, drop_figure, scatter_figure
from capacity.report.predictors import predictor_figure
from capacity.report.spectra import composed_figure
from capacity.report.strategies import strategy_figure
from capacity.report.tables import drop_target


def accuracy_matrix(run: object) -> Drawing:
    """Draw the accuracy on every task after learning every task; the loss for regression.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The drawing.
    """
    return drawing_of(run, matrix_figure)


def learning_curves(run: object) -> Drawing:
    """Draw the test score of every task over the whole sequence, a line per task.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The drawing; bands are one standard error over replicas.
    """
    return drawing_of(run, curve_figure)


def forecast_against_measured(run: object) -> Drawing:
    """Draw forgetting forecast before each task beside what was then measured.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The drawing: means over the earlier tasks with their 90 % intervals, of the accuracy drop
        in points, or of the rise of the loss.
    """
    return drawing_of(run, drop_figure)


def capacity_against_dimension(run: object) -> Drawing:
    """Draw the room that the earlier tasks left beside what each new task needed.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The drawing: R_A in directions and m_B (stable rank) per new task, on a logarithmic axis.
    """
    return drawing_of(run, capacity_figure)


def closure_curves(run: object) -> Drawing:
    """Draw how, while a task is learned, the next one comes to make the network forget.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The drawing: what the form that decides says of the next task against the learning time of
        the one before, with its threshold.
    """
    return drawing_of(run, closure_figure)


def spectrum(run: object) -> Drawing:
    """Draw the largest singular values of each task's training Jacobian, with their residuals.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The drawing; open marks are not resolved.
    """
    return drawing_of(run, spectrum_figure)


def composed_spectrum(run: object) -> Drawing:
    """Draw how many singular values of J lie where: shrunk, left alone, stretched.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The drawing: of all tasks together where that was measured, else of the last one.
    """
    return drawing_of(run, composed_figure)


def log_volume(run: object) -> Drawing:
    """Draw the log-volume that the training of every task lost.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The drawing: log|det J| in nats per task.
    """
    return drawing_of(run, volume_figure)


def thermodynamics(run: object) -> Drawing:
    """Draw what learning cost against its speed limit.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The drawing: the inefficiency of every task, 1 being the limit, and the ratio of the loss
        drop where it stands for it.
    """
    return drawing_of(run, thermo_figure)


def cost_along(run: object) -> Drawing:
    """Draw what learning cost and the distance it covered, epoch by epoch.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The drawing: T times the entropy production, by action and by loss drop, above the two
        bounds of W2^2.
    """
    return drawing_of(run, cost_figure)


def inefficiency_along(run: object) -> Drawing:
    """Draw the inefficiency so far, epoch by epoch.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The drawing; 1 is the speed limit.
    """
    return drawing_of(run, inefficiency_figure)


def strategies_ranked(run: object) -> Drawing:
    """Draw what every strategy was forecast to cost, the best average on top.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The drawing: a dot per new task, a bar at the mean over them.
    """
    return drawing_of(run, strategy_figure)


def forgetting_along(run: object) -> Drawing:
    """Draw what is left of the tasks so far, and what was lost of the earlier ones, step by step.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The drawing.
    """
    return drawing_of(run, forgetting_figure)


def training_loss(run: object) -> Drawing:
    """Draw the training loss over the whole sequence.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The drawing.
    """
    return drawing_of(run, train_figure)


def forecast_pairs(run: object) -> Drawing:
    """Draw measured against forecast forgetting, a mark per pair of a new and an old task.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The drawing: of the accuracy drop in points, or of the rise of the loss.
    """
    return drawing_of(run, lambda view: scatter_figure(view, drop_target(view)[0]))


def predictors_ranked(run: object) -> Drawing:
    """Draw how well the forecast and each simpler predictor order what was forgotten.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The drawing: rank correlations with their 90 % intervals.
    """
    return drawing_of(run, predictor_figure)


NAMES: dict[str, Callable[[object], Drawing]] = {
    "accuracy": accuracy_matrix,
    "curves": learning_curves,
    "forgetting": forgetting_along,
    "training": training_loss,
    "forecast": forecast_against_measured,
    "pairs": forecast_pairs,
    "predictors": predictors_ranked,
    "strategies": strategies_ranked,
    "capacity": capacity_against_dimension,
    "closure": closure_curves,
    "spectrum": spectrum,
    "parts": composed_spectrum,
    "volume": log_volume,
    "cost": thermodynamics,
    "cost_along": cost_along,
    "inefficiency": inefficiency_along,
}
"""Every figure by the name that `Run.figure` takes."""
FIGURES: dict[str, Callable[[object], Drawing]] = {draw.__name__: draw for draw in NAMES.values()}
"""Every figure by the name of its function."""


def figure(run: object, name: str) -> Drawing:
    """Draw a figure of the report by its name.

    Args:
        run: A run, or the path of its directory.
        name: One of `NAMES`.

    Returns:
        The drawing. An unknown name, and what the run did not measure, are a ValueError.
    """
    return NAMES[one_of("name", name, NAMES)](run)


__all__ = ["FIGURES", "NAMES", "Drawing", "figure", *FIGURES]
