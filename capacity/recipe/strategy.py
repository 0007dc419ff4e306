"""The recipe's part on mitigation: which strategy acts against forgetting, with its options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from capacity.base.checks import nearest
from capacity.base.registry import registry_of
from capacity.recipe.refusals import refusal

PositiveInt = Annotated[int, Field(ge=1, le=2**31 - 1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PLAIN = "naive"
"""Name of no strategy at all."""


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


class Strategy(Section):
    """What is done against forgetting, from the second task on.

    Nothing (`naive`); a quadratic penalty (`l2`, `ewc`, `si`, `mas`); a memory of old samples
    (`replay`, `der`, `derpp`), samples that the old network draws (`generative_replay`) or its
    outputs (`lwf`) in the loss; a projected gradient (`agem`, `ogd`, `gpm`); a belief held at the
    last one (`vcl`, `fisher_rao`); fewer trainable parameters (`freeze`); a gentler training
    (`lower_lr`, `fewer_epochs`); all old data, the upper reference (`joint`); or what was
    registered under a name of its own (`capacity.strategies.register`).

    The options are the fields of the class that is registered under the name, which
    `Strategy(name="ewc", strength=1.0)` is an object of.

    Attributes:
        name: Its name in a recipe.
        title: Its name for people; the name, where it has none.
        mitigates: Whether it is something to do, rather than nothing, or an upper reference.
        needs_path: Whether it must see the steps of the old tasks' trainings.
        of_beliefs: Whether it holds a belief, and a training of a point has nothing for it.
        of_generators: Whether it is for tasks that say how samples are drawn from a network.
        reads_old_outputs: Whether its steps follow what the network's outputs for old tasks do,
            on a memory or on new samples.
        turns_steps: Whether it changes what is done with a gradient, and not only the loss.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    mitigates: ClassVar[bool] = True
    needs_path: ClassVar[bool] = False
    of_beliefs: ClassVar[bool] = False
    of_generators: ClassVar[bool] = False
    reads_old_outputs: ClassVar[bool] = False
    turns_steps: ClassVar[bool] = False

    if not TYPE_CHECKING:

        def __new__(cls, /, **fields: Any) -> Strategy:
            """Make an object of the class that is registered under the name."""
            # An unknown name stays with this class, whose check refuses it.
            made = strategy_class(fields.get("name", PLAIN)) if cls is Strategy else cls
            return super().__new__(made or cls)

    @property
    def label(self) -> str:
        """Its name, with what differs from the defaults: `ewc, strength = 100.0`."""
        fields = type(self).model_fields
        changed = [
            f"{key} = {value}"
            for key, value in self.model_dump().items()
            if key != "name" and getattr(self, key) != fields[key].default
        ]
        return ", ".join([self.name, *changed])

    @model_validator(mode="wrap")
    @classmethod
    def _as_registered(cls, given: Any, handler: ModelWrapValidatorHandler[Strategy]) -> Strategy:
        if isinstance(given, Strategy):
            if strategy_class(given.name) is not type(given):
                raise ValueError(
                    f"strategy {given.name!r} is not registered, and a run is read and resumed by "
                    f"its name; call capacity.strategies.register({type(given).__name__})"
                )
            return given
        if not isinstance(given, Mapping):
            raise PydanticCustomError(
                "strategy", "no section; give its name and options, as {{name: ewc, strength: 10}}"
            )
        options = dict(given)
        name = options.pop("name", cls.name or PLAIN)
        if cls is Strategy:
            kind = strategy_class(name)
            if kind is None:
                names = registry_of("capacity.strategies").names()
                expected = {"expected": ", ".join(map(repr, names))}
                unknown = InitErrorDetails(
                    type="literal_error", loc=("name",), input=name, ctx=expected
                )
                raise ValidationError.from_exception_data("Strategy", [unknown])
            return kind.model_validate(given)
        if name != cls.name:
            raise ValueError(f"name = {name!r} is not {cls.name!r}, that of {cls.__name__}")
        for option, value in options.items():
            if option not in cls.model_fields:
                accepted = cls.model_fields
                raise ValueError(
                    f"{option} = {value!r} is no option of name = {name!r}"
                    f"{nearest(str(option), accepted)}; accepted: {', '.join(accepted) or 'none'}"
                )
        return handler(options)

    @model_serializer(mode="wrap")
    def _with_its_name(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        options = {k: list(v) if isinstance(v, tuple) else v for k, v in handler(self).items()}
        return {"name": self.name, **options}


NamedStrategy = Annotated[
    SerializeAsAny[Strategy],
    BeforeValidator(lambda given: {"name": given} if isinstance(given, str) else given),
]
"""A strategy in a recipe: its name alone, or a section with its options."""


def strategy_class(name: object) -> type[Strategy] | None:
    """Look a strategy up by the room's name: they stand above the recipe.

    Args:
        name: Its name.

    Returns:
        Its class; None where nobody knows the name.

    Raises:
        ValueError: If something else is registered under the name.
    """
    known = registry_of("capacity.strategies")
    if not isinstance(name, str) or (name not in known.built_in and name not in known.names()):
        return None
    found = known.load(name)
    if not isinstance(found, type) or not issubclass(found, Strategy):
        raise ValueError(
            f"strategy {name!r} is registered as {found!r}; register a subclass of "
            "capacity.strategies.Strategy"
        )
    return found
