"""The verdict in words: one sentence for the run, one per transition, one per measure."""

from __future__ import annotations

from capacity.records.number_format import correlation
from capacity.records.numbers import MINUS, plural
from capacity.report.capacity_detail import decides_sentence
from capacity.report.tables import drop_target
from capacity.results.view import Record, RunView, pick

_STILL = 0.005
_STATES = {
    "finished": "Finished",
    "diverged": "Diverged",
    "interrupted": "Interrupted",
    "failed": "Failed",
    "running": "Running, or killed",
}


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
            f"directions than the old ones leave. How much is forgotten it cannot say. {decides}"
        )
    doubt = f" ({undecided} undecided)" if undecided else ""
    return (
        f"The literal criterion m_B > R_A does not fire in {any_of}{doubt}, and says nothing about "
        "forgetting here: in an over-parameterised network it practically never fires, and it does "
        f"not see how the tasks are aligned. {decides}"
    )


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
