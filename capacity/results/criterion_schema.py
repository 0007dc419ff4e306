"""The types of what `result.json` holds of compatible capacity, task dimension and verdicts."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from capacity.results.estimate_schema import E, Pair


class CapacityAtScale(TypedDict):
    """R_A at one width of the likelihood."""

    eps: float
    nats: E
    directions: E


class Convergence(TypedDict):
    """How far the old task is from learned."""

    gradient: E
    remaining: E
    note: str
    converged: NotRequired[bool | None]
    task: NotRequired[str]


class SensitivityRow(TypedDict):
    """R_A at another tolerance."""

    tolerance: float
    removed: int
    removed_complete: bool
    by_eps: list[CapacityAtScale]
    curvature_threshold: NotRequired[float]
    soft_removed: NotRequired[E]


class Capacity(TypedDict):
    """R_A."""

    nats: E
    directions: E
    by_eps: list[CapacityAtScale]
    parameters: int
    removed: int
    removed_complete: bool
    tolerance: float
    displacement: float
    curvature_threshold: float
    rescalings: NotRequired[int]
    removed_range: NotRequired[Pair | None]
    soft_removed: NotRequired[E]
    subspace_error: NotRequired[E]
    convergence: NotRequired[Convergence | None]
    sensitivity: NotRequired[list[SensitivityRow]]


class Dimension(TypedDict):
    """m_B."""

    stable_rank: E
    intrinsic: E
    top_curvature: NotRequired[E]
    negative_share: NotRequired[E]
    no_demand: NotRequired[bool]


class LiteralForm(TypedDict):
    """The literal form of the criterion."""

    fires: bool
    margin: float | None
    verdict: str
    stderr: NotRequired[float | None]
    note: NotRequired[str]


FormName = Literal["capacity", "transport_cost", "directional"]


class Form(TypedDict):
    """A form of the criterion."""

    value: E
    threshold: float
    fires_above: bool
    margin: float | None
    fires: bool
    verdict: str
    note: str
    form: NotRequired[str]


class Verdicts(TypedDict):
    """What the forms of the criterion say."""

    verdict: str
    decides: FormName
    why: str
    capacity: Form
    transport_cost: Form
    directional: Form
    warnings: list[str]
    source: str


class ClosurePoint(TypedDict):
    """Capacity and need at one moment of a training."""

    time: float
    capacity: E
    need: E


class Closure(TypedDict):
    """A form along a training."""

    threshold: float
    fires_above: bool
    points: list[ClosurePoint]
    time: E
    closes: bool | None
