"""A plugin for Avalanche 0.6: forecasts before each experience, and measures after it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from capacity.base.randomness import kept_random_state
from capacity.forecasting.forecast import forecast
from capacity.forecasting.record import Forecast, Forgetting
from capacity.integrations.scores import change, scores_of
from capacity.networks.copies import copied, unwrapped
from capacity.networks.evaluate import Score
from capacity.recipe.config import Training
from capacity.tasks.task import LossFunction, Task
from capacity.tasks.tensors import as_task

if TYPE_CHECKING:
    _Plugin = Any
    MetricValue = Any
else:
    try:
        from avalanche.core import SupervisedPlugin as _Plugin
        from avalanche.evaluation.metric_results import MetricValue
    except ImportError as error:
        raise ImportError(
            "CapacityPlugin needs Avalanche; install it with: pip install avalanche-lib"
        ) from error


def _replay(plugin: Any) -> dict[str, Any]:
    batch = getattr(plugin, "batch_size_mem", None)
    return {"name": "replay", "memory": int(plugin.mem_size)} | (
        {} if batch is None else {"memory_batch": int(batch)}
    )


def _agem(plugin: Any) -> dict[str, Any]:
    return {"name": "agem", "memory_batch": int(plugin.sample_size)}


def _lwf(plugin: Any) -> dict[str, Any] | None:
    inner = getattr(plugin, "lwf", plugin)
    if not isinstance(inner.alpha, int | float) or not inner.alpha > 0:
        return None
    return {
        "name": "lwf", "strength": float(inner.alpha), "temperature": float(inner.temperature)
    }  # fmt: skip


def _ewc(plugin: Any) -> dict[str, Any]:
    return {"name": "ewc", "strength": float(plugin.ewc_lambda), "fisher": "empirical"}


STRATEGIES: dict[str, Callable[[Any], dict[str, Any] | None]] = {
    "ReplayPlugin": _replay,
    "AGEMPlugin": _agem,
    "LwFPlugin": _lwf,
    "EWCPlugin": _ewc,
}
"""How options of Avalanche's plugins against forgetting are read, by their class."""
_WATCHERS = ("EvaluationPlugin", "PeriodicEval", "Clock", "CapacityPlugin")
"""Plugins of Avalanche that leave the training alone."""


