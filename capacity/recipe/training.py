"""The recipe's part on training: how each task is learned."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Strict, model_validator

from capacity.base.checks import one_of
from capacity.base.registry import registry_of
from capacity.recipe.belief import NamedBelief
from capacity.recipe.curriculum import NamedCurriculum
from capacity.recipe.refusals import registered
from capacity.recipe.schedules import NEEDS, Schedule, factors
from capacity.recipe.strategy import NamedStrategy, PositiveFloat, PositiveInt, Section, Strategy

Decay = Annotated[float, Field(ge=0, lt=1)]
_Factor = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _optimizer_known(given: object) -> object:
    """Check a name against the registry; a step of one's own is registered under its name."""
    known = registry_of("capacity.optimizers")
    if not isinstance(given, str) and callable(getattr(given, "step", None)):
        known.register(getattr(given, "name", ""), given)
        return getattr(given, "name", "")
    return registered(known, given)


def _warmup_given(given: object) -> object:
    """Check a number of steps, or a share of them."""
    count = isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 2**31
    if count or (isinstance(given, float) and 0 <= given < 1):
        return given
    raise ValueError(
        f"{given!r} is no warmup; give a whole number of steps, as 100, or their share, as 0.06"
    )


TAKEN_BY = {
    "momentum": ("momentum",),
    "nesterov": ("momentum",),
    "betas": ("adam", "adamw"),
    "alpha": ("rmsprop",),
    "eps": ("adam", "adamw", "rmsprop"),
}
"""Options, with the optimisers that take each; for all others it would do nothing."""
_NOISY = ("sgld", "underdamped")
"""Optimisers whose steps carry thermal noise."""
_IN_FIELDS = {"sgd", "momentum", "adam", "adamw", "rmsprop", "sgld"}
"""Optimisers whose options are fields of the section, older than `options`."""
_AS = {"power": "2.0", "gamma": "0.1", "decay_every": "1000", "rates": "[1.0, 0.5, 0.1]"}
"""An example of what a schedule needs."""


class ParameterGroup(Section):
    """Parameters that are trained otherwise than the rest, as biases without weight decay.

    Example:
        >>> import capacity
        >>> bare = {"parameters": ["*.bias", "*norm*"], "weight_decay": 0.0}
        >>> plan = capacity.Training(optimizer="adamw", weight_decay=0.01, groups=[bare])
        >>> plan.groups[0].lr_factor
        1.0
    """

    parameters: Annotated[tuple[str, ...], Strict(False), Field(min_length=1, max_length=5000)]
    """Names, or patterns of names as `fnmatch` has them; the first group that fits counts."""
    lr_factor: PositiveFloat = 1.0
    """Learning rate, relative to that of the step."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Weight decay; null takes the training's."""


