"""What not to trust: per part of the run, how much of it has a status that warns, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from capacity.records.estimate import Status
from capacity.records.numbers import plural
from capacity.report.blocks import Line
from capacity.report.tables import drop_target
from capacity.results.view import Record, RunView
from capacity.tasks.scoring import scoring_words

_JUDGED = ("capacity", "dimension", "verdicts", "plasticity")
_STATUSES = {
    Status.UNCALIBRATED: "uncalibrated",
    Status.NOT_RESOLVED: "not resolved",
    Status.NOT_CONVERGED: "not converged",
    Status.OUT_OF_REGIME: "out of regime",
    Status.DIVERGED: "diverged",
}
_NAMES = {
    "loss_drop_ratio": "T \u0394L over |\u0394\u03b8|\u00b2",
    "stable": "count of what is shrunk",
    "bulk": "count of what is left alone",
    "chaotic": "count of what is stretched",
    "moved": "rank of J \u2212 1",
    "value": "forms of the criterion",
    "gibbs_before": "nats from the Gibbs law",
    "gibbs_after": "nats from the Gibbs law",
}
"""Estimates in words, by their names in the result, where underscores alone do not make them."""
_UNCHECKED = {"forecast", "strategies"}
"""Parts whose values have a status for one reason."""
Named = tuple[str, Record]


def doubts(view: RunView) -> list[Line]:
    """Say what not to trust, one line per part of the run.

    Args:
        view: The run.

    Returns:
        The lines; none where everything has status ok.
    """
    target, _, _ = drop_target(view)
    transitions = view.transitions
    strategies = [s for t in transitions for s in t.get("by_strategy") or []]
    parts: dict[tuple[str, str], Iterator[Named]] = {
        ("Forecasts", "forecast"): _forecasts(transitions, target),
        ("Strategies", "strategies"): _forecasts(strategies, target),
        ("Capacity", "capacity"): _records([t.get(k) for t in transitions for k in _JUDGED]),
        ("Training Jacobian", "transport"): _records([
            view.transports,
            view.result.get("composed"),
        ]),
        ("Cost of learning", "thermo"): _records([p and p.get("thermo") for p in view.phases]),
    }
    made = [
        line for (label, anchor), found in parts.items() if (line := _line(label, anchor, found))
    ]
    if view.replicas == 1 and view.learned:
        made.append(
            Line("Spread", "one replica, so no measured value carries a standard error.", "")
        )
    scored = scoring_words(view.tasks)
    if view.old_said:
        made.append(Line("Old tasks", view.old_said, ""))
    if scored:
        made.append(Line("Scores", scored, ""))
    return made


def _forecasts(parts: Sequence[Any], target: str) -> Iterator[Named]:
    for part in parts:
        for old in part["old"]:
            if found := (old["forecast"] or {}).get(target):
                yield "", found


def _records(part: Any, name: str = "") -> Iterator[Named]:
    """Find every estimate, however deep, with the name that it goes by."""
    if isinstance(part, Mapping):
        if "value" in part and "status" in part:
            yield name, part
            return
        for key, inner in part.items():
            yield from _records(inner, key)
    elif isinstance(part, list):
        for inner in part:
            yield from _records(inner, name)


def _line(label: str, anchor: str, found: Iterator[Named]) -> Line | None:
    known = list(found)
    said = []
    for status, word in _STATUSES.items():
        names = [name for name, record in known if record["status"] == status.value]
        if not names:
            continue
        words = (_NAMES.get(n, n.replace("_", " ")) for n in names if n)
        spoken = list(dict.fromkeys(words))
        listed = "".join(spoken[:1]) + (" and others" if len(spoken) > 1 else "")
        said.append(f"{len(names)} {word}" + (f" ({listed})" if listed else ""))
    if not said:
        return None
    why = ", so their intervals leave the method's own error out" if anchor in _UNCHECKED else ""
    return Line(label, f"of {plural(len(known), 'value')}, {', '.join(said)}{why}.", anchor)
