"""Settings that every test shares."""

from __future__ import annotations

import os
import sys

if "torch" not in sys.modules:
    # Networks of a hundred parameters gain nothing from a second thread, and workers, with the
    # processes that they start, share the cores. Libraries read this when they are loaded.
    for library in ("OMP", "MKL", "OPENBLAS"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


@pytest.fixture(autouse=True)
def _leave_no_trace():
    """Give back the default dtype and the global random state, so that no test hangs on another."""
    dtype = torch.get_default_dtype()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(dtype)


@pytest.fixture
def float64():
    """Run a test in double precision."""
    torch.set_default_dtype(torch.float64)
