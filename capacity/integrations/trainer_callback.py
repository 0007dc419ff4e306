"""A callback for `transformers.Trainer`: forecasts before the training, and measures after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from capacity.forecasting.forecast import forecast
from capacity.forecasting.record import Forecast, Forgetting
from capacity.forecasting.trainer_door import planned
from capacity.integrations.scores import change, scores_of
from capacity.networks.evaluate import Score
from capacity.recipe.config import Training
from capacity.tasks.task import LossFunction, Task

if TYPE_CHECKING:
    from transformers import TrainerCallback as _Callback
else:
    try:
        from transformers import TrainerCallback as _Callback
    except ImportError as error:
        raise ImportError(
            "CapacityCallback needs transformers; install it with: pip install transformers"
        ) from error


class CapacityCallback(_Callback):
    """Forecasts how much a Trainer's model will forget, and measures it when the training ends.

    Both are logged through the Trainer (`capacity/...` in its log history and in every tracker that
    it reports to). The training itself is the same, bit for bit, with the callback and without.

    Args:
        trainer: The Trainer that it is added to.
        old: As in `capacity.forecast`: what the model has learned before, by name.
        strategies: As in `capacity.forecast`: what else could be done against forgetting.
        training: The plan; None reads it off the Trainer.
        loss: The loss; None finds out which loss of its logits the model computes.
        budget: As in `capacity.forecast`.

    Attributes:
        forecast: What was forecast; None before the training begins.
        measured: What then happened, by name of the old data; empty before the training ends.

    Example:
        >>> from capacity.integrations.trainer_callback import CapacityCallback  # doctest: +SKIP
        >>> callback = CapacityCallback(trainer, old={"wiki": wiki})  # doctest: +SKIP
        >>> trainer.add_callback(callback)  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
        >>> callback.forecast.old[0].accuracy_drop.value  # doctest: +SKIP
        0.12
        >>> callback.measured["wiki"].accuracy_drop.value  # doctest: +SKIP
        0.11
    """

    def __init__(
        self,
        trainer: Any,
        *,
        old: object,
        strategies: str | Sequence[Any] = (),
        training: Training | None = None,
        loss: str | LossFunction | None = None,
        budget: float | Literal["auto"] = "auto",
    ) -> None:
        self._trainer, self._old, self._loss = trainer, old, loss
        self._strategies, self._training, self._budget = strategies, training, budget
        self._tasks: list[Task] = []
        self._before: list[Score] = []
        self.forecast: Forecast | None = None
        self.measured: dict[str, Forgetting] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forecast, and score the old data."""
        del control
        if state.global_step:  # a training that goes on: it was forecast when it began
            return
        plan = planned(self._trainer, old=self._old, training=self._training, loss=self._loss)
        self._tasks = plan.old
        self.forecast = forecast(
            plan.model, old=plan.old, new=plan.new, training=plan.training,
            strategies=self._strategies, budget=self._budget, seed=args.seed,
            device=args.device,
        )  # fmt: skip
        self._before = scores_of(self._trainer.model, self._tasks)
        said = zip(self._tasks, self.forecast.old, strict=True)
        self._log("forecast", said)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Score the old data again."""
        del args, state, control
        if not self._before:
            return
        after = scores_of(self._trainer.model, self._tasks)
        self.measured = {
            task.name: change(task, *pair)
            for task, *pair in zip(self._tasks, self._before, after, strict=True)
        }
        self._log("measured", [(task, self.measured[task.name]) for task in self._tasks])

    def _log(self, kind: str, said: Iterable[tuple[Task, Forgetting]]) -> None:
        self._trainer.log({
            f"capacity/{kind}/{task.name}/{name}": figure.value
            for task, one in said
            for name in ("accuracy_drop", "loss_increase")
            if (figure := getattr(one, name)).value is not None
        })
