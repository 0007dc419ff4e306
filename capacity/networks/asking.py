"""How a function of (model, batch) is called, and what it asks of the model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from capacity.networks.calling import outputs_of
from capacity.tasks.own_losses import Answer, sums_and_counts
from capacity.tasks.task import SampleFunction


class Inside(nn.Module):
    """A function of (model, batch) as a module, whose parameters are the model's.

    Args:
        model: The model.
        function: The function.
    """

    def __init__(self, model: nn.Module, function: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.model = model
        self._function = (function,)  # a module that is a function is no part of this one

    def forward(self, batch: Any) -> Any:
        """Call the function.

        Args:
            batch: The batch.

        Returns:
            What it returns.
        """
        return self._function[0](self.model, batch)


class Runs(Protocol):
    """Something that runs a model in its own way."""

    def outputs(self, model: nn.Module, tensors: Mapping[str, Tensor], batch: Any, /) -> Any:
        """Run a model at some parameters and buffers, by name, and give its outputs (n, ...)."""


@dataclass(frozen=True)
class Asking:
    """What stands for the network's outputs where a task has losses of its own.

    Attributes:
        losses: The function of (model, batch).
        scores: Another, or None.
        separate: Whether the outputs are what the model returned; else what the functions did.
    """

    losses: SampleFunction
    scores: SampleFunction | None
    separate: bool

    def outputs(self, model: nn.Module, tensors: Mapping[str, Tensor], batch: Any) -> Any:
        """Run a model as the functions do.

        Args:
            model: The model.
            tensors: Parameters and buffers by name, in place of its own.
            batch: The batch.

        Returns:
            Outputs of the model (n, ...); or sums and counts of the losses, and of the scores if
            there are any, side by side (n, 2) or (n, 4).
        """
        made, seen = ask(self.losses, model, tensors, batch)
        if self.separate:
            return outputs_of(seen[0])
        both = [(self.losses, made)]
        if self.scores is not None:
            with torch.no_grad():
                both.append((self.scores, ask(self.scores, model, tensors, batch)[0]))
        columns = [
            part
            for (function, values), name in zip(both, ("losses", "scores"), strict=False)
            for part in sums_and_counts("task", name, values, samples_of(batch))
        ]
        return torch.stack([part.to(columns[0].dtype) for part in columns], dim=1)


def samples_of(batch: Any) -> int:
    """Count the samples of a batch.

    Args:
        batch: Tensors (n, ...), nested.

    Returns:
        n.
    """
    leaf = batch
    while not isinstance(leaf, Tensor):
        leaf = next(iter(leaf.values() if isinstance(leaf, Mapping) else leaf))
    return len(leaf)


def ask(
    function: SampleFunction, model: nn.Module, tensors: Mapping[str, Tensor], batch: Any
) -> tuple[Any, list[Any]]:
    """Call a function of (model, batch) at some parameters.

    Args:
        function: The function.
        model: The model.
        tensors: Parameters and buffers by name, in place of its own.
        batch: The batch.

    Returns:
        What the function returned, and what each of its calls of the model did.
    """
    seen: list[Any] = []
    hook = model.register_forward_hook(lambda *call: seen.append(call[-1]))
    try:
        named = {f"model.{name}": tensor for name, tensor in tensors.items()}
        made = functional_call(Inside(model, function), named, (batch,))
    finally:
        hook.remove()
    return made, seen


def answer_like(made: Any) -> Answer | None:
    """Learn from what a model returned to return other outputs in the same way.

    Args:
        made: What it returned.

    Returns:
        A function of outputs; None where they cannot be told in it, or are not (n, ...).
    """
    own = outputs_of(made)
    if not isinstance(own, Tensor) or own.dim() < 2:
        return None
    if made is own:
        return lambda outputs: outputs
    if isinstance(made, Mapping):
        name = next((key for key, value in made.items() if value is own), None)
        kind = type(made) if hasattr(made, "to_tuple") else dict  # a ModelOutput
        return None if name is None else lambda outputs: kind(**{str(name): outputs})
    if isinstance(made, tuple | list):
        place = next(k for k, part in enumerate(made) if part is own)
        before = (None,) * place
        return lambda outputs: (*before, outputs)
    name = next((key for key, value in vars(made).items() if value is own), None)
    if name is None:
        return None

    def answer(outputs: Tensor) -> Any:
        other = copy.copy(made)
        for key, value in vars(made).items():
            if isinstance(value, Tensor):
                setattr(other, key, None)
        setattr(other, str(name), outputs)
        return other

    return answer
