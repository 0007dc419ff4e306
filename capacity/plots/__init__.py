"""Figures for papers (matplotlib): vector when saved as PDF or SVG, colour-blind safe, light.

Every function takes a run, or the path of its directory, and returns a `matplotlib.figure.Figure`
that belongs to nobody: no window opens, no global state changes. Save it with
`figure.savefig("accuracy.pdf")`. Widths fit one column of a paper, or two.

Example:
    >>> import capacity
    >>> sorted(capacity.plots.FIGURES)[:2]
    ['accuracy_matrix', 'capacity_against_dimension']
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from capacity.plots.figures import accuracy_matrix as accuracy_matrix
from capacity.plots.figures import capacity_against_dimension as capacity_against_dimension
from capacity.plots.figures import forecast_against_measured as forecast_against_measured
from capacity.plots.figures import spectrum as spectrum
from capacity.plots.figures import thermodynamics as thermodynamics
from capacity.plots.parts import composed_spectrum as composed_spectrum
from capacity.plots.parts import strategies_ranked as strategies_ranked
from capacity.plots.sequences import closure_curves as closure_curves
from capacity.plots.sequences import cost_along as cost_along
from capacity.plots.sequences import learning_curves as learning_curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES: dict[str, Callable[[object], Figure]] = {
    draw.__name__: draw
    for draw in (
        accuracy_matrix,
        learning_curves,
        forecast_against_measured,
        capacity_against_dimension,
        closure_curves,
        spectrum,
        composed_spectrum,
        thermodynamics,
        cost_along,
        strategies_ranked,
    )
}
"""Every figure by its name."""

__all__ = ["FIGURES", *FIGURES]
