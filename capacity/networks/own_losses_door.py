"""The door for tasks whose losses are a function of (model, batch)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from capacity.base.randomness import kept_random_state
from capacity.networks.asking import Asking, Runs, answer_like, ask
from capacity.networks.calling import outputs_of
from capacity.networks.flat_model import FlatModel
from capacity.networks.purity import close
from capacity.networks.training_steps import Stepping
from capacity.tasks.own_losses import (
    Answer,
    SampleLoss,
    SampleScore,
    StandIn,
    sums_and_counts,
    written,
)
from capacity.tasks.step_loss import StepLoss
from capacity.tasks.task import SampleFunction, Task

_SAMPLES = 32


def asking_of(flat: FlatModel, theta: Tensor, tasks: Sequence[Task]) -> Runs | None:
    """Try the functions of tasks that have losses of their own, and see what they ask of the model.

    Args:
        flat: The network.
        theta: Its parameters (P,).
        tasks: The tasks, their batches laid out alike.

    Returns:
        What stands for the network's outputs; None where no task has losses of its own.

    Raises:
        ValueError: If a function fails or returns something else than values per sample, or tasks
            ask the model differently.
    """
    first = tasks[0]
    steps = [_step_of(task) for task in tasks]
    if steps[0] is not None:
        if any(step is None or step.replay is not steps[0].replay for step in steps):
            raise ValueError("the tasks' losses are different training steps; give all the same")
        return Stepping(steps[0])
    if all(task.losses is None for task in tasks):
        return None
    assert first.losses is not None
    separate = Asking(first.losses, first.scores, separate=True)
    if all(_separate(flat, theta, task, first.losses) for task in tasks):
        return separate
    both = (first.losses, first.scores)
    other = next((t for t in tasks if (t.losses, t.scores) != both), None)
    if other is not None:
        raise ValueError(
            f"tasks {first.name!r} and {other.name!r} have different losses or scores, which do "
            "not get by with one and the same call of the model; give both the same functions, or "
            f"call the model once{written('losses')}"
        )
    return replace(separate, separate=False)


def with_layout(task: Task) -> Task:
    """Tell a training step how its batches lie in their rows.

    Args:
        task: A task.

    Returns:
        The task, whose loss can be called on outputs and rows.
    """
    if not isinstance(task.loss, StepLoss):
        return task
    return replace(task, loss=replace(task.loss, layout=task.layout))


def _step_of(task: Task) -> StepLoss | None:
    step = getattr(task.loss, "function", task.loss)
    return step if isinstance(step, StepLoss) else None


def bound(flat: FlatModel, theta: Tensor, task: Task) -> Task:
    """Bind losses and scores of a task's own to the network's outputs.

    Args:
        flat: The network, as `asking_of` says how it is run.
        theta: Its parameters (P,).
        task: The task.

    Returns:
        The task, with its loss, and its score if it has one, as functions of outputs and targets.
    """
    assert isinstance(flat.asking, Asking)
    assert task.losses is not None
    if isinstance(task.loss, SampleLoss):
        return task
    rows = _few(task, theta)
    outputs = flat.outputs(theta, rows)
    answer = _made(flat, theta, task, task.losses)[1] if flat.asking.separate else None
    made = [
        _bound(flat, task, function, 2 * k, outputs, rows, answer)
        for k, function in enumerate((task.losses, task.scores))
        if function is not None
    ]
    score = SampleScore(made[1]) if len(made) > 1 else None
    return replace(task, loss=made[0], score=score)


def check_outputs_are_known(tasks: Sequence[Task], what: str) -> None:
    """Refuse what is a matter of outputs for losses that are none of them.

    Args:
        tasks: Tasks as the door bound them.
        what: What hangs on the outputs, for the message.

    Raises:
        ValueError: If a task's losses are no function of the outputs of one call of the model.
    """
    for task in tasks:
        if isinstance(task.loss, SampleLoss) and not task.loss.separate:
            raise ValueError(
                f"task {task.name!r}: losses do not get by with what one call of the model returns "
                f"(logits, say), so {what}, a matter of those, cannot be had; forecasts and runs "
                f"with Measure(level='forecast') need no outputs, or write{written('losses')}"
            )


def _bound(
    flat: FlatModel,
    task: Task,
    function: SampleFunction,
    column: int,
    outputs: Tensor,
    rows: Tensor,
    answer: Answer | None,
) -> SampleLoss:
    loss = SampleLoss(
        function, None, flat.table, layout=task.layout, answer=answer, column=column,
        example=torch.zeros_like(outputs[0]),
    )  # fmt: skip
    try:
        loss.parts(outputs.double(), rows)
    except (RuntimeError, TypeError):  # a tensor of single precision inside
        loss = replace(loss, dtype=outputs.dtype)
    counts = loss.parts(outputs, rows)[1]
    return replace(loss, counted=bool((counts != 1).any()), typical=float(counts.double().mean()))


def _few(task: Task, theta: Tensor) -> Tensor:
    return task.train.first(_SAMPLES).x.to(theta.device)


def _separate(flat: FlatModel, theta: Tensor, task: Task, first: SampleFunction) -> bool:
    """Tell whether a task's functions get by with what one call of the model, by `first`, gives."""
    functions = [f for f in (task.losses, task.scores) if f is not None]
    found = [_made(flat, theta, task, function) for function in functions]
    if any(answer is None for _, answer in found):
        return False
    if first is not task.losses:
        found.append(_made(flat, theta, task, first))
    return all(close(found[0][0], outputs) for outputs, _ in found[1:])


def _made(
    flat: FlatModel, theta: Tensor, task: Task, function: SampleFunction
) -> tuple[Tensor, Answer | None]:
    """Run a function, check what it returns, and learn how the model answers it."""
    name = "losses" if function is task.losses else "scores"
    where = f"task {task.name!r}"
    rows = _few(task, theta)
    assert task.layout is not None

    def called() -> tuple[Any, list[Any]]:
        assert task.layout is not None
        with kept_random_state(0), flat.modes.switched(training=False), torch.no_grad():
            tensors = {**flat.unflatten(theta), **flat.copies_of_fixed()}
            return ask(function, flat.layers()[""], tensors, task.layout.unpack(rows.clone()))

    try:
        made, seen = called()
    except Exception as error:
        why = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{where}: {name} fails on a batch of {task.layout.described} "
            f"({type(error).__name__}: {why}); write it for such batches, as{written(name)}"
        ) from error
    sums, counts = sums_and_counts(where, name, made, len(rows))
    if not bool(torch.isfinite(sums).all()) or not bool((counts >= 0).all()):
        raise ValueError(
            f"{where}: {name} gives values that are not finite, or counts below 0, for the network "
            f"as it is; leave such samples out by a count of 0, as with{written(name)}"
        )
    answer = answer_like(seen[0]) if len(seen) == 1 else None
    outputs = outputs_of(seen[0]) if answer is not None else sums
    if answer is None or not _played_again(function, answer, outputs, task, rows, (sums, counts)):
        return sums, None
    return outputs, answer


def _played_again(
    function: SampleFunction,
    answer: Answer,
    outputs: Tensor,
    task: Task,
    rows: Tensor,
    pair: tuple[Tensor, Tensor],
) -> bool:
    """Tell whether a function gives the same with a stand-in for the model."""
    assert task.layout is not None
    if len(outputs) != len(rows):
        return False
    try:
        made = function(StandIn(answer, outputs.clone()), task.layout.unpack(rows.clone()))
        again = sums_and_counts("", "", made, len(rows))
    except Exception:  # it asks for more than the outputs
        return False
    return all(close(one, other) for one, other in zip(pair, again, strict=True))
