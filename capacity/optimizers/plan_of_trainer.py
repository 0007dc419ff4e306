"""A plan read off a `transformers.Trainer`, which stays as it is."""

from __future__ import annotations

import copy
import math
import warnings
from typing import TYPE_CHECKING, Any

from capacity.optimizers.plan_of_torch import plan_of_torch, stand_in_of
from capacity.recipe.config import Training

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

_TRAINER = "transformers.trainer.Trainer"


def plan_of_trainer(trainer: Any) -> Training:
    """Read a plan; see `Training.from_trainer`.

    Args:
        trainer: The Trainer.

    Returns:
        The plan.

    Raises:
        ValueError: If it is no Trainer, or something of it has no counterpart here.
    """
    if _TRAINER not in {f"{kind.__module__}.{kind.__qualname__}" for kind in type(trainer).__mro__}:
        raise ValueError(
            f"trainer is a {type(trainer).__name__}; pass a transformers.Trainer, or what a loop "
            "of your own has to Training.from_torch(optimizer, scheduler, ...)"
        )
    args, samples = trainer.args, _samples(trainer)
    batch = args.train_batch_size * max(1, args.world_size)
    if args.dataloader_drop_last and samples is not None and samples % batch:
        raise ValueError(
            f"trainer.args.dataloader_drop_last leaves {samples % batch} of {samples} samples out "
            "of every epoch, and a plan reads all; set it to False, or leave samples out yourself"
        )
    _warn_of_sums(trainer)
    steps = _steps(args, samples, batch)
    optimizer, scheduler = _made(trainer, steps)
    plan = plan_of_torch(
        optimizer,
        scheduler,
        batch_size=batch,
        epochs=None,
        steps=steps,
        per="step",
        accumulate=args.gradient_accumulation_steps,
        clip_norm=args.max_grad_norm or None,
        model=trainer.model,
    )
    return plan if samples is None else _in_epochs(plan, args, samples)


def _warn_of_sums(trainer: Any) -> None:
    """Say where accumulated gradients may be added up: the Trainer leaves their mean to the loss.

    It does so wherever `forward` takes `num_items_in_batch` among its keywords, and most losses but
    those of causal language models leave that unread.
    """
    if (
        trainer.args.gradient_accumulation_steps > 1
        and trainer.model_accepts_loss_kwargs
        and trainer.compute_loss_func is None
        and getattr(trainer.model, "loss_type", None) != "ForCausalLM"
    ):
        warnings.warn(
            "the plan takes the mean of accumulated gradients, and the Trainer may add them up, as "
            f"the loss of {type(trainer.model).__name__} may not divide by num_items_in_batch; set "
            "model.accepts_loss_kwargs = False before the Trainer is made, and it takes the mean",
            stacklevel=4,
        )


def _samples(trainer: Any) -> int | None:
    try:
        return len(trainer.train_dataset)
    except TypeError:  # none, or one that only iterates
        return None


def _steps(args: Any, samples: int | None, batch: int) -> int:
    """Count optimizer steps as the Trainer does: what is left of an epoch makes one, too."""
    if args.max_steps > 0:
        return int(args.max_steps)
    if samples is None:
        raise ValueError(
            "trainer has no train_dataset with a length, and no args.max_steps; give one of them"
        )
    batches = math.ceil(samples / batch)
    return math.ceil(args.num_train_epochs * math.ceil(batches / args.gradient_accumulation_steps))


def _made(trainer: Any, steps: int) -> tuple[Optimizer, LRScheduler]:
    """Let a twin make what the Trainer would train with; what it has already stays untouched."""
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)  # as accelerate wraps it
    if trainer.lr_scheduler is not None and not trainer._created_lr_scheduler:
        return optimizer, trainer.lr_scheduler
    twin = copy.copy(trainer)
    twin.lr_scheduler = None
    if optimizer is None:
        twin.create_optimizer()
    else:
        twin.optimizer = stand_in_of(optimizer)
    twin.create_scheduler(num_training_steps=steps, optimizer=twin.optimizer)
    return twin.optimizer, twin.lr_scheduler


def _in_epochs(plan: Training, args: Any, samples: int) -> Training:
    """Say the same in epochs, and warmup as a share, so that it fits other data, too."""
    if args.max_steps > 0 or not float(args.num_train_epochs).is_integer() or plan.rates:
        return plan
    warmup = args.warmup_steps if 0 < args.warmup_steps < 1 else plan.warmup
    changed = {"epochs": int(args.num_train_epochs), "max_steps": None, "warmup": warmup}
    again = plan.model_copy(update=changed)
    same = again.learning_rates(samples) == plan.learning_rates(samples)
    return again if same else plan
