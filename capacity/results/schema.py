"""The types of `result.json` and `metrics.jsonl`; `result_schema.md` says what they mean.

Readers take these types, a file is checked against them when it is read, and `result.schema.json`
is generated from them. A field that an earlier version did not write is `NotRequired`; fields that
stand in no type are let alone.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from capacity.results.criterion_schema import Capacity, Closure, Dimension, LiteralForm, Verdicts
from capacity.results.estimate_schema import E, Table


class Change(TypedDict):
    """What learning one task does to another."""

    accuracy_drop: E
    loss_increase: E


class Learned(TypedDict):
    """Scores on a task."""

    accuracy: E
    loss: E


class Model(TypedDict):
    """The network."""

    description: str
    parameters: int
    outputs: NotRequired[int]


class Lost(TypedDict):
    """Where a training stopped being finite."""

    step: int
    replicas: list[int]


class TestCounts(TypedDict):
    """What a task's scores are means over, where that is not its samples."""

    loss: float | None
    accuracy: float | None


class Task(TypedDict):
    """One task."""

    name: str
    status: Literal["learned", "diverged", "interrupted", "not_started"]
    train_samples: int
    test_samples: int
    steps: int
    classes: NotRequired[list[Any] | None]
    outputs: NotRequired[list[Any] | None]
    scored_on: NotRequired[str]
    held_out: NotRequired[int]
    overlap: NotRequired[int]
    test_counts: NotRequired[TestCounts]
    diverged: NotRequired[Lost | None]


class Scores(TypedDict):
    """Accuracies or losses."""

    mean: Table | None
    stderr: NotRequired[Table | None]
    replicas: NotRequired[list[Table] | None]


class ForgettingTables(TypedDict, total=False):
    """What was forgotten, since just after learning and since the best."""

    last: list[list[E]]
    max: list[list[E]]


class Forgetting(TypedDict, total=False):
    """What was forgotten, in accuracy and in loss."""

    accuracy: ForgettingTables | None
    loss: ForgettingTables | None


class Cell(TypedDict):
    """One earlier task in a transition."""

    task: int
    forecast: Change | None
    measured: Change | None
    controls: NotRequired[dict[str, Change] | None]


class New(TypedDict):
    """The new task itself in a transition."""

    forecast: Learned | None
    measured: Learned | None


class ForecastCell(TypedDict):
    """One earlier task under a strategy."""

    task: int
    forecast: Change


class StrategyForecast(TypedDict):
    """A transition under one of the compared strategies."""

    name: str
    old: list[ForecastCell]
    new: Learned
    average_accuracy: E
    average_loss: E
    cost_ratio: E


class Transition(TypedDict):
    """What learning one more task was forecast and measured to do."""

    task: int
    old: list[Cell]
    new: New
    cost_ratio: NotRequired[E]
    controls: NotRequired[dict[str, E] | None]
    by_strategy: NotRequired[list[StrategyForecast]]
    note: NotRequired[str]
    capacity: NotRequired[Capacity | None]
    dimension: NotRequired[Dimension | None]
    literal: NotRequired[LiteralForm | None]
    verdicts: NotRequired[Verdicts | None]
    closures: NotRequired[dict[str, Closure] | None]
    plasticity: NotRequired[dict[str, E] | None]


class SingularValue(TypedDict):
    """A singular value, within its residual."""

    value: float
    residual: float
    resolved: bool


class Parts(TypedDict):
    """How many singular values lie above, within and below the bulk."""

    chaotic: E
    bulk: E
    stable: E
    chaotic_above: float
    stable_below: float


class Count(TypedDict):
    """How many singular values lie on one side of a threshold."""

    side: str
    threshold: float
    count: E


class Density(TypedDict):
    """How many singular values lie in each class."""

    edges: list[float]
    counts: list[float]
    stderr: list[float | None] | None
    resolved: list[bool]


class Spectrum(TypedDict):
    """The singular values of J."""

    singular_values: list[SingularValue]
    smallest: list[SingularValue]
    top_resolved: int
    parts: Parts
    counts: list[Count]
    density: Density
    moved_above: float
    moved: E
    alignment: E
    effective_rank: E
    stable_rank: E
    frobenius_sq: E
    deviation_sq: E
    sweeps_missing: E
    dimension: float
    exact: bool
    method: str
    sweeps: float
    products_forward: float
    products_adjoint: float


