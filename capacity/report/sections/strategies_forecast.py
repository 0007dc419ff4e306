"""What strategies against forgetting were forecast to do."""

from __future__ import annotations

from capacity.report.blocks import Absent, Block, Fold, Section
from capacity.report.strategies import strategy_figure
from capacity.report.strategy_forecasts import ranked
from capacity.results.view import RunView

_HOW = (
    "Each strategy was forecast for every new task, from the network of this run as it then "
    "stood. These are forecasts: capacity compare sets trained runs side by side."
)


def _content(view: RunView) -> list[Block | None]:
    figure = strategy_figure(view)
    if figure is None:
        return [Absent("No strategy against forgetting was forecast.")]
    order = ranked(view)
    found = f"{len(order)} strategies task by task: {order[0].label} ends best"
    return [Fold(f"{found}, {order[-1].label} worst" if order[1:] else found, [_HOW, figure])]


SECTION = Section("strategies", "Strategies", _content)
