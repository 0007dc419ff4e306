"""The recipe as it was resolved."""

from __future__ import annotations

from markupsafe import Markup

from capacity.report.blocks import Code, Section
from capacity.results.view import RunView

_LEAD = Markup("The resolved recipe, defaults included (<code>recipe.yaml</code>).")

SECTION: Section[RunView] = Section(
    "configuration", "Configuration", lambda view: [_LEAD, Code(view.recipe_text)]
)
