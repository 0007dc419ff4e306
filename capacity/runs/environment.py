"""What may differ between two machines that run the same recipe."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from importlib.metadata import version
from typing import Any

import torch

from capacity.base.distribution import VERSION

_PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "scikit-learn",
    "avalanche-lib",
    "altair",
)


def describe(device: torch.device) -> dict[str, Any]:
    """Describe versions and hardware.

    Args:
        device: Where the run computes.

    Returns:
        The content of env.json.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {
        "packages": {"capacity": VERSION} | {name: version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "device_name": name,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "command": command_line(),
    }


def command_line() -> str:
    """Write down the command of this process.

    Returns:
        The command as a shell would take it.
    """
    program = os.path.basename(sys.argv[0] or "python")
    # `python -m capacity.cli` is the command that is installed as `capacity`.
    return shlex.join(["capacity" if program == "cli.py" else program, *sys.argv[1:]])


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
