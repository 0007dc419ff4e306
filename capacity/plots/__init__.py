"""Figures for papers (matplotlib): vector when saved as PDF or SVG, colour-blind safe, light.

Every function takes a run, or the path of its directory, and returns a `matplotlib.figure.Figure`
that belongs to nobody: no window opens, no global state changes. Save it with
`figure.savefig("accuracy.pdf")`. Widths fit one column of a paper.
"""

from capacity.plots.figures import FIGURES as FIGURES
from capacity.plots.figures import accuracy_matrix as accuracy_matrix
from capacity.plots.figures import capacity_against_dimension as capacity_against_dimension
from capacity.plots.figures import forecast_against_measured as forecast_against_measured
from capacity.plots.figures import spectrum as spectrum
from capacity.plots.figures import thermodynamics as thermodynamics

__all__ = [
    "FIGURES",
    "accuracy_matrix",
    "capacity_against_dimension",
    "forecast_against_measured",
    "spectrum",
    "thermodynamics",
]
