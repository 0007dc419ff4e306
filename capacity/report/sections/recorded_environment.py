"""Where and when the run was made."""

from __future__ import annotations

from collections.abc import Mapping

from capacity.records.numbers import number
from capacity.report.blocks import Absent, Block, Part, Section
from capacity.results.view import RunView


def _content(view: RunView) -> list[Block]:
    if not view.env and not view.status:
        return [Absent("Not recorded.")]
    rows = [(name.replace("_", " "), _listed(value)) for name, value in view.env.items()]
    if view.status.get("started"):
        rows += [
            ("started", view.status["started"]),
            ("last update", view.status.get("updated")),
        ]
    seconds = view.status.get("seconds") or {}
    if seconds:
        rows.append(("seconds", _listed({stage: number(s) for stage, s in seconds.items()})))
    return [Part("environment.html", {"rows": rows})]


def _listed(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    return ", ".join(f"{name} {entry}" for name, entry in value.items())


SECTION = Section("environment", "Environment", _content)
