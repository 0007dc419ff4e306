"""The corpora that ship with the package, and which of them speaks of a forecast."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from capacity.forecasting.corpus import Conditions, Corpus, corpus_of


@cache
def shipped(name: str = "corpus") -> Corpus | None:
    """Read a corpus that ships with the package, when it is first asked for.

    Args:
        name: `corpus`, of bare constant rates, or `corpus_plans`, of other plans.

    Returns:
        The corpus; None where the package has none.
    """
    path = files("capacity.forecasting") / f"{name}.json"
    return corpus_of(json.loads(path.read_text())) if path.is_file() else None


def speaking(conditions: Conditions) -> tuple[Corpus | None, str | None]:
    """Choose the corpus that speaks of a forecast.

    Args:
        conditions: What the forecast was made for.

    Returns:
        The corpus, or the one that comes nearest and why it does not speak, for people.
    """
    bare, other = shipped(), shipped("corpus_plans")
    reason = "no corpus of earlier transitions" if bare is None else bare.why_not(conditions)
    if reason is None or other is None:
        return bare, reason
    further = other.why_not(conditions)
    # Of a plan that the first one holds its reason is the nearer one.
    own = bare is not None and bare.plans.why_not(conditions.training, conditions.samples) is None
    return (bare, reason) if further is not None and own else (other, further)
