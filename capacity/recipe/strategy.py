"""The recipe's part on mitigation: which strategy acts against forgetting, with its options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    model_serializer,
    model_validator,
)

from capacity.base.checks import nearest
from capacity.recipe.refusals import refusal

PositiveInt = Annotated[int, Field(ge=1, le=2**31 - 1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """One section of a recipe: frozen, strict, without unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )

    if not TYPE_CHECKING:  # the fields stay the arguments to a type checker

        def __init__(self, /, **fields: Any) -> None:
            try:
                super().__init__(**fields)
            except ValidationError as error:
                said = refusal(error, type(self))
                raise ValueError(f"{type(self).__name__}: {said}") from None

        # Else pydantic would build the sections of a recipe through it, and lose their paths.
        __init__.__pydantic_base_init__ = True


STRATEGY_OPTIONS: dict[str, dict[str, Any]] = {
    "naive": {},
    "l2": {"strength": 0.1},
    "ewc": {"strength": 10.0, "fisher": "true", "samples": 512},
    "si": {"strength": 0.1, "damping": 0.1},
    "mas": {"strength": 0.1, "samples": 512},
    "replay": {"strength": 1.0, "memory": 200, "memory_batch": 64, "selection": "balanced"},
    "lwf": {"strength": 1.0, "temperature": 2.0},
    "der": {"strength": 0.5, "memory": 200, "memory_batch": 64, "selection": "reservoir"},
    "derpp": {
        "strength": 0.5,
        "label_strength": 0.5,
        "memory": 200,
        "memory_batch": 64,
        "selection": "reservoir",
    },
    "agem": {"memory": 200, "memory_batch": 64, "selection": "balanced"},
    "ogd": {"samples": 20},
    "gpm": {"samples": 128, "threshold": 0.97},
    "freeze": {"parameters": None},
    "lower_lr": {"factor": 0.1},
    "fewer_epochs": {"factor": 0.2},
    "joint": {},
}
"""Strategies by name: the options of each with its defaults. `freeze` has none for `parameters`."""


class Strategy(Section):
    """What is done against forgetting, from the second task on."""

    name: Literal[
        "naive", "l2", "ewc", "si", "mas", "replay", "lwf", "der", "derpp", "agem", "ogd", "gpm",
        "freeze", "lower_lr", "fewer_epochs", "joint",
    ] = "naive"  # fmt: skip
    """Nothing (`naive`); a quadratic penalty (`l2`, `ewc`, `si`, `mas`); a memory of old samples
    (`replay`, `der`, `derpp`) or the old outputs (`lwf`) in the loss; a projected gradient (`agem`,
    `ogd`, `gpm`); fewer trainable parameters (`freeze`); a gentler training (`lower_lr`,
    `fewer_epochs`); or all old data, the upper reference (`joint`)."""
    strength: PositiveFloat | None = None
    """Weight of what is added to the loss (`l2`, `ewc`, `si`, `mas`, `lwf`, `der`, `derpp`), or of
    a memory sample against a new one (`replay`)."""
    label_strength: PositiveFloat | None = None
    """Weight of the memory's labels (`derpp`)."""
    fisher: Literal["true", "empirical", "ggn"] | None = None
    """Importance (`ewc`): the Fisher's diagonal over the network's own predictions (`true`) or over
    the labels (`empirical`), or the whole Gauss-Newton matrix, matrix-free (`ggn`)."""
    samples: PositiveInt | None = None
    """Most samples per old task behind the importance (`ewc`, `mas`) or the bases (`ogd`,
    `gpm`)."""
    damping: PositiveFloat | None = None
    """Added to the squared displacement (`si`)."""
    temperature: PositiveFloat | None = None
    """Temperature of the distilled outputs (`lwf`)."""
    memory: PositiveInt | None = None
    """Old samples kept, over all old tasks (`replay`, `der`, `derpp`, `agem`)."""
    memory_batch: PositiveInt | None = None
    """Memory samples per step, at most all of them."""
    selection: Literal["balanced", "reservoir"] | None = None
    """Which samples are kept: as many of each old task, or a uniform draw over all samples seen."""
    threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the old inputs' energy, per layer, that must lie in the protected space (`gpm`)."""
    parameters: Annotated[tuple[str, ...], Strict(False), Field(min_length=1)] | None = None
    """Names of the frozen parameters, or patterns such as `1.*` (`freeze` only, needed there)."""
    factor: Annotated[float, Field(gt=0, le=1)] | None = None
    """What the learning rate (`lower_lr`) or the number of epochs (`fewer_epochs`) is multiplied
    with."""

    @property
    def label(self) -> str:
        """Its name, with what differs from the defaults: `ewc, strength = 100.0`."""
        defaults = STRATEGY_OPTIONS[self.name]
        changed = [
            f"{key} = {value}"
            for key, value in self.model_dump().items()
            if key != "name" and value != defaults[key]
        ]
        return ", ".join([self.name, *changed])

    @model_validator(mode="before")
    @classmethod
    def _take_defaults(cls, fields: Any) -> Any:
        if not isinstance(fields, Mapping):
            return fields
        defaults = STRATEGY_OPTIONS.get(str(fields.get("name", "naive")), {})
        given = {key: value for key, value in fields.items() if value is not None}
        return {**defaults, **given}

    @model_validator(mode="after")
    def _options_belong(self) -> Strategy:
        accepted = STRATEGY_OPTIONS[self.name]
        given = [f for f in type(self).model_fields if f != "name" and getattr(self, f) is not None]
        for option in given:
            if option not in accepted:
                raise ValueError(
                    f"{option} = {getattr(self, option)!r} is no option of name = {self.name!r}"
                    f"{nearest(option, accepted)}; accepted: {', '.join(accepted) or 'none'}"
                )
        if self.name == "freeze" and self.parameters is None:
            raise ValueError(
                "name = 'freeze' needs the parameters to freeze, as parameters = ['1.*']"
            )
        return self

    @model_serializer
    def _without_foreign_options(self) -> dict[str, Any]:
        # A recipe written out in full holds the options of its own strategy only.
        names = ["name", *STRATEGY_OPTIONS[self.name]]
        values = {name: getattr(self, name) for name in names}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
