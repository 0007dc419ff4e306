"""Scores along the training, of the tasks that are learned and of those that are forgotten."""

from __future__ import annotations

from capacity.report.blocks import Absent, Block, Section
from capacity.report.forgetting import forgetting_figure
from capacity.report.learning import curve_figure, train_figure
from capacity.results.view import RunView


def _content(view: RunView) -> list[Block]:
    figures = [draw(view) for draw in (curve_figure, forgetting_figure, train_figure)]
    shown: list[Block] = [figure for figure in figures if figure is not None]
    return shown or [Absent("No finite score was recorded while training.")]


SECTION = Section("curves", "Learning and forgetting", _content)
