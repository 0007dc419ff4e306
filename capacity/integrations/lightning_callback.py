"""A callback for Lightning: forecasts before a fit, and measures after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from torch import nn
from torch.utils.data import DataLoader

from capacity.base.randomness import kept_random_state
from capacity.forecasting.forecast import forecast
from capacity.forecasting.record import Forecast, Forgetting
from capacity.integrations.scores import change, scores_of
from capacity.networks.copies import copied
from capacity.networks.evaluate import Score
from capacity.networks.training_steps import step_loss
from capacity.recipe.config import Training
from capacity.tasks.splits import Splits, read_splits
from capacity.tasks.step_loss import StepLoss
from capacity.tasks.task import Task
from capacity.tasks.tensors import named_tasks

if TYPE_CHECKING:
    _Callback = Any
else:
    try:
        from lightning.pytorch import Callback as _Callback
    except ImportError:
        try:
            from pytorch_lightning import Callback as _Callback
        except ImportError as error:
            raise ImportError(
                "CapacityCallback needs Lightning; install it with: pip install lightning"
            ) from error

_SOME = 8


class CapacityCallback(_Callback):
    """Forecasts how much a LightningModule will forget, and measures it when the fit ends.

    The loss is that of `training_step(batch, 0)`, of which is seen by running it which network it
    calls. Figures go to the Trainer's loggers (`capacity/...`). The training itself is the same,
    bit for bit, with the callback and without.

    Args:
        old: What the module has learned before, by name: data loaders or data sets, or pairs
            (train, test) of such, whose batches `training_step` takes; or a single one.
        training: The plan; None reads it off the Trainer: one optimiser, its scheduler, steps or
            epochs, accumulation and clipping.
        strategies: As in `capacity.forecast`: what else could be done against forgetting.
        budget: As in `capacity.forecast`.

    Attributes:
        forecast: What was forecast; None before the fit begins.
        measured: What then happened, by name of the old data; empty before the fit ends.

    Example:
        >>> from capacity.integrations.lightning_callback import CapacityCallback  # doctest: +SKIP
        >>> callback = CapacityCallback(old={"wiki": wiki_loader})  # doctest: +SKIP
        >>> lightning.Trainer(callbacks=[callback]).fit(module, loader)  # doctest: +SKIP
        >>> callback.forecast.old[0].loss_increase.value  # doctest: +SKIP
        0.12
    """

    def __init__(
        self,
        *,
        old: object,
        training: Training | None = None,
        strategies: str | Sequence[Any] = (),
        budget: float | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        self._old, self._training = old, training
        self._strategies, self._budget = strategies, budget
        self._tasks: list[Task] = []
        self._before: list[Score] = []
        self.forecast: Forecast | None = None
        self.measured: dict[str, Forgetting] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Forecast, and score the old data."""
        if trainer.global_step:  # a training that goes on: it was forecast when it began
            return
        with kept_random_state():
            module = _quiet(pl_module)
            held = trainer.val_dataloaders
            held = held[0] if isinstance(held, list) and len(held) == 1 else held
            own = trainer.train_dataloader
            new = _read("new", (own, held) if isinstance(held, DataLoader) else own)
            plan = _plan(trainer, pl_module, new) if self._training is None else self._training
            assert new.layout is not None
            batch = new.layout.unpack(new.train.first(_SOME).x.to(pl_module.device))
            step = step_loss(_quiet(pl_module), batch, _step, "training_step")
            self._tasks = [
                _task(name, _read(name, data), step)
                for name, data in named_tasks(self._old).items()
            ]
            self.forecast = forecast(
                module.train(), old=self._tasks, new=_task("new", new, step), training=plan,
                strategies=self._strategies, budget=self._budget, device=pl_module.device,
            )  # fmt: skip
            self._before = scores_of(_quiet(pl_module), self._tasks)
        self._log(trainer, "forecast", zip(self._tasks, self.forecast.old, strict=True))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Score the old data again."""
        if not self._before:
            return
        with kept_random_state():
            after = scores_of(_quiet(pl_module), self._tasks)
        self.measured = {
            task.name: change(task, *pair)
            for task, *pair in zip(self._tasks, self._before, after, strict=True)
        }
        self._log(trainer, "measured", [(t, self.measured[t.name]) for t in self._tasks])

    @staticmethod
    def _log(trainer: Any, kind: str, said: Iterable[tuple[Task, Forgetting]]) -> None:
        figures = {
            f"capacity/{kind}/{task.name}/loss_increase": one.loss_increase.value
            for task, one in said
            if one.loss_increase.value is not None
        }
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=trainer.global_step)


def _step(module: Any, batch: Any) -> Any:
    return module.training_step(batch, 0)


def _quiet(module: nn.Module) -> nn.Module:
    """Copy a module whose step logs nothing, and whose metrics keep nothing."""
    other: Any = copied(module)
    other.log = other.log_dict = lambda *_, **__: None
    for part in other.modules():
        if all(hasattr(part, name) for name in ("update", "compute", "reset")):  # of torchmetrics
            part.forward = part.update = lambda *_, **__: None
    made: nn.Module = other
    return made


def _read(name: str, data: object) -> Splits:
    pair = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    return read_splits(name, *pair, loss=_step, whole=True)


def _task(name: str, data: Splits, step: StepLoss) -> Task:
    return Task(name=name, loss=step, **data._asdict())


def _plan(trainer: Any, module: nn.Module, new: Splits) -> Training:
    """Read what a Trainer is about to do off it."""
    if len(trainer.optimizers) != 1 or not trainer.lightning_module.automatic_optimization:
        raise ValueError(
            f"the module has {len(trainer.optimizers)} optimisers, or optimises by itself, and a "
            "plan has one; pass training=capacity.Training(lr=..., epochs=...)"
        )
    configs = trainer.lr_scheduler_configs
    if any(config.frequency != 1 or config.reduce_on_plateau for config in configs):
        raise ValueError(
            "the scheduler looks at a metric, or is not stepped each time; pass "
            "training=capacity.Training(lr=..., schedule=...)"
        )
    if trainer.gradient_clip_val and trainer.gradient_clip_algorithm not in (None, "norm"):
        raise ValueError(
            f"gradient_clip_algorithm = {trainer.gradient_clip_algorithm!r} is not known, only "
            "'norm'; pass training=capacity.Training(clip_norm=...)"
        )
    per: Any = configs[0].interval if configs else "step"
    stepped = (configs and per == "step") or (trainer.max_steps or 0) > 0
    return Training.from_torch(
        trainer.optimizers[0],
        configs[0].scheduler if configs else None,
        per=per,
        epochs=None if stepped else trainer.max_epochs,
        steps=int(trainer.estimated_stepping_batches) if stepped else None,
        batch_size=new.batch_size or _SOME,
        accumulate=trainer.accumulate_grad_batches,
        clip_norm=trainer.gradient_clip_val or None,
        model=module,
    )
