"""The recipe: one tree of frozen records that says everything a run depends on.

A recipe is checked when it is built, so a wrong one dies before any data is read. YAML files are
read strictly: an unknown key, a wrong type or a value out of range is an error with its dotted
path. Bundled recipes are the files under `benchmarks/recipes/`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    Strict,
    ValidationError,
    model_validator,
)

from capacity.base.checks import budget_given, nearest, path_text
from capacity.base.registry import registry_of
from capacity.recipe.old_choice import checked_choice
from capacity.recipe.refusals import refusal, registered
from capacity.recipe.strategy import NamedStrategy, PositiveFloat, PositiveInt, Section
from capacity.recipe.strategy import Strategy as Strategy
from capacity.recipe.strict_yaml import parse_yaml, read_yaml
from capacity.recipe.training import Training as Training

Fraction = Annotated[float, Field(gt=0, lt=1)]
# YAML has lists only; the numbers inside stay strictly typed.
Sizes = Annotated[tuple[PositiveInt, ...], Strict(False), Field(max_length=200)]


_SOURCES = "capacity.tasks.sources"
_MOST_RATES = 2000
"""Rates that a file of 64 KiB holds, beside the rest."""


def _source_known(given: object) -> object:
    """Check a name against the sources of data; `custom` marks that there is none."""
    return given if given == "custom" else registered(registry_of(_SOURCES), given, "custom")


class TaskStream(Section):
    """Which sequence of tasks is learned.

    Example:
        >>> import capacity
        >>> capacity.TaskStream(scenario="rotated", experiences=3, max_angle=60.0).dataset
        'digits'
    """

    dataset: Annotated[str, BeforeValidator(_source_known)] = "digits"
    """`digits` (ships with scikit-learn), `diffusion-digits` (the noise in the same images, for a
    denoiser, which has no accuracy), `text-topics` (docstrings of installed packages by topic, for
    pretrained networks), `mnist`, `cifar10`, `cifar100`, or a source that is registered in
    `capacity.tasks`; `custom` marks tasks handed over through the Python API."""
    scenario: Literal["split", "permuted", "rotated", "mixed"] = "split"
    """Disjoint classes, permuted pixels, rotated images; or `mixed`: for `digits` up to six tasks
    (all digits, noisy, rotated, five digits only, two pairs of labels swapped, permuted), for
    `text-topics` up to five (docstrings, source code, words shuffled, five topics, swapped)."""
    experiences: PositiveInt = 5
    """Number of tasks."""
    heads: bool = False
    """One head per task (task-incremental) instead of one head for all (class-incremental)."""
    max_angle: Annotated[float, Field(gt=0, le=360)] = 90.0
    """Angle of the last task, degrees (`rotated` only); the first task is not rotated."""
    test_fraction: Fraction = 0.2
    """Share of the samples held out for testing (`digits` only; the others bring a test set)."""
    samples: PositiveInt | None = None
    """At most this many training samples per task; None takes all."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the split, the permutations and the subsample."""
    fingerprint: str | None = None
    """What the tasks, the network and the losses are (`custom` only), set by `capacity.run`."""
    tokenizer: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """What turns texts into tokens (`text-topics` only), as `model.pretrained`; None takes
    MiniLM's."""
    root: Annotated[str, Field(max_length=4000), AfterValidator(path_text)] | None = None
    """Where the downloaded data sets lie; None takes Avalanche's default."""

    @model_validator(mode="after")
    def _heads_need_split(self) -> TaskStream:
        if self.heads and self.scenario != "split":
            raise ValueError(
                f"heads = True goes with scenario = 'split' only, not {self.scenario!r}: "
                "the tasks of the other scenarios share their classes"
            )
        return self


