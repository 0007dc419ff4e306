"""The verdict in words: one sentence for the run, one per transition, one per measure."""

from __future__ import annotations

from dataclasses import dataclass

from capacity.records.estimate import Estimate
from capacity.records.number_format import correlation, say
from capacity.records.numbers import MINUS, number, plural, with_interval
from capacity.report.capacity_detail import decides_sentence
from capacity.report.strategy_forecasts import strategy_sentence
from capacity.report.tables import drop_target
from capacity.results.schema import Transition
from capacity.results.view import Record, RunView, forecast_mean, measured_mean, pick

_STILL = 0.005
_STATES = {
    "finished": "Finished",
    "diverged": "Diverged",
    "interrupted": "Interrupted",
    "failed": "Failed",
    "running": "Running, or killed",
}


@dataclass(frozen=True)
class Fact:
    """One number that sums the run up.

    Attributes:
        value: The number with its uncertainty.
        unit: Its unit.
        label: What it is.
    """

    value: str
    unit: str
    label: str


def state_word(view: RunView) -> str:
    """Name the state of the run.

    Args:
        view: The run.

    Returns:
        One or a few words.
    """
    return _STATES.get(view.state, view.state)


def digest_sentence(view: RunView) -> str:
    """Say that a damaged file would not be noticed, where that is so.

    Args:
        view: The run.

    Returns:
        A sentence; empty for a run whose files were checked.
    """
    if view.verified:
        return ""
    return (
        "Not verified: an earlier version wrote this run without digests, so damage to its files "
        "would go unnoticed."
    )


def state_sentence(view: RunView) -> str:
    """Say what a reader must know about a run that did not end well.

    Args:
        view: The run.

    Returns:
        One or two sentences; empty for a finished run.
    """
    if view.state == "finished":
        return ""
    count = len(view.tasks)
    kept = (
        f"{view.learned} of {plural(count, 'task')} had been learned; what was measured is below."
    )
    if not count:
        kept = "Nothing had been measured."
    lost = [(i, where) for i, task in enumerate(view.tasks) if (where := task.get("diverged"))]
    if lost:
        i, where = lost[0]
        who = ", ".join(map(str, where["replicas"]))
        several, are = ("replicas", "are") if len(where["replicas"]) > 1 else ("replica", "is")
        return (
            f"Training diverged while learning {view.spoken(i)}, at its step {where['step']}: "
            f"{several} {who} {are} no longer finite. A smaller training.lr usually helps. {kept}"
        )
    message = str(view.status.get("message") or "").strip()
    opening = {
        "interrupted": "The run was interrupted.",
        "failed": f"The run failed: {message or 'no reason was recorded'}.",
        "running": "The run had not ended when this report was written.",
        "diverged": "Training diverged.",
    }.get(view.state, f"State: {view.state}.")
    return f"{opening.replace('..', '.')} {kept}"


def headline(view: RunView) -> str:
    """Say what the run showed.

    Args:
        view: The run.

    Returns:
        One sentence.
    """
    final: Record = view.result.get("final") or {}
    learned = view.learned
    if not final:
        return "No task was learned, so there is nothing to conclude about forgetting."
    quantity, scale = ("accuracy", 100.0) if view.classifies else ("loss", 1.0)
    reached = say(pick(final, quantity), scale=scale)
    unit = " %" if view.classifies else ""
    if learned < 2:
        return (
            f"One task was learned, to a {view.scored_on} {quantity} of {reached}{unit}; "
            "with no second task there is nothing to forget."
        )
    lost = say(pick(final, "forgetting_last"), scale=scale)
    counted = "both tasks" if learned == 2 else f"all {learned} tasks"
    if learned < len(view.tasks):
        counted = f"the {learned} tasks learned"
    earlier = "the earlier task" if learned == 2 else f"the {learned - 1} earlier tasks"
    each = "since it was learned" if learned == 2 else "on average since each was learned"
    if view.classifies:
        return (
            f"The network ends with {reached} % accuracy averaged over {counted}, having lost "
            f"{lost} points on {earlier} {each}{_kept_by_forecast(view)}."
        )
    return (
        f"The network ends with a loss of {reached} averaged over {counted}; on {earlier} it rose "
        f"by {lost} {each}{_kept_by_forecast(view)}."
    )


