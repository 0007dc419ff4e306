"""The data of a `transformers.Trainer` as tasks: its data sets, its collator, its model's own loss.

Nothing here imports transformers: a trainer is told by what it has.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from capacity.base.randomness import kept_random_state
from capacity.tasks.losses import cross_entropy_by_position
from capacity.tasks.sample_parts import LABELS
from capacity.tasks.task import LossFunction, Task
from capacity.tasks.tensors import as_task

_NEAR = 1e-3
"""Relative difference within which two losses are the same."""


def is_trainer(value: object) -> bool:
    """Tell a `transformers.Trainer`, or what derives from it.

    Args:
        value: Anything.

    Returns:
        Whether it has a trainer's data, model and arguments.
    """
    return all(
        hasattr(value, name) for name in ("get_eval_dataloader", "train_dataset", "args", "model")
    )


def task_of_trainer(trainer: Any, data: Any, *, name: str, loss: str | LossFunction) -> Task:
    """Read a data set as a trainer reads it.

    Args:
        trainer: The trainer; its collator and its choice of columns are used.
        data: A data set; a pair of them, (train, test); or a `Task`, which is returned as it is.
        name: Name of the task.
        loss: Its loss.

    Returns:
        The task.
    """
    if isinstance(data, Task):
        return data
    if isinstance(data, tuple) and len(data) == 2:
        parts = tuple(trainer.get_eval_dataloader(part) for part in data)
        return as_task(parts, name=name, loss=loss)
    return as_task(trainer.get_eval_dataloader(data), name=name, loss=loss)


def _shifted(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each next token, as causal language models have it."""
    return cross_entropy_by_position(outputs[:, :-1], targets[:, 1:])


def _squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(outputs.reshape(targets.shape), targets.to(outputs.dtype))


def _yes_or_no(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype))


_PLAIN = "cross-entropy"
_CANDIDATES: dict[str, LossFunction] = {
    _PLAIN: functional.cross_entropy,
    "cross-entropy per token": cross_entropy_by_position,
    "cross-entropy of the next token": _shifted,
    "squares": _squares,
    "a yes or no per label": _yes_or_no,
}
_BY_NAME = (_PLAIN, "cross-entropy per token")
"""Those that `cross_entropy` chooses by the shape of the labels."""


@torch.no_grad()
def loss_of_trainer(trainer: Any, model: nn.Module) -> str | LossFunction:
    """Find which loss of its logits a trainer's model computes.

    Args:
        trainer: The trainer.
        model: A copy of its model, in evaluation mode.

    Returns:
        The loss, as a name or a function of (outputs, targets).

    Raises:
        ValueError: If it computes a loss of its own, or the model's is none of the known ones.
    """
    own = "pass loss=, a function of (outputs, targets) that returns the mean"
    if getattr(trainer, "compute_loss_func", None) is not None or _overrides_loss(trainer):
        raise ValueError(
            f"the {type(trainer).__name__} computes a loss of its own, which is not read; {own}"
        )
    with kept_random_state():
        batch = dict(next(iter(trainer.get_eval_dataloader(trainer.train_dataset))))
    name = next((name for name in LABELS if name in batch), None)
    if name is None:
        raise ValueError(
            f"the trainer's batches hold {', '.join(map(repr, batch))} and no labels; rename the "
            "column, as dataset.rename_column('category', 'labels')"
        )
    made = model(**batch)
    loss, outputs = getattr(made, "loss", None), getattr(made, "logits", None)
    if loss is None or outputs is None:
        raise ValueError(f"the model returns no loss and logits for labels; {own}")
    for kind, function in _CANDIDATES.items():
        try:
            value = function(outputs, batch[name])
        except (RuntimeError, ValueError, IndexError):
            continue
        if torch.isclose(value.float(), loss.float(), rtol=_NEAR):
            return _smoothed(trainer, kind, own)
    raise ValueError(
        f"the model's loss is {float(loss):.4g}, and none of {', '.join(_CANDIDATES)} of its "
        f"logits gives that; {own}"
    )


def _smoothed(trainer: Any, kind: str, own: str) -> str | LossFunction:
    """Give the loss that was found, with the trainer's label smoothing."""
    smoothing = float(getattr(trainer.args, "label_smoothing_factor", 0.0))
    if smoothing and kind != _PLAIN:
        raise ValueError(
            f"trainer.args.label_smoothing_factor = {smoothing:g} is known for {_PLAIN} of one "
            f"label per sample only, and the model's loss is {kind}; {own}"
        )
    if smoothing:
        return nn.CrossEntropyLoss(label_smoothing=smoothing)
    return "cross_entropy" if kind in _BY_NAME else _CANDIDATES[kind]


def _overrides_loss(trainer: Any) -> bool:
    kinds = type(trainer).__mro__
    owner = next((kind for kind in kinds if "compute_loss" in vars(kind)), None)
    return owner is not None and not owner.__module__.startswith("transformers.")
