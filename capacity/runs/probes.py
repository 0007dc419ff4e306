"""The fingerprint of tasks and networks that only Python has, taken by evaluating them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from capacity.networks.door import fit
from capacity.networks.flat_model import FlatModel
from capacity.results.fingerprint import to_text
from capacity.tasks.streamed import Rows, read_rows
from capacity.tasks.task import Task, TaskSequence

_SAMPLES = 8
_PROJECTIONS = 3
_STREAMED = 64
"""Samples of streamed data that stand for all of them in the fingerprint."""
_AWAY = 0.5
_SEED = 20_260_101


def fingerprint_of(tasks: TaskSequence, new_model: Callable[[int], nn.Module]) -> str:
    """Take the fingerprint of what a run would learn, and of the network that would learn it.

    Outputs, losses and gradients are taken at the initial parameters and away from them: a last
    layer that starts at zero hides the layers before it.

    Args:
        tasks: The tasks.
        new_model: Builds a network from a seed.

    Returns:
        The fingerprint (see `fingerprint`). A network that does not fit the tasks, and a loss that
        cannot be taken, are ValueErrors.
    """
    cpu = torch.device("cpu")
    module, on_cpu = new_model(0), tasks.to(cpu)
    model = FlatModel(module).to(cpu)
    start = model.initial().to(cpu)
    on_cpu = replace(on_cpu, tasks=fit(model, start, on_cpu.tasks, twice=False, two_modes=True))
    source = torch.Generator().manual_seed(_SEED)
    size = start.abs().clamp_min(0.1 * float(start.square().mean().sqrt()) + 1e-3)
    noise = torch.randn(start.shape, generator=source, dtype=torch.float64).to(start.dtype)
    outputs: list[Tensor] = []
    losses: list[Tensor] = []
    slopes: list[Tensor] = []
    for point in (start, start + _AWAY * size * noise):
        theta = point.clone().requires_grad_()
        weighed = torch.zeros((), dtype=torch.float64)
        for task in on_cpu.tasks:
            made, loss = _evaluated(model, theta, task)
            outputs.append(made.detach().double().reshape(-1))
            losses.append(loss.detach().double().reshape(1))
            if task.scores is not None:
                few = task.train.first(_SAMPLES)
                losses.append(task.accuracy_of(made, few.y).double().reshape(1))
            weighed = weighed + loss.double() * _signs(1, source)[0]
        (slope,) = torch.autograd.grad(weighed, theta, allow_unused=True)
        slopes.append((torch.zeros_like(point) if slope is None else slope).double())
    outputs += _trained(model, start, on_cpu)
    numbers = {
        name: _projected(torch.cat(values), source)
        for name, values in (("forward", outputs), ("loss", losses), ("slope", slopes))
    }
    # Two functions of the same values are the same loss, whatever they are called.
    named = [task.loss if isinstance(task.loss, str) else "" for task in tasks.tasks]
    digests = {
        "data": _digest_of_data(tasks),
        "network": _digest_of(module),
        "named": hashlib.sha256(" ".join(named).encode()).hexdigest()[:8],
    }
    return to_text(digests, numbers)


def _evaluated(model: FlatModel, theta: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """Run a few samples through the network and the loss; both may write into their inputs."""
    few = task.train.first(_SAMPLES)
    outputs = model.outputs(theta, read_rows(few.x).clone())
    kept = outputs.detach().clone()
    return kept, task.loss_of(outputs, few.y.clone())


def _trained(model: FlatModel, theta: Tensor, tasks: TaskSequence) -> list[Tensor]:
    # Evaluation sees neither the rate of a dropout nor the momentum of a batch norm: the outputs
    # while the network trains, and its statistics afterwards.
    if not model.two_modes:
        return []
    own = model.apart()
    with torch.no_grad(), own.training(_SEED):
        made = [
            own.outputs(theta, read_rows(task.train.first(_SAMPLES).x).clone())
            for task in tasks.tasks
        ]
    return [values.double().reshape(-1) for values in (*made, *own.statistics().values())]


def _projected(values: Tensor, source: torch.Generator) -> list[float]:
    """Sum up many numbers in a few, of which some change if any of them does."""
    found = [float(values.norm())]
    for _ in range(_PROJECTIONS):
        found.append(float(values @ _signs(len(values), source)))
    return found


def _signs(count: int, source: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(2, (count,), generator=source).double() - 1.0


def _digest_of_data(tasks: TaskSequence) -> str:
    digest = hashlib.sha256()
    for task in tasks.tasks:
        digest.update(f"{task.name} {task.outputs}".encode())
        for tensor in (task.train.x, task.train.y, task.test.x, task.test.y):
            if isinstance(tensor, Rows):  # a few of them stand for all
                digest.update(str(tuple(tensor.shape)).encode())
                few = torch.linspace(0, len(tensor) - 1, _STREAMED, dtype=torch.float64)
                for row in few.round().long():
                    _update(digest, "", tensor.chosen(row[None]).read())
                continue
            _update(digest, "", tensor)
    return digest.hexdigest()[:16]


def _digest_of(module: nn.Module) -> str:
    digest = hashlib.sha256()
    kept = module.state_dict()
    for name, tensor in {**kept, **dict(module.named_buffers())}.items():  # some are not kept
        _update(digest, name, tensor)
    trained = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    digest.update(" ".join(trained).encode())
    return digest.hexdigest()[:16]


def _update(digest: hashlib._Hash, name: str, tensor: Tensor) -> None:
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    plain = tensor.detach().cpu().contiguous()
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