def _kept_by_forecast(view: RunView) -> str:
    target, scale, _ = drop_target(view)
    error = pick(view.result.get("scores") or {}, target, "mean_error")
    if error is None or error.value is None:
        return ""
    unit = " points" if view.classifies else ""
    if error.value * scale < 0.05:
        return f"; forecasts made before each training were right to within 0.1{unit}"
    said = number(error.value * scale, 2)
    return f"; forecasts made before each training were off by {said}{unit} on average"


def facts(view: RunView) -> list[Fact]:
    """Pick the numbers that sum the run up.

    Args:
        view: The run.

    Returns:
        Up to four facts.
    """
    final: Record = view.result.get("final") or {}
    target, _, _ = drop_target(view)
    kind, scale = ("accuracy", 100.0) if view.classifies else ("loss", 1.0)
    unit = "%" if view.classifies else ""
    points = "points" if view.classifies else ""
    made = [
        (pick(final, kind), scale, unit, f"final mean {view.scored_on} {kind}"),
        (pick(final, "forgetting_last"), scale, points, "mean forgetting since learned"),
        (
            pick(view.result.get("scores") or {}, target, "mean_error"),
            scale,
            points,
            "mean error of the forecasts",
        ),
    ]
    shown = [
        Fact(say(found, scale=factor), unit, label)
        for found, factor, unit, label in made
        if found is not None and found.value is not None
    ]
    score: Record = view.result.get("scores") or {}
    rank = pick(score, target, "spearman")
    if rank is not None and rank.value is not None:
        label = f"rank correlation of forecast and measured forgetting, {score['pairs']} pairs"
        shown.append(Fact(f"{rank.value:.2f}".replace("-", MINUS), "", label))
    return shown


def transition_sentence(view: RunView, transition: Transition) -> str:
    """Say what was forecast for a task, and what then happened.

    Args:
        view: The run.
        transition: One transition of the result.

    Returns:
        One sentence.
    """
    i = int(transition["task"])
    target, scale, _ = drop_target(view)
    earlier = view.spoken(0) if i == 1 else f"the {i} earlier tasks"
    forecast = forecast_mean(transition, target)
    measured = measured_mean(view, transition, target)
    opening = f"Learning {view.spoken(i)}"
    if forecast is None:
        said = f"{opening} was not forecast"
    else:
        said = f"{opening} was forecast to {_change(view, forecast, earlier)}"
    if measured is None or measured.value is None:
        state = str(view.tasks[i]["status"]).replace("_", " ")
        lost = f"{said}; it was not measured, because the task was {_participle(state)}."
        return lost + strategy_sentence(view, transition)
    outcome = _amount(view, measured, scale)
    word = "it cost" if view.classifies else "it rose by"
    where = _where(view, transition, target, scale)
    return f"{said}; {word} {outcome}.{where}{strategy_sentence(view, transition)}"


def _participle(state: str) -> str:
    return {"diverged": "lost to divergence"}.get(state, state)


def _change(view: RunView, found: Estimate, earlier: str) -> str:
    _, scale, bounds = drop_target(view)
    if found.value is None:
        return f"have no value ({found.note or found.status.value})"
    value = found.value * scale
    if found.interval is None:
        amount = number(value)
    else:
        low, high = found.interval
        amount = with_interval(value, (low * scale, high * scale), bounds)
    if view.classifies:
        return f"cost {amount} points of accuracy on {earlier}"
    return f"raise the loss on {earlier} by {amount}"


def _amount(view: RunView, found: Estimate, scale: float) -> str:
    return say(found, scale=scale) + (" points" if view.classifies else "")


def _where(view: RunView, transition: Transition, target: str, scale: float) -> str:
    """Name the old task that lost most, where a mean would hide it."""
    cells = [(old["task"], pick(old["measured"], target)) for old in transition["old"]]
    known = [(j, e.value) for j, e in cells if e is not None and e.value is not None]
    if len(known) < 2:
        return ""
    worst, most = max(known, key=lambda pair: pair[1])
    total = sum(max(value, 0.0) for _, value in known)
    if total <= 0 or most < 0.6 * total:
        return ""
    unit = " points" if view.classifies else ""
    return f" Most of it fell on {view.spoken(worst)}: {number(most * scale)}{unit}."


