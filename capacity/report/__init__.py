"""The report of a run: one HTML file, readable without a network and without JavaScript."""

from capacity.report.page import render as render

__all__ = ["render"]