class Model(Section):
    """Which network learns.

    Example:
        >>> import capacity
        >>> capacity.Model(kind="mlp", hidden=(64, 64)).activation
        'relu'
    """

    kind: Literal["mlp", "cnn", "vit", "pretrained", "custom"] = "mlp"
    """`vit` is a small vision transformer; `pretrained` is a transformer with a new head (see
    `pretrained`); `custom` marks a model handed over through the Python API."""
    hidden: Sizes = (64,)
    """Widths of the hidden layers (`mlp`), channels of the convolutions (`cnn`), or the width of
    every block (`vit`, a multiple of 4)."""
    activation: Literal["relu", "tanh", "gelu"] = "relu"
    """Nonlinearity after every hidden layer."""
    pretrained: Annotated[str, Field(min_length=1, max_length=1000)] = "minilm"
    """Which network `pretrained` loads: `minilm` (all-MiniLM-L6-v2, in the extra `pretrained`), a
    directory, or a name on the Hugging Face hub."""
    adapter: Literal["none", "lora"] = "none"
    """What of a pretrained network is trained: all of it, or the head and low-rank
    adapters of every linear layer."""
    rank: PositiveInt = 8
    """Rank of the adapters (`lora` only)."""

    @model_validator(mode="after")
    def _options_do_something(self) -> Model:
        idle: dict[str, str] = {}
        if self.kind in {"mlp", "cnn", "vit"}:
            idle = dict.fromkeys(("pretrained", "adapter", "rank"), f"kind = {self.kind!r}")
        if self.kind == "vit":
            idle["activation"] = "kind = 'vit'"
        if self.kind == "pretrained":
            idle = dict.fromkeys(("hidden", "activation"), f"kind = {self.kind!r}")
            if self.adapter == "none":
                idle["rank"] = "adapter = 'none'"
        for name, beside in idle.items():
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                raise ValueError(f"{name} = {value!r} does nothing with {beside}; leave it out")
        return self


LEVELS: dict[str, dict[str, Any]] = {
    "forecast": {"transport": False, "capacity": False, "verdicts": False, "closure_points": 0},
    "capacity": {"transport": False, "capacity": True, "verdicts": True, "closure_points": 0},
    "full": {"transport": True, "capacity": True, "verdicts": True, "closure_points": 4},
}
"""What each level of a measurement switches on, cheapest first."""


