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

from capacity.plots.drawing import Drawing as Drawing
from capacity.plots.drawing import drawing_of
from capacity.report.closure_curve import closure_figure
from capacity.report.cost_over_time import cost_figure, inefficiency_figure
from capacity.report.learning import curve_figure, matrix_figure
from capacity.report.measure_figures import spectrum_figure, thermo_figure, volume_figure
from capacity.report.prediction import capacity_figure, drop_figure
from capacity.report.spectra import composed_figure
from capacity.report.strategies import strategy_figure


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


FIGURES: dict[str, Callable[[object], Drawing]] = {
    draw.__name__: draw
    for draw in (
        accuracy_matrix,
        learning_curves,
        forecast_against_measured,
        capacity_against_dimension,
        closure_curves,
        spectrum,
        composed_spectrum,
        log_volume,
        thermodynamics,
        cost_along,
        inefficiency_along,
        strategies_ranked,
    )
}
"""Every figure by its name."""

__all__ = ["FIGURES", "Drawing", *FIGURES]
