"""Name the processor that a table was measured on, for its head and for its file."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch


def processor() -> str:
    """Name the processor, what torch uses of it, and the library of its matrix products.

    Returns:
        A few words.
    """
    return f"{_model()} ({torch.backends.cpu.get_cpu_capability()}), {_blas()}"


def in_file_name() -> str:
    """Name the processor in the name of a file, so that two kinds stand side by side.

    Returns:
        Lower case, words joined by hyphens.
    """
    words = re.findall(
        r"[a-z0-9]+", f"{_model()} {torch.backends.cpu.get_cpu_capability()}".lower()
    )
    return "-".join(words)


def _model() -> str:
    info = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.M) if info.exists() else None
    return named[1].strip() if named else platform.processor() or platform.machine()


def _blas() -> str:
    built = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    return f"BLAS {built[1]}" if built else "BLAS unknown"
