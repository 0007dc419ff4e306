"""The door of a forecast: whether network, tasks and losses fit together, before any work."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from capacity.dynamics.flat import FlatModel
from capacity.tasks.task import Task

_SAMPLES = 8
"""Samples per task that are looked at; more would cost a small budget."""


def check_network(flat: FlatModel, theta: Tensor, old: Sequence[Task], new: Task) -> None:
    """Check that a network can be forecast on some tasks.

    Args:
        flat: The network.
        theta: Its parameters (P,).
        old: The old tasks.
        new: The new task.

    Raises:
        ValueError: If parameters or outputs are not finite, inputs, outputs, targets and losses do
            not fit together, or the new task is an old one; the message names the parameter or
            the task.
    """
    if theta.is_meta:
        raise ValueError(
            "model has its parameters on the meta device, where they have no values; load them "
            "with model.to_empty(device='cpu') and load_state_dict first"
        )
    for name, part in flat.unflatten(theta).items():
        if not bool(torch.isfinite(part).all()):
            bad = int((~torch.isfinite(part)).sum())
            raise ValueError(
                f"model parameter {name!r} holds NaN or infinity in {bad} of {part.numel()} "
                "values; load a network from before its training diverged"
            )
    shape = tuple(new.train.x.shape[1:])
    for task in old:
        if tuple(task.train.x.shape[1:]) != shape:
            raise ValueError(
                f"old: task {task.name!r} has inputs of shape {tuple(task.train.x.shape[1:])}, the "
                f"new task {shape}; one model needs one shape"
            )
    for task in (*old, new):
        _check_task(flat, theta, task)
    for task in old:
        if _same(task, new):
            raise ValueError(
                f"new: its training samples and targets are those of old task {task.name!r}, so "
                "the network has learned it already and there is nothing to forecast; pass the "
                "task that comes next"
            )


def _same(one: Task, other: Task) -> bool:
    parts = ((one.train.x, other.train.x), (one.train.y, other.train.y))
    return one.outputs == other.outputs and all(
        a.device == b.device and a.dtype == b.dtype and torch.equal(a, b) for a, b in parts
    )


def _check_task(flat: FlatModel, theta: Tensor, task: Task) -> None:
    x, y = (part[:_SAMPLES].to(theta.device) for part in (task.train.x, task.train.y))
    shape = tuple(x.shape[1:])
    try:
        with torch.no_grad():
            outputs = flat.outputs(theta, x)
    except RuntimeError as error:
        raise ValueError(
            f"model does not take inputs of shape {shape} and dtype {x.dtype} (task "
            f"{task.name!r}): {error}"
        ) from error
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"model returns a {type(outputs).__name__}; wrap it so that it returns one tensor, "
            "the outputs (n, n_outputs)"
        )
    named = isinstance(task.loss, str)
    if len(outputs) != len(x) or outputs.dim() < 2 or (named and outputs.dim() != 2):
        raise ValueError(
            f"model returns outputs of shape {tuple(outputs.shape)} for {len(x)} samples; return "
            "(n, n_outputs), as with torch.nn.Flatten() at its end"
        )
    if not bool(torch.isfinite(outputs).all()):
        raise ValueError(
            f"model has outputs that are NaN or infinite on task {task.name!r}, although its "
            "parameters are finite; scale the inputs, or load a network that has not diverged"
        )
    task.check_outputs(outputs.shape[-1])
    said = f"task {task.name!r}: loss = {getattr(task.loss, '__name__', task.loss)!r}"
    try:
        with torch.no_grad():
            loss = task.loss_of(outputs, y)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"{said} does not take outputs of shape {tuple(outputs.shape)} and targets of shape "
            f"{tuple(y.shape)}: {error}"
        ) from error
    if not isinstance(loss, Tensor) or loss.dim() > 0:
        came = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"{said} returns {came}; return the mean over samples, a scalar tensor")
    if not bool(torch.isfinite(loss)):
        raise ValueError(f"{said} is {float(loss)} for the network as it is; it must be finite")
