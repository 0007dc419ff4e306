"""What strategies against forgetting were forecast to do."""

from __future__ import annotations

from markupsafe import Markup

from capacity.report.blocks import Absent, Block, Section
from capacity.report.strategies import strategy_figure
from capacity.report.strategy_forecasts import strategies_sentence
from capacity.results.view import RunView

_NONE = Absent(
    Markup(
        "No strategy against forgetting was forecast; "
        "<code>measure.strategies=[ewc,replay,gpm]</code> asks for some."
    )
)


def _content(view: RunView) -> list[Block]:
    figure = strategy_figure(view)
    return [_NONE] if figure is None else [strategies_sentence(view), figure]


SECTION = Section("strategies", "Strategies", _content)