class Measure(Section):
    """What is measured beside accuracy and loss. Nothing here changes the training.

    Example:
        >>> import capacity
        >>> capacity.Measure(level="full", capacity=False).transport
        True
    """

    level: Literal["forecast", "capacity", "full"] = "forecast"
    """`forecast`: forecasts, strategies, forgetting and cost; `capacity` adds R_A, m_B and the
    verdicts; `full` adds J_t, its spectra, and when the criterion closed. What `transport`,
    `capacity`, `verdicts` and `closure_points` are where they are not given."""
    forecast: bool = True
    """Forecast the forgetting of every earlier task before each task."""
    forecast_budget: Annotated[float | Literal["auto"] | None, BeforeValidator(budget_given)] = (
        "auto"
    )
    """Share of the training's operations; `auto` rehearses short ones; null linearises."""
    strategies: Annotated[tuple[NamedStrategy, ...], Strict(False), Field(max_length=100)] = ()
    """Strategies to forecast and rank before each task, as [ewc, {name: replay, memory: 20}]."""
    old: Annotated[str, AfterValidator(checked_choice)] = "all"
    """Which old tasks every forecast, score and R_A looks at: `all`, `last 5` or `sample 5` (drawn
    anew before each task); the cost of a further task then stays flat. At the end all are scored.
    """
    transport: bool = False
    """Track J_t of replica 0; off, R_A takes J_t = 1. On at level `full`."""
    tangents: PositiveInt = 16
    """Tangents K pushed forward together through every training step."""
    log_volume_probes: Annotated[int, Field(ge=2)] = 4
    """Random probes per step for log|det J_t|; at least 2, to know the error."""
    log_volume_nodes: PositiveInt = 3
    """Lanczos nodes per probe for log|det J_t|."""
    log_volume_columns: Annotated[int, Field(ge=0, le=2000)] = 400
    """Largest P whose columns are all carried for log|det J_t| of momentum, adaptive or clipped
    steps, which takes them all; in larger networks it is not defined."""
    top_values: PositiveInt = 10
    """Largest singular values of J_t to resolve."""
    sweeps: PositiveInt = 12
    """Most forward-and-adjoint passes over a task's trajectory for its spectrum."""
    moved_sweeps: Annotated[int, Field(ge=0)] = 0
    """Most further passes to count the singular values of J_t - 1; 0 gives a lower bound."""
    composed_spectrum: bool = False
    """Resolve the spectrum of J_t over all tasks, too, once the last is learned."""
    capacity: bool = False
    """Measure R_A and m_B before each task, the dearest part of a run. On from level `capacity`."""
    capacity_probes: Annotated[int, Field(ge=2)] = 16
    """Random probes for log det in R_A; at least 2, to know the error."""
    capacity_nodes: PositiveInt = 10
    """Most sweeps over the trajectory for log det in R_A."""
    capacity_precision: PositiveFloat = 0.02
    """Half-width of R_A's interval, relative to it, at which the sweeps end earlier."""
    eps: Annotated[
        tuple[PositiveFloat, ...], Strict(False), Field(min_length=1, max_length=200)
    ] = (0.1,)
    """Scales of R_A = 1/2 log det(1 + eps^-2 J' P_A J); the first is the headline."""
    sensitivity_eps: Annotated[tuple[PositiveFloat, ...], Strict(False), Field(max_length=200)] = (
        0.01,
        0.1,
        1.0,
    )
    """Scales of R_A's table over tolerances (a tenth, one, ten times); [] leaves it out."""
    tolerance: PositiveFloat | None = None
    """Allowed rise of A's loss, nats; None derives it from the noise of A's own loss."""
    displacement: PositiveFloat | None = None
    """Scale of a single direction's displacement; None derives it from the training of A."""
    curvature_samples: PositiveInt = 512
    """Most samples of a task behind its curvature."""
    verdicts: bool = False
    """Judge by every form of the criterion whether the next task will make the network forget,
    where R_A and m_B are measured. On from level `capacity`."""
    closure_points: Annotated[int, Field(ge=0)] = 0
    """Moments along each training at which the next task is judged, too; 4 at level `full`."""

    @model_validator(mode="before")
    @classmethod
    def _level_fills_in(cls, given: Any) -> Any:
        level = given.get("level", "forecast") if isinstance(given, Mapping) else None
        return LEVELS[level] | dict(given) if isinstance(level, str) and level in LEVELS else given

    @model_validator(mode="after")
    def _strategies_can_be_compared(self) -> Measure:
        labels = [options.label for options in self.strategies]
        for k, label in enumerate(labels):
            if label in labels[:k]:
                raise ValueError(f"strategies holds {label!r} twice; give each once")
        for options in self.strategies:
            if options.needs_path:
                raise ValueError(
                    f"strategies holds {options.name!r}, which needs to have watched the old "
                    "tasks' training; it is forecast where it is training.strategy"
                )
        return self