class Training(Section):
    """How each task is learned. The optimiser state starts anew with each task.

    Example:
        >>> import capacity
        >>> plan = capacity.Training(optimizer="momentum", lr=0.05, epochs=3, batch_size=32)
        >>> plan.steps(samples=100)  # of one task: 3 epochs of 4 batches
        12
    """

    optimizer: Annotated[str, BeforeValidator(_optimizer_known)] = "sgd"
    """`sgd`, `momentum` (heavy ball), `adam`, `adamw`, `rmsprop`, as `torch.optim` has them;
    `sgld`, Langevin dynamics: SGD with noise of a given temperature; `underdamped`, the same with
    inertia (BAOAB), and `friction` among its `options`; `mirror`, descent in a potential, whose
    `options` are those of `Mirror`; `natural`, descent in the metric of the network's outputs, with
    `damping` and `curvature` (`exact`, `diagonal` or `auto` by size) among its `options`; or one
    that you registered (`capacity.optimizers.register`). In Python also a `GradientStep`, which is
    registered here."""
    lr: PositiveFloat = 0.1
    """Learning rate of a task: the one that schedule and warmup are relative to."""
    schedule: Schedule = "constant"
    """Learning rate over a task: `constant`; from lr to its share `final` by `cosine`, `linear` or
    `polynomial` (with `power`); times `gamma` every `decay_every` steps (`step`), or every step
    (`exponential`); or the `rates` given (`custom`)."""
    schedule_per: Literal["step", "epoch"] = "step"
    """What the schedule counts in, warmup and `decay_every` included."""
    warmup: Annotated[int | float, BeforeValidator(_warmup_given)] = 0
    """Steps over which the rate rises linearly from 0 to lr, or below 1 their share of all; the
    schedule begins behind them."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of lr that `cosine`, `linear` and `polynomial` end at."""
    power: PositiveFloat | None = None
    """Exponent of `polynomial`."""
    gamma: PositiveFloat | None = None
    """Factor of `step` and `exponential`."""
    decay_every: PositiveInt | None = None
    """Steps after which `step` takes its factor again."""
    rates: Annotated[tuple[_Factor, ...], Strict(False), Field(max_length=10**6)] | None = None
    """Learning rate of every step, relative to lr (`custom` only)."""
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """Passes over the task's training data."""
    max_steps: PositiveInt | None = None
    """Steps of each task, in place of epochs: in the middle of one where they end there."""
    batch_size: PositiveInt = 64
    """Samples per step; a task smaller than this trains on full batches."""
    accumulate: PositiveInt = 1
    """Batches whose gradients make one step, along their mean over samples: a step is one on
    `accumulate * batch_size` samples. What is left of an epoch makes a last, smaller step."""
    momentum: Decay = 0.9
    """Momentum coefficient (`momentum` only)."""
    nesterov: bool = False
    """Nesterov's variant (`momentum` only)."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Weight decay: decoupled for `adamw`, added to the gradient for the others."""
    groups: Annotated[tuple[ParameterGroup, ...], Strict(False), Field(max_length=100)] = ()
    """Parameters with a rate or weight decay of their own; all others take what stands here."""
    clip_norm: PositiveFloat | None = None
    """Clip the gradient of each replica to this norm; None clips nothing."""
    betas: Annotated[tuple[Decay, Decay], Strict(False)] = (0.9, 0.999)
    """Decay of the first and second moments (`adam`, `adamw`)."""
    alpha: Decay = 0.99
    """Decay of the second moment (`rmsprop` only)."""
    eps: PositiveFloat = 1e-8
    """Added to the denominator (`adam`, `adamw`, `rmsprop`)."""
    temperature: PositiveFloat | None = None
    """Temperature of the noise, or of a belief (`sgld`, `underdamped` and `belief` only, and needed
    there)."""
    belief: NamedBelief = None
    """Move a Gaussian over the parameters in place of a point: `transport` or `information`, or
    {geometry: transport, width: 0.05}; with optimizer `sgd`."""
    curriculum: NamedCurriculum = None
    """Order of a task's samples by their loss before it: `easy` or `hard` samples first, or {first:
    easy, stages: 5, share: 0.5}; `null` draws from all of them throughout."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of `mirror`, `natural`, `underdamped` and of a registered optimiser; the others' are
    the fields above."""
    strategy: NamedStrategy = Field(default_factory=lambda: Strategy())
    """What is done against forgetting: a name, as replay, or {name: ewc, strength: 10}."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # options are a dict

    @model_validator(mode="after")
    def _temperature_goes_with_noise(self) -> Training:
        taker = "belief" if self.belief is not None else f"optimizer = {self.optimizer!r}"
        if (self.temperature is not None) != (self.belief is not None or self.noisy):
            raise ValueError(
                f"{taker} needs a temperature, as temperature = 1e-4"
                if self.temperature is None
                else f"temperature = {self.temperature:g} goes with optimizer = 'sgld' or "
                f"'underdamped' or a belief only, not {self.optimizer!r}, which has no noise"
            )
        return self

    @model_validator(mode="after")
    def _belief_moves_by_itself(self) -> Training:
        if self.belief is not None and (self.optimizer != "sgd" or self.groups):
            other = f"optimizer = {self.optimizer!r}" if self.optimizer != "sgd" else "groups"
            raise ValueError(
                f"belief = {self.belief.geometry!r} has steps of its own, which {other} would not "
                "change; leave one of the two out"
            )
        if self.belief is not None and self.belief.implicit and self.clip_norm is not None:
            raise ValueError(
                f"clip_norm = {self.clip_norm:g} does not go with belief.implicit = "
                f"{self.belief.implicit}, whose steps are as long as their ends say; leave one out"
            )
        return self

    @model_validator(mode="after")
    def _curriculum_shows_all_samples(self) -> Training:
        if self.curriculum is not None and self.max_steps is None:
            self.curriculum.check_epochs(self.epochs)
        return self

    @model_validator(mode="after")
    def _options_do_something(self) -> Training:
        if self.optimizer not in registry_of("capacity.optimizers").built_in:
            return self  # what it reads is its own affair
        # A run writes every option, with its default where it does nothing; people write a few.
        written_out = TAKEN_BY.keys() <= self.model_fields_set
        for name, takers in TAKEN_BY.items():
            value = getattr(self, name)
            default = value == type(self).model_fields[name].default
            idle = default and (written_out or name not in self.model_fields_set)
            if self.optimizer not in takers and not idle:
                raise ValueError(
                    f"{name} = {value} goes with optimizer = {' or '.join(map(repr, takers))} "
                    f"only, and {self.optimizer!r} would train without it; change the optimizer, "
                    f"or leave {name} out"
                )
        return self

    @model_validator(mode="after")
    def _schedule_has_what_it_needs(self) -> Training:
        needed = NEEDS[self.schedule]
        for name in ("power", "gamma", "decay_every", "rates"):
            if (getattr(self, name) is not None) != (name in needed):
                takes = " and ".join(repr(s) for s, fields in NEEDS.items() if name in fields)
                raise ValueError(
                    f"schedule = {self.schedule!r} needs {name}, as {_AS[name]}"
                    if name in needed
                    else f"{name} goes with schedule = {takes} only, not {self.schedule!r}"
                )
        if self.rates is None:
            return self
        if not any(self.rates):
            raise ValueError("rates are all 0; give one above 0, relative to lr")
        if self.warmup:
            raise ValueError("warmup does not go with schedule = 'custom'; put it into rates")
        if self.schedule_per == "epoch" and self.max_steps is not None:
            raise ValueError(
                "rates per epoch do not go with max_steps; give epochs, or rates per step"
            )
        return self

    @model_validator(mode="after")
    def _options_are_the_optimizers(self) -> Training:
        known = registry_of("capacity.optimizers")
        if self.optimizer not in _IN_FIELDS:
            from_training = getattr(known.load(self.optimizer), "from_training", None)
            if from_training is not None:  # else whoever trains with it refuses it
                from_training(self)
        elif self.options:
            raise ValueError(
                f"options = {self.options!r} goes with optimisers that are registered; those of "
                f"{self.optimizer!r} are fields of training, as momentum, betas or eps"
            )
        return self

    @classmethod
    def from_torch(
        cls,
        optimizer: Any,
        scheduler: Any = None,
        *,
        batch_size: int,
        epochs: int | None = None,
        steps: int | None = None,
        per: Literal["step", "epoch"] = "step",
        accumulate: int = 1,
        clip_norm: float | None = None,
        model: Any = None,
    ) -> Training:
        """Read a plan off the optimizer and scheduler of a loop, which are not changed.

        The plan has the options as they are now and the rates that the next steps would have: the
        scheduler runs on a copy of the optimizer. Moments of earlier steps are left behind, as the
        optimizer state starts anew with each task. Training is in the network's own precision,
        whatever the loop's autocast.

        Args:
            optimizer: A `torch.optim` SGD, Adam, AdamW or RMSprop; frozen parameters in it are
                passed over.
            scheduler: A scheduler of `torch.optim.lr_scheduler`, or of that class; None where the
                rates stay as they are.
            batch_size: Samples per batch.
            epochs: Passes over the data; or else
            steps: Optimizer steps, which may end before the scheduler does.
            per: When the loop calls `scheduler.step()`.
            accumulate: Batches per optimizer step.
            clip_norm: Norm that the loop clips the gradient to.
            model: The network; needed where groups have options of their own, unless the optimizer
                was given named parameters.

        Returns:
            The plan. What has no counterpart here is a ValueError that names it.

        Example:
            >>> import capacity, torch
            >>> model = torch.nn.Linear(4, 2)
            >>> optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
            >>> scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
            >>> plan = capacity.Training.from_torch(
            ...     optimizer, scheduler, epochs=4, per="epoch", batch_size=32
            ... )
            >>> plan.optimizer, plan.rates
            ('adamw', (1.0, 1.0, 0.5, 0.5))
        """
        made: Training = import_module("capacity.optimizers.plan_of_torch").plan_of_torch(
            optimizer,
            scheduler,
            batch_size=batch_size,
            epochs=epochs,
            steps=steps,
            per=per,
            accumulate=accumulate,
            clip_norm=clip_norm,
            model=model,
        )
        return made

    @classmethod
    def from_trainer(cls, trainer: Any) -> Training:
        """Read the plan of a `transformers.Trainer`, which is not changed.

        Optimizer, groups, rates, clipping, batches and accumulation are those that the Trainer
        itself makes of its arguments or was given. The order of the data is shuffled, the loss is
        that of the tasks, and training is in the network's own precision, whatever `fp16` and
        `bf16` say. A last, smaller batch counts by its samples; the Trainer may count it whole.

        Args:
            trainer: The Trainer, or an object of a subclass.

        Returns:
            The plan, in epochs where the Trainer is, else in steps. What has no counterpart here is
            a ValueError that names it.

        Example:
            >>> import capacity
            >>> plan = capacity.Training.from_trainer(trainer)  # doctest: +SKIP
            >>> plan.schedule, plan.warmup  # doctest: +SKIP
            ('linear', 0.06)
        """
        made: Training = import_module("capacity.optimizers.plan_of_trainer").plan_of_trainer(
            trainer
        )
        return made

    @property
    def noisy(self) -> bool:
        """Whether its steps carry thermal noise."""
        return self.optimizer in _NOISY

    @property
    def decays(self) -> bool:
        """Whether any parameter has weight decay."""
        return bool(self.weight_decay or any(group.weight_decay for group in self.groups))

    @property
    def samples_per_step(self) -> int:
        """Samples behind the gradient of a step; fewer where a task or an epoch has no more."""
        return self.batch_size * self.accumulate

    def steps(self, samples: int) -> int:
        """Count the optimiser steps of one task.

        Args:
            samples: Training samples of the task.

        Returns:
            Number of steps.
        """
        return self.max_steps or self.epochs * math.ceil(samples / self.samples_per_step)

    def passes(self, samples: int) -> int:
        """Count the epochs that one task begins.

        Args:
            samples: Training samples of the task.

        Returns:
            Number of epochs; with `max_steps` the last may end early.
        """
        if self.max_steps is None:
            return self.epochs
        return math.ceil(self.max_steps / math.ceil(samples / self.samples_per_step))

    def seen(self, samples: int) -> int:
        """Count the samples behind all gradients of one task.

        Args:
            samples: Training samples of the task.

        Returns:
            Their number; a sample counts once per epoch.
        """
        if self.max_steps is None:
            return self.epochs * samples
        whole, rest = divmod(self.max_steps, math.ceil(samples / self.samples_per_step))
        return whole * samples + rest * min(self.samples_per_step, samples)

    def learning_rates(self, samples: int) -> list[float]:
        """List the learning rate of every step of one task.

        Args:
            samples: Training samples of the task.

        Returns:
            One rate per step.

        Raises:
            ValueError: If `rates` are not as many as the task has steps, or epochs.
        """
        one_of("training.schedule", self.schedule, NEEDS)
        steps, per_epoch = self.steps(samples), math.ceil(samples / self.samples_per_step)
        by_step = self.schedule_per == "step"
        units = steps if by_step else self.passes(samples)
        if self.rates is None:
            relative = factors(
                self.schedule,
                units,
                warmup=self.warmup,
                final=self.final,
                power=self.power,
                gamma=self.gamma,
                decay_every=self.decay_every,
            )
        elif len(self.rates) == units:
            relative = list(self.rates)
        else:
            raise ValueError(
                f"training.rates has {len(self.rates)} rates, and a task of {samples} samples "
                f"takes {units} {self.schedule_per}s; give one each, set max_steps = "
                f"{len(self.rates)}, or name a schedule"
            )
        if not by_step:
            relative = [relative[k // per_epoch] for k in range(steps)]
        return [self.lr * factor for factor in relative]

    def shortened(self, factor: float) -> Training:
        """Make the same training of fewer epochs, or steps where it is planned in those.

        Args:
            factor: Share of them that is left, at least one.

        Returns:
            The training; `rates` keep their shape, and of a curriculum's stages stay as many as
            the epochs that are left can show all samples with.
        """
        name = "epochs" if self.max_steps is None else "max_steps"
        before = int(getattr(self, name))
        now = max(1, round(before * factor))
        changed: dict[str, Any] = {name: now}
        if self.rates is not None:
            count = len(self.rates) * now // before
            places = (int((k + 0.5) * len(self.rates) / count) for k in range(count))
            changed["rates"] = tuple(self.rates[place] for place in places)
        if self.curriculum is not None and self.max_steps is None:
            changed["curriculum"] = self.curriculum.within(now)
        return self.model_copy(update=changed)