def literal_sentence(view: RunView) -> str:
    """Say in plain words what the literal criterion can and cannot decide here.

    Args:
        view: The run.

    Returns:
        A few sentences; empty where it was not measured.
    """
    found = [t for t in view.transitions if t.get("literal") is not None]
    if not found:
        return ""
    literal = [form for t in found if (form := t.get("literal"))]
    fired = sum(form["fires"] for form in literal)
    undecided = sum(form["verdict"] == "undecided" for form in literal)
    of = plural(len(found), "transition")
    any_of = "the one transition" if len(found) == 1 else f"any of {of}"
    forecast = any(t["new"]["forecast"] is not None for t in found)
    decides = decides_sentence(view) or (
        "The forecast decides instead." if forecast else "Nothing else was measured that decides."
    )
    if fired:
        return (
            f"The literal criterion m_B > R_A fires in {fired} of {of}: the new task needs more "
            "directions than the old ones leave. It does not see how the tasks are aligned, so "
            f"it cannot say how much is forgotten. {decides}"
        )
    shares = [
        e.value / measured["parameters"]
        for t in found
        if (measured := t.get("capacity"))
        and (e := pick(measured, "directions")) is not None
        and e.value is not None
    ]
    room = (
        f"R_A is {_span(shares)} % of the {_count(found)} parameters"
        if shares
        else "R_A is of the order of P"
    )
    doubt = f" ({undecided} undecided)" if undecided else ""
    return (
        f"The literal criterion m_B > R_A does not fire in {any_of}{doubt}, and that says nothing "
        f"about forgetting here: {room}{_demand(found)}. In an over-parameterised "
        "network it practically never fires, and it does not see how the tasks are aligned. "
        f"{decides}"
    )


def _count(found: list[Transition]) -> str:
    return number(next((c["parameters"] for t in found if (c := t.get("capacity"))), None))


def _span(shares: list[float]) -> str:
    low, high = f"{100 * min(shares):.0f}", f"{100 * max(shares):.0f}"
    return low if low == high else f"{low} to {high}"


def _demand(found: list[Transition]) -> str:
    """Add the largest task dimension, where there is one."""
    ranks = [pick(t, "dimension", "stable_rank") for t in found]
    known = [e.value for e in ranks if e is not None and e.value is not None]
    return f", m_B (stable rank) at most {max(known):.0f}" if known else ""


def score_sentence(view: RunView) -> str:
    """Say how well the forecast ranked what was measured.

    Args:
        view: The run.

    Returns:
        One or two sentences.
    """
    scores: Record = view.result.get("scores") or {}
    target, _, _ = drop_target(view)
    score = scores.get(target) or {}
    rank, r2 = pick(score, "spearman"), pick(score, "r2")
    if rank is None:
        return "Nothing was forecast and measured, so there is no score."
    if rank.value is None:
        return f"The forecast's rank correlation is not defined: {rank.note}"
    word = "accuracy drop" if view.classifies else "rise of the loss"
    said = f"Forecast and measured {word} correlate in rank with Spearman "
    said += correlation(rank) + f", n = {rank.n} pairs"
    if r2 is not None and r2.value is not None:
        said += f"; R² = {r2.value:.2f}".replace("-", MINUS)
    others = {name: pick(score, target) for name, score in (scores.get("controls") or {}).items()}
    values = [abs(e.value) for e in others.values() if e is not None and e.value is not None]
    if values:
        said += f". The best simpler predictor reaches {max(values):.2f} in absolute value"
    return f"{said}.{_unmoved(view, target)}"


def _unmoved(view: RunView, target: str) -> str:
    """Say when most pairs had nothing to lose: a ranking is easy then."""
    measured = [pick(old["measured"], target) for t in view.transitions for old in t["old"]]
    known = [e.value for e in measured if e is not None and e.value is not None]
    still = sum(abs(value) < _STILL for value in known)
    if not view.classifies or 2 * still < len(known):
        return ""
    return (
        f" In {still} of {plural(len(known), 'pair')} the old task moved by less than half a "
        "point, so the ranking rests mostly on telling those apart from the others."
    )