class CapacityPlugin(_Plugin):
    """Forecasts before each experience how much of the earlier ones is forgotten, and measures it.

    Values are published through the strategy's evaluator, so that every logger has them
    (`capacity/forecast/...`, `capacity/measured/...`). The training is the same, bit for bit, with
    the plugin and without. The strategy's own plugins against forgetting (Replay, A-GEM, LwF, EWC,
    with its Fisher per sample) are in the forecast; of others it says that it forecasts without.

    Args:
        benchmark: The benchmark; experience k of its test stream is the test data of experience k
            of its train stream.
        budget: As in `capacity.forecast`.

    Attributes:
        forecasts: By experience, what was forecast before it.
        measured: By experience, what then happened to each earlier one, by name.
        notes: What a forecast could not know, each once.

    Example:
        >>> from capacity.integrations.avalanche_plugin import CapacityPlugin  # doctest: +SKIP
        >>> plugin = CapacityPlugin(benchmark)  # doctest: +SKIP
        >>> strategy = Naive(model=model, optimizer=optimizer, plugins=[plugin])  # doctest: +SKIP
        >>> for experience in benchmark.train_stream:  # doctest: +SKIP
        ...     strategy.train(experience)
        >>> plugin.forecasts[1].old[0].accuracy_drop.value  # doctest: +SKIP
        0.93
    """

    def __init__(self, benchmark: Any, *, budget: float | Literal["auto"] = "auto") -> None:
        super().__init__()
        if not hasattr(benchmark, "train_stream") or not hasattr(benchmark, "test_stream"):
            raise ValueError(
                f"benchmark is a {type(benchmark).__name__} without train_stream and test_stream; "
                "pass the Avalanche benchmark whose experiences are trained"
            )
        self._benchmark, self._budget = benchmark, budget
        self._tasks: dict[int, Task] = {}
        self._learned: list[int] = []
        self._before: list[Score] = []
        self.forecasts: dict[int, Forecast] = {}
        self.measured: dict[int, dict[str, Forgetting]] = {}
        self.notes: list[str] = []

    def before_training_exp(self, strategy: Any, *_: Any, **__: Any) -> None:
        """Forecast, and score the earlier experiences."""
        self._before = []
        number = int(strategy.experience.current_experience)
        if number in self._learned or not self._learned:
            return
        with kept_random_state():
            try:
                old = [self._task(k, strategy) for k in self._learned]
                made = forecast(
                    copied(unwrapped(strategy.model)).train(),
                    old=old, new=self._task(number, strategy), training=self._plan(strategy),
                    budget=self._budget, device=strategy.device,
                )  # fmt: skip
                self._before = scores_of(strategy.model, old)
            except ValueError as error:  # the training is the user's, and goes on
                self._note(f"experience {number} has no forecast: {error}")
                return
        self.forecasts[number] = made
        self._publish(strategy, "forecast", dict(zip(self._names(), made.old, strict=True)))

    def after_training_exp(self, strategy: Any, *_: Any, **__: Any) -> None:
        """Score the earlier experiences again."""
        number = int(strategy.experience.current_experience)
        if self._before:
            old = [self._task(k, strategy) for k in self._learned]
            with kept_random_state():
                after = scores_of(strategy.model, old)
            self.measured[number] = {
                task.name: change(task, *pair)
                for task, *pair in zip(old, self._before, after, strict=True)
            }
            self._publish(strategy, "measured", self.measured[number])
        if number not in self._learned:
            self._learned.append(number)

    def _names(self) -> list[str]:
        return [f"experience {k}" for k in self._learned]

    def _task(self, number: int, strategy: Any) -> Task:
        """Read an experience and its test data, once."""
        if number not in self._tasks:
            parts = (self._benchmark.train_stream[number], self._benchmark.test_stream[number])
            self._tasks[number] = as_task(
                parts, name=f"experience {number}", loss=_loss_of(strategy)
            )
        return self._tasks[number]

    def _plan(self, strategy: Any) -> Training:
        """Read the strategy's plan and what it does against forgetting."""
        plan = Training.from_torch(
            strategy.optimizer, epochs=int(strategy.train_epochs),
            batch_size=int(strategy.train_mb_size), model=strategy.model,
        )  # fmt: skip
        found = []
        for plugin in strategy.plugins:
            kind = type(plugin).__name__
            if kind in STRATEGIES:
                found.append(STRATEGIES[kind](plugin))
            elif kind not in _WATCHERS:
                self._note(f"{kind} is not known here; the forecast is of a training without it")
        known = [options for options in found if options is not None]
        if len(found) > 1 or len(known) < len(found):
            self._note("several plugins against forgetting; the forecast is of one without them")
            known = []
        return (
            Training.model_validate(plan.model_dump() | {"strategy": known[0]}) if known else plan
        )

    def _publish(self, strategy: Any, kind: str, said: dict[str, Forgetting]) -> None:
        for name, one in said.items():
            for figure in ("accuracy_drop", "loss_increase"):
                value = getattr(one, figure).value
                if value is not None:
                    key = f"capacity/{kind}/{name}/{figure}"
                    step = int(strategy.clock.train_iterations)
                    strategy.evaluator.publish_metric_value(
                        MetricValue(self, key, float(value), step)
                    )

    def _note(self, said: str) -> None:
        if said not in self.notes:
            self.notes.append(said)
            warnings.warn(f"CapacityPlugin: {said}", stacklevel=3)


def _loss_of(strategy: Any) -> str | LossFunction:
    loss = strategy._criterion
    plain = type(loss) is nn.CrossEntropyLoss and loss.weight is None and not loss.label_smoothing
    return "cross_entropy" if plain and loss.reduction == "mean" else loss
