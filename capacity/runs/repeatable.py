"""What must be the same for a run to go on bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from capacity.networks.flat_model import FlatModel
from capacity.runs.journal import BEGIN, Journal


def check_same(journal: Journal, device: torch.device) -> None:
    """Refuse to go on where arithmetic rounds otherwise than where the run began.

    Args:
        journal: The run's records.
        device: Where it is to go on.

    Raises:
        ValueError: If torch, the device or its vector instructions are others.
    """
    before, now = journal.record(BEGIN), _arithmetic(device)
    for name, value in now.items():
        if before is not None and name != "threads" and before.get(name) != value:
            raise ValueError(
                f"the run began with {name} = {before.get(name)!r}, and here it is {value!r}: its "
                "numbers would not go on bit for bit; resume it where it began, or begin anew in "
                "another directory"
            )


_SMALL = 1 << 17
"""Parameters below which threads wait for each other longer than they compute."""


def threads_for(model: FlatModel, device: torch.device) -> int:
    """Choose the threads of a run that asks for none.

    Args:
        model: The network.
        device: Where it computes.

    Returns:
        One for a small network on the CPU, else as many as torch takes.
    """
    small = device.type == "cpu" and model.size < _SMALL
    return 1 if small else torch.get_num_threads()


@contextmanager
def threads_of(journal: Journal, device: torch.device, wanted: int) -> Iterator[None]:
    """Compute with as many threads as the run began with: sums are split among them.

    Args:
        journal: The run's records; a new run's begin here.
        device: Where it computes.
        wanted: Threads of a run that begins here.

    Yields:
        Nothing.
    """
    before = journal.record(BEGIN)
    if before is None:
        before = journal.put(BEGIN, _arithmetic(device) | {"threads": wanted}).record
    threads = torch.get_num_threads()
    if threads == before["threads"]:
        yield
        return
    torch.set_num_threads(before["threads"])
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _arithmetic(device: torch.device) -> dict[str, Any]:
    on_gpu = device.type == "cuda"
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