class Recipe(Section):
    """Everything a run depends on, apart from the device.

    Example:
        >>> import capacity
        >>> recipe = capacity.Recipe(name="mine", training=capacity.Training(lr=0.05), replicas=2)
        >>> recipe.tasks.dataset, recipe.training.lr
        ('digits', 0.05)
    """

    name: Annotated[str, Field(min_length=1, max_length=1000)]
    """Name of the run; what `capacity recipes ls` lists."""
    description: Annotated[str, Field(max_length=4000)] = ""
    """One line for people."""
    tasks: TaskStream = TaskStream()
    """Which sequence of tasks is learned."""
    model: Model = Model()
    """Which network learns it."""
    training: Training = Training()
    """How each task is learned."""
    measure: Measure = Measure()
    """What is measured."""
    replicas: PositiveInt = 8
    """Networks trained side by side, with their own initialisation and data order."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Root of every random stream of the run."""

    @model_validator(mode="after")
    def _tokens_are_the_networks_own(self) -> Recipe:
        reads = self.model.pretrained
        texts = self.tasks.dataset == "text-topics" and self.model.kind == "pretrained"
        if texts and self.tasks.tokenizer is None and reads != type(self.model)().pretrained:
            raise ValueError(
                f"model.pretrained = {reads!r} reads tokens of its own, and tasks.tokenizer is "
                f"MiniLM's; set tasks.tokenizer={reads}"
            )
        return self

    @model_validator(mode="after")
    def _fits_into_a_file(self) -> Recipe:
        rates = self.training.rates or ()
        if len(rates) > _MOST_RATES:
            raise ValueError(
                f"training.rates has {len(rates)} rates, and a recipe keeps {_MOST_RATES} at most; "
                "name a schedule, or give rates with schedule_per = 'epoch'"
            )
        return self

    def to_yaml(self) -> str:
        """Write the recipe out in full, defaults included.

        Returns:
            YAML that `load` reads back to an equal recipe.
        """
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def build(fields: Mapping[str, Any], *, source: str = "recipe") -> Recipe:
    """Build a recipe from plain data.

    Args:
        fields: Nested fields, as YAML gives them.
        source: Where they come from, for the message.

    Returns:
        The checked recipe.

    Raises:
        ValueError: If a field is unknown, missing, of the wrong type or out of range; the message
            is one line with the field's dotted path, what came and what is accepted.
    """
    try:
        return Recipe.model_validate(dict(fields))
    except ValidationError as error:
        raise ValueError(f"{source}: {refusal(error, Recipe)}") from None


def recipe_folder() -> Path:
    """Find the bundled recipes.

    Returns:
        The folder inside an installed package, or `benchmarks/recipes` of a checkout.
    """
    here = Path(__file__).resolve().parents[1]
    installed = here / "recipes"
    return installed if installed.is_dir() else here.parent / "benchmarks" / "recipes"


def recipe_names() -> list[str]:
    """List the bundled recipes.

    Returns:
        Names, sorted.
    """
    return sorted(path.stem for path in recipe_folder().glob("*.yaml"))


def recipe_path(name: str | Path) -> Path:
    """Find a recipe by its bundled name or its path.

    Args:
        name: A bundled recipe's name, or the path of a YAML file.

    Returns:
        Path of an existing file.

    Raises:
        ValueError: If there is neither; the message names the nearest recipe.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        if os.path.isfile(path):  # Path's own raises where a name is too long
            return path
        why = "is a directory; name a file" if os.path.isdir(path) else "there is no such file"
        raise ValueError(f"recipe = {str(name)!r}: {why}")
    names = recipe_names()
    if str(name) not in names:
        raise ValueError(
            f"recipe = {str(name)!r} is not known{nearest(str(name), names)}; accepted: "
            f"{', '.join(names)}, or the path of a .yaml file"
        )
    return recipe_folder() / f"{name}.yaml"


def load(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply dotted overrides.

    Args:
        name: A bundled recipe's name, or the path of a YAML file.
        overrides: Items such as `training.lr=0.05`; the right side is read as YAML.

    Returns:
        The checked recipe.

    Raises:
        ValueError: If the recipe does not exist, is not a YAML mapping, or a field is wrong.
    """
    path = recipe_path(name)
    try:
        fields = read_yaml(path)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    if not isinstance(fields, dict):
        came = "and this is empty" if fields is None else f"not {type(fields).__name__}"
        raise ValueError(f"{path.name}: a recipe is a mapping of fields, {came}")
    for item in overrides:
        _override(fields, item)
    return build(fields, source=path.name)


def _override(fields: dict[str, Any], item: str) -> None:
    key, equals, text = item.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ValueError(
            f"override {item!r} is not understood; write FIELD=VALUE, as training.lr=0.05"
        )
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"override {item!r}: {error}") from None
    section = fields
    for part in parts[:-1]:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise ValueError(f"override {item!r}: {part!r} is a value, not a section")
    if parts == ["measure", "level"]:  # the file's switches were those of another level
        for switch in LEVELS["full"]:
            section.pop(switch, None)
    section[parts[-1]] = value
