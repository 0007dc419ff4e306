"""Formulas, their sources and what they assume."""

from __future__ import annotations

from capacity.report.blocks import Fold, Part, Section
from capacity.results.view import RunView

SECTION: Section[RunView] = Section(
    "methods",
    "Method notes",
    lambda _: [Fold("Every formula, its source and what it assumes", [Part("methods.html")])],
)
