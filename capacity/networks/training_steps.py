"""Somebody's training step, seen as a network and a loss of that network's outputs.

A step (`training_step(batch, i)` of a LightningModule) runs a network and returns a loss. Which of
its parts is the network is seen by running it: the last part with trainable parameters that it
calls. The loss is then the step with that part's outputs already there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from capacity.base.randomness import kept_random_state
from capacity.networks.asking import Inside, answer_like
from capacity.networks.calling import outputs_of
from capacity.networks.purity import close
from capacity.tasks.step_loss import StepLoss

_AWAY = 0.1
_WAY_OUT = (
    "give the data as tasks with a loss per sample: "
    "capacity.Task(name=..., train=..., losses=lambda model, batch: ...)"
)


class _EnoughError(BaseException):
    """The network has returned what was asked for."""

    def __init__(self, made: Any) -> None:
        super().__init__()
        self.made = made


@dataclass(frozen=True)
class Stepping:
    """What stands for the network's outputs where a task's loss is a training step.

    Attributes:
        loss: The step.
    """

    loss: StepLoss

    def outputs(self, model: nn.Module, tensors: Mapping[str, Tensor], batch: Any) -> Any:
        """Run a model as the step does, as far as its network's outputs.

        Args:
            model: The model.
            tensors: Parameters and buffers by name, in place of its own.
            batch: The batch.

        Returns:
            The outputs (n, ...).
        """
        part = model.get_submodule(self.loss.network)

        def stop(*call: Any) -> None:
            raise _EnoughError(call[-1])

        hook = part.register_forward_hook(stop)
        named = {f"model.{name}": tensor for name, tensor in tensors.items()}
        try:
            return functional_call(Inside(model, self.loss.step), named, (batch,))
        except _EnoughError as enough:
            return outputs_of(enough.made)
        finally:
            hook.remove()


def step_loss(model: nn.Module, batch: Any, step: Callable[[Any, Any], Any], name: str) -> StepLoss:
    """Take a training step apart.

    Args:
        model: The model, a copy that is left to the step.
        batch: A batch.
        step: Maps model and batch to the loss, a scalar or a dictionary with one under `loss`.
        name: Name of the step, for messages.

    Returns:
        The step as a loss of its network's outputs.

    Raises:
        ValueError: If its loss is none of those alone, or it has none.
    """
    model.eval()
    with kept_random_state(0), torch.no_grad():
        network, made, value = _called(model, batch, step, name)
        answer = answer_like(made)
        if answer is None:
            raise ValueError(
                f"{name} calls {network or 'the model'!r}, in whose result the outputs (n, ...) "
                f"cannot be told; {_WAY_OUT}"
            )

        def replay(outputs: Tensor, batch: Any) -> Tensor:
            with _answering(model.get_submodule(network), answer(outputs)):
                return _loss_of(step(model, batch), name)

        found = StepLoss(name, step, network, replay)
        at = dict(model.named_parameters())
        away = {n: p + _AWAY * torch.randn_like(p) * p.abs().mean() for n, p in at.items()}
        there = _loss_of(functional_call(Inside(model, step), _under(away), (batch,)), name)
        moved = Stepping(found).outputs(model, {**away, **dict(model.named_buffers())}, batch)
        for outputs, known in ((outputs_of(made), value), (moved, there)):
            if not close(replay(outputs.clone(), batch), known):
                raise ValueError(
                    f"the loss of {name} is no function of what {network or 'the model'!r} returns "
                    f"and the batch (a penalty on weights, a second network or call?); {_WAY_OUT}"
                )
    return found


def _under(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"model.{name}": tensor for name, tensor in tensors.items()}


def _called(
    model: nn.Module, batch: Any, step: Callable[[Any, Any], Any], name: str
) -> tuple[str, Any, Tensor]:
    """Find the last part that a step calls and that can be trained, what it gave, and the loss."""
    depth, calls = 0, list[tuple[str, Any]]()

    def enter(*_: Any) -> None:
        nonlocal depth
        depth += 1

    def leave(part: str) -> Callable[..., None]:
        def hook(*call: Any) -> None:
            nonlocal depth
            depth -= 1
            if depth == 0 and any(p.requires_grad for p in call[0].parameters()):
                calls.append((part, call[-1]))

        return hook

    hooks = [
        hook
        for part, module in model.named_modules()
        for hook in (
            module.register_forward_pre_hook(enter),
            module.register_forward_hook(leave(part)),
        )
    ]
    try:
        value = _loss_of(step(model, batch), name)
    finally:
        for hook in hooks:
            hook.remove()
    if not calls:
        raise ValueError(f"{name} calls no part of the model that can be trained; {_WAY_OUT}")
    return (*calls[-1], value)


def _loss_of(made: Any, name: str) -> Tensor:
    value = made.get("loss") if isinstance(made, Mapping) else made
    if not isinstance(value, Tensor) or value.dim() > 0:
        raise ValueError(
            f"{name} returns {type(made).__name__} and no loss; return a scalar tensor, or a "
            "dictionary with one under 'loss'"
        )
    return value


@contextmanager
def _answering(part: nn.Module, answer: Any) -> Iterator[None]:
    """Let a part of a model return something else for a while."""
    part.forward = lambda *_, **__: answer
    try:
        yield
    finally:
        del part.forward
