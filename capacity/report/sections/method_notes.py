"""Formulas, their sources and what they assume."""

from __future__ import annotations

from capacity.report.blocks import Part, Section
from capacity.results.view import RunView

SECTION: Section[RunView] = Section("methods", "Method notes", lambda _: [Part("methods.html")])
