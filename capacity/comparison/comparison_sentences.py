"""What a comparison shows, in words: one verdict, one sentence per variant, every reservation."""

from __future__ import annotations

from capacity.comparison import compared_measures
from capacity.comparison.compared_measures import Quantity
from capacity.comparison.comparison_tables import entry_state
from capacity.records.estimate import Estimate
from capacity.records.number_format import say
from capacity.records.numbers import clip, number, plural, with_interval
from capacity.results.gather import Gathered, Variant, environments

_FIELDS = 2
_SEEDS = 40


def headline(gathered: Gathered) -> str:
    """Say what the comparison shows.

    Args:
        gathered: The runs.

    Returns:
        One or two sentences.
    """
    if not gathered.counted:
        return "No run finished, so nothing is compared; what was measured is listed by run."
    quantity = compared_measures.quantities(gathered)[0]
    order = compared_measures.ranked(gathered, quantity)
    if not order:
        return f"No finished run has a {quantity.name}, so nothing is compared."
    (best, top), *others = order
    if len(gathered.variants) == 1:
        return (
            f"Over {plural(len(best.counted), 'seed')}, the network ends with a {quantity.name} of "
            f"{_said(top, quantity)}{_lost(best, gathered)}."
        )
    opening = f"{best.label} ends best: {quantity.name} {_said(top, quantity)}"
    if not others:
        return f"{opening}. No run of another variant finished."
    second, value = others[0]
    return (
        f"{opening}, against {_said(value, quantity)} for {second.label}. {_gap(order, quantity)}"
    )


def _gap(order: list[tuple[Variant, Estimate]], quantity: Quantity) -> str:
    """Say whether the first and the second can be told apart."""
    (first, top), (second, value) = order[:2]
    gap = compared_measures.difference(top, value)
    size = abs(gap.value or 0.0) * quantity.scale
    unit = {"%": " points"}.get(quantity.unit, "")
    if gap.interval is None:
        return (
            f"Whether the gap of {number(size, 2)}{unit} would last is not known: a spread needs "
            "more than one seed, or replica, of both."
        )
    low, high = sorted(abs(end) * quantity.scale for end in gap.interval)
    several = {len(first.counted) > 1, len(second.counted) > 1}
    over = {True: "seeds", False: "replicas"}[several.pop()] if len(several) == 1 else "runs"
    if gap.interval[0] <= 0 <= gap.interval[1]:
        return (
            f"The gap of {number(size, 2)}{unit} is within the spread over {over}: this comparison "
            "does not tell the two apart."
        )
    return (
        f"The gap is {with_interval(size, (low, high))}{unit}, beyond the spread over {over} "
        "(90 % interval)."
    )


def _lost(variant: Variant, gathered: Gathered) -> str:
    quantity = compared_measures.quantities(gathered)[1]
    found = compared_measures.of_variant(variant, quantity)
    if found is None or found.value is None:
        return ""
    return f", and a {quantity.name} of {_said(found, quantity)}"


def _said(found: Estimate, quantity: Quantity) -> str:
    unit = f" {quantity.unit}" if quantity.unit else ""
    return f"{say(found, scale=quantity.scale)}{unit}"


def differs(gathered: Gathered) -> str:
    """Name what differs between the recipes.

    Args:
        gathered: The runs.

    Returns:
        One sentence.
    """
    runs, fields = plural(len(gathered.entries), "run"), gathered.differences
    if not fields:
        seeds = [entry.seed for entry in gathered.entries]
        if len(seeds) > _SEEDS:
            return f"{runs} of one recipe, with seeds from {min(seeds)} to {max(seeds)}."
        return f"{runs} of one recipe, with the seeds {', '.join(map(str, seeds))}."
    named = ", ".join(fields[:_FIELDS])
    more = f" and {len(fields) - _FIELDS} more" if len(fields) > _FIELDS else ""
    return f"{runs} of {plural(len(gathered.variants), 'recipe')}, which differ in {named}{more}."


def warnings(gathered: Gathered) -> list[str]:
    """Say what a reader must know before trusting the means.

    Args:
        gathered: The runs.

    Returns:
        Sentences; none where nothing is to be said.
    """
    made = []
    out = [entry for entry in gathered.entries if not entry.counted]
    if out:
        states = [entry_state(entry) for entry in out]
        counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
        made.append(
            f"{len(out)} of {plural(len(gathered.entries), 'run')} enter no mean: {counts}. They "
            "are listed below with what they had reached."
        )
    if not gathered.same_tasks:
        made.append(
            "The runs learn different tasks: their means are set side by side, task by task they "
            "cannot be compared."
        )
    if len({entry.view.classifies for entry in gathered.counted}) > 1:
        made.append(
            "Some runs classify and some do regression: only losses are compared, and losses of "
            "different kinds are no common scale."
        )
    made += dict.fromkeys(e.view.old_said for e in gathered.counted if e.view.old_said)
    unsure = [entry for entry in gathered.entries if not entry.view.verified]
    if unsure:
        made.append(
            f"{len(unsure)} of {plural(len(gathered.entries), 'run')} were written by an earlier "
            "version, without digests: damage to their files would go unnoticed."
        )
    for name, values in environments(gathered.entries).items():
        made.append(f"The runs were made with different {name}: {', '.join(values)}.")
    return made


def facts_range(found: Estimate, quantity: Quantity) -> tuple[float, float, float]:
    """Give a value and its 90 % interval in print units, for a figure.

    Args:
        found: An estimate that has a value.
        quantity: What it is.

    Returns:
        Value, lower and upper end; both ends are the value where no interval is known.
    """
    value = (found.value or 0.0) * quantity.scale
    if found.interval is None:
        return value, value, value
    low, high = (end * quantity.scale for end in found.interval)
    low, high = clip((low, high), quantity.bounds)
    return value, low, high
