"""The door to every analysis: network, tasks and losses are run on some samples before any work.

Whatever evaluates a network on tasks comes through here once, so that a misfit dies with one line
that says what to do, and not inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from capacity.base.differential import pullback
from capacity.base.randomness import kept_random_state
from capacity.networks.flat_model import FlatModel
from capacity.networks.own_losses_door import asking_of, bound, with_layout
from capacity.networks.purity import (
    check_derivatives,
    check_samples_apart,
    run_network,
    shaken,
    trains_otherwise,
)
from capacity.tasks.alignment import aligned
from capacity.tasks.loss_kinds import fit_batch_loss, fit_loss, telling_rows
from capacity.tasks.losses import (
    ScoreByPosition,
    by_position,
    cross_entropy_by_position,
    name_of,
)
from capacity.tasks.task import LossFunction, Split, Task, is_label_table

_SAMPLES = 8
"""Samples per task that the network is run on; more would cost a small budget."""
_SHAKES = 8
"""How often parameters are moved to see an output move."""
_PRECISE = (torch.float32, torch.float64)


def fit(
    flat: FlatModel,
    theta: Tensor,
    tasks: Sequence[Task],
    *,
    twice: bool = True,
    two_modes: bool = False,
) -> tuple[Task, ...]:
    """Run a network and its losses on some samples of every task.

    Args:
        flat: The network; how it has to be run is noted in it.
        theta: Its parameters (P,).
        tasks: The tasks.
        twice: Whether second derivatives of the network are needed.
        two_modes: Whether the caller takes a network that trains otherwise than it is evaluated
            (dropout, batch norm); it is then run in evaluation mode but for its steps. And one
            which only plain autograd differentiates, once.

    Returns:
        The tasks, their batches laid out alike, each with its loss in a form that is a mean or a
        weighted mean over samples. It is a ValueError if parameters or outputs are not finite, the
        network is no function of its parameters and of each sample alone or cannot be
        differentiated, a loss is no mean over samples, or network, tasks and losses do not fit
        together; the message names the layer, the parameter or the task, and says what to do.
    """
    with kept_random_state(), torch.no_grad():
        _check_values(flat, theta)
        tasks = tuple(with_layout(task) for task in aligned(tasks))
        flat.batches = tasks[0].layout
        flat.asking = asking_of(flat, theta, tasks)
        if not two_modes:
            flat.check_one_mode()
        elif any(trains_otherwise(flat, theta, _few(task, theta)) for task in tasks):
            flat.two_modes = True
            flat.modes.switch(training=False)
        fitting = []
        for task in tasks:
            x = _few(task, theta)
            outputs = run_network(flat, theta, x, f"task {task.name!r}")
            shape = outputs.shape[1:] if flat.table is None else flat.table
            task = _with_positions(task, outputs.reshape(len(x), *shape))
            outputs = _check_outputs(flat, task, x, outputs)
            check_samples_apart(flat, theta, x, outputs)
            fitting.append(task)
        few = _few(tasks[0], theta)
        check_derivatives(flat, theta, few, twice=twice, transforms=not two_modes)
        if tasks[0].losses is not None:
            return tuple(bound(flat, theta, task) for task in fitting)
        return tuple(_fit_task(flat, theta, task, twice) for task in fitting)


def fit_batch(
    flat: FlatModel, theta: Tensor, loss: LossFunction, x: Tensor, y: Tensor
) -> LossFunction:
    """Run a network and a loss on one batch of a training that is watched.

    The loss may couple the samples of a batch, and so may the network.

    Args:
        flat: The network; how it has to be run is noted in it.
        theta: Its parameters (P,).
        loss: The loss, a function of (outputs, targets).
        x: Inputs of the batch (n, ...).
        y: Its targets (n, ...).

    Returns:
        The loss in a form that works. What `fit` refuses, but for that, is a ValueError.
    """
    with kept_random_state(), torch.no_grad():
        outputs = run_network(flat, theta, x, "the observed batch")
        check_derivatives(flat, theta, x, twice=True)
        return fit_batch_loss(f"loss = {name_of(loss)!r}", loss, outputs, y)


def _few(task: Task, theta: Tensor) -> Tensor:
    return task.train.x[:_SAMPLES].to(theta.device)


def _check_values(flat: FlatModel, theta: Tensor) -> None:
    if flat.dtype not in _PRECISE:
        raise ValueError(
            f"model has parameters of dtype {flat.dtype}; accepted: torch.float32, torch.float64 "
            "(steps and curvature are finer than coarser numbers resolve): pass model.float(), "
            "and its inputs in the same precision"
        )
    for name, part in flat.unflatten(theta).items():
        if not bool(torch.isfinite(part).all()):
            bad = int((~torch.isfinite(part)).sum())
            raise ValueError(
                f"model parameter {name!r} holds NaN or infinity in {bad} of {part.numel()} "
                "values; load a network from before its training diverged"
            )
    if flat.belief is not None and not bool((theta.chunk(2, dim=-1)[0] > 0).all()):
        raise ValueError(
            "model is a capacity.Belief with a width of 0 or below, which no training opens again; "
            "call its reset_parameters(), or load one from before"
        )


def _with_positions(task: Task, outputs: Tensor) -> Task:
    """Bind the cross-entropy of a label per token or pixel, where the outputs are such."""
    loss = by_position(task.loss, outputs, task.train.y)
    if loss is not None:
        last = loss is cross_entropy_by_position
        return replace(task, loss=loss, score=ScoreByPosition(tuple(outputs.shape[1:]), last))
    if task.loss == "cross_entropy" and is_label_table(task.train.y):
        labels = tuple(task.train.y.shape[1:])
        raise ValueError(
            f"task {task.name!r} has labels of shape {labels} per sample, and the model outputs of "
            f"shape {tuple(outputs.shape[1:])}; cross_entropy takes outputs {(*labels, 'C')} or "
            f"{('C', *labels)}; turn one-hot labels into indices, as y.argmax(1), and pass a loss "
            "of your own for other pairs"
        )
    return task


def _check_outputs(flat: FlatModel, task: Task, x: Tensor, outputs: Tensor) -> Tensor:
    named = isinstance(task.loss, str)
    if outputs.dim() > 2 and not named:
        if task.outputs is not None:
            raise ValueError(
                f"task {task.name!r} reads outputs {list(task.outputs)}, but a sample has a table "
                f"of outputs of shape {tuple(outputs.shape[1:])}; give the task all of them, or "
                "return (n, n_outputs)"
            )
        if task.classifies:
            raise ValueError(
                f"task {task.name!r} has one label per sample, but a sample has a table of outputs "
                f"of shape {tuple(outputs.shape[1:])}, so no output is its label's and accuracy is "
                "not defined; reduce the table in the network (to (n, n_outputs)) in place of the "
                "loss, or pass targets as floats, which are scored by their loss alone"
            )
        flat.table = tuple(outputs.shape[1:])
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
    return outputs if flat.table is None else outputs.flatten(1)


def _fit_task(flat: FlatModel, theta: Tensor, task: Task, twice: bool) -> Task:
    rows = telling_rows(task.train).to(task.train.x.device)
    few = Split(task.train.x[rows], task.train.y[rows]).to(theta.device)
    outputs = flat.outputs(theta, few.x)
    _check_masked(flat, theta, task, few, outputs)
    return fit_loss(task, outputs, few.y, shape=flat.table, twice=twice)


def _check_masked(flat: FlatModel, theta: Tensor, task: Task, few: Split, outputs: Tensor) -> None:
    """Refuse a head whose outputs for the task's labels are constants that nothing moves."""
    if not task.classifies or outputs.dim() != 2 or len(few) < 2:
        return
    labels = torch.cat([task.train.y, task.test.y]).to(few.y.device).unique()
    labels = labels[task.counted(labels)]
    read = task.select(outputs)[:, labels]
    constant = (read == read[:1]).all(0)
    if not bool(constant.any()):
        return
    dead = labels[constant]
    # A rectifier may be still by chance, too: elsewhere it moves, and a mask does not.
    for seed in range(_SHAKES):
        away = task.select(flat.outputs(shaken(theta, seed), few.x))[:, dead]
        dead = dead[(away == away[:1]).all(0)]
    _, pull = pullback(lambda t: task.select(flat.outputs(t, few.x))[:, dead].sum(0), theta)
    still = [
        int(label)
        for label, row in zip(dead, torch.eye(len(dead)).to(outputs), strict=True)
        if not bool(pull(row)[0].any())
    ]
    if still:
        value = float(task.select(outputs)[0, still[0]])
        raise ValueError(
            f"model's outputs {still} for labels of task {task.name!r} are constant ({value:g}), "
            "and no parameter moves them, so the task cannot be learned as the network stands; if "
            "its head grows or masks classes, tell it of this task first (Avalanche: call the "
            "head's adaptation(experience))"
        )
