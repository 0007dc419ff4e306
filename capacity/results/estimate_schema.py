"""The types of estimates and tables, of which all other types of `result.json` are made."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
Table = list[list[float | None]]
"""R[i][j]: of task j after task i; null where it was not reached."""

StatusWord = Literal[
    "ok",
    "uncalibrated",
    "not_resolved",
    "not_converged",
    "not_defined",
    "out_of_regime",
    "diverged",
]
"""Of a `Status`."""


@with_config(ConfigDict(extra="forbid"))
class EstimateRecord(TypedDict):
    """An `Estimate`."""

    value: float | None
    status: StatusWord
    interval: Pair | None
    stderr: NotRequired[float | None]
    level: NotRequired[float]
    n: NotRequired[int | None]
    cost: NotRequired[float]
    note: NotRequired[str]


E = EstimateRecord | None