class Transport(Spectrum):
    """J of a training."""

    log_volume: NotRequired[E]
    log_volume_total: NotRequired[E]
    tangents: NotRequired[int]


class Composed(Spectrum):
    """J over all learned tasks."""

    tasks: int


class PathInvariant(TypedDict):
    """Whether the path was at least as dear as the straight line."""

    holds: bool
    smallest_ratio: float | None


class Geometry(TypedDict):
    """What a training cost in the metric of its steps."""

    name: str
    action: E
    distance_sq: E
    inefficiency: E
    loss_drop_ratio: E
    length_sq: NotRequired[E]
    least_inefficiency: NotRequired[E]


class ImplicitSteps(TypedDict):
    """How well the ends of a belief's implicit steps were found."""

    residual: E
    largest: float


class BeliefCost(TypedDict):
    """The free energy that a belief spent on a task."""

    geometry: str
    free_energy_before: E
    free_energy_after: E
    entropy_gain: E
    dissipation: E
    distance_sq: E
    inefficiency: E
    verdict: str
    energy_drop: NotRequired[E]
    transport: NotRequired[E]
    commitment: NotRequired[E]
    excess: NotRequired[E]
    gibbs_fall: NotRequired[E]
    gibbs_before: NotRequired[E]
    gibbs_after: NotRequired[E]


class Thermo(TypedDict):
    """What a training cost."""

    learning_time: float
    path_invariant: PathInvariant
    inefficiency_path: NotRequired[E]
    loss_drop_ratio: NotRequired[E]
    action: NotRequired[E]
    loss_drop: NotRequired[E]
    displacement_sq: NotRequired[E]
    length_ratio: NotRequired[E]
    geometry: NotRequired[Geometry]
    implicit: NotRequired[ImplicitSteps]
    belief: NotRequired[BeliefCost]


class RunningStatistic(TypedDict):
    """A buffer that training moves."""

    rms: E
    moved: E


class Generation(TypedDict):
    """What the network made after a task, judged by a fixed classifier."""

    old: list[int]
    new: list[int]
    images: list[list[int]]
    shares: list[float]
    share_old: E
    frechet: E


class Phase(TypedDict, total=False):
    """What learning a task did to theta."""

    transport: Transport | None
    thermo: Thermo | None
    statistics: dict[str, RunningStatistic]
    calibration: list[E]
    generation: Generation


class Quality(TypedDict):
    """Forecasts against what was measured."""

    spearman: E
    r2: E
    mean_error: E


class GuessErrors(TypedDict, total=False):
    """Mean errors of a guess that anybody could make."""

    accuracy_drop: E
    loss_increase: E


class ForecastScores(TypedDict):
    """Forecasts and simpler predictors against what was measured."""

    pairs: int
    accuracy_drop: NotRequired[Quality | None]
    loss_increase: NotRequired[Quality | None]
    controls: NotRequired[dict[str, Change] | None]
    guesses: NotRequired[dict[str, GuessErrors] | None]


class Result(TypedDict):
    """The content of `result.json`."""

    schema: Literal["capacity/result"]
    schema_version: Literal[1]
    name: str
    status: Literal["finished", "diverged", "interrupted", "failed", "running"]
    seed: int
    replicas: int
    model: Model
    tasks: list[Task]
    accuracy: Scores | None
    loss: Scores | None
    forgetting: Forgetting | None
    final: dict[str, E] | None
    transitions: list[Transition]
    phases: list[Phase | None]
    scores: ForecastScores | None
    recipe: NotRequired[dict[str, Any] | None]
    composed: NotRequired[Composed | None]


class MetricsRow(TypedDict):
    """A row of `metrics.jsonl`."""

    task: int
    epoch: int
    step: int
    learning_time: NotRequired[float | None]
    lr: NotRequired[float | None]
    train_loss: NotRequired[float | None]
    train_loss_stderr: NotRequired[float | None]
    test_accuracy: NotRequired[list[float | None] | None]
    test_accuracy_stderr: NotRequired[list[float | None] | None]
    test_loss: NotRequired[list[float | None] | None]
    test_loss_stderr: NotRequired[list[float | None] | None]


def json_schema() -> dict[str, Any]:
    """Generate the JSON schema of a result.

    Returns:
        What `result.schema.json` holds.
    """
    return TypeAdapter(Result).json_schema()
