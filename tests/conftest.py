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

from capacity.products.hessian_products import HessianProducts

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


_LONGEST = (
    "runs/test_resume.py",
    "runs/test_seeds.py",
    "runs/test_sweep.py",
    "runs/test_run.py",
    "jacobian/test_distributed.py",
    "jacobian/test_spectrum.py",
    "tasks/test_text_topics.py",
    "bad_inputs/test_processes.py",
    "criterion/test_directional_form.py",
    "report/test_report_chromium.py",
    "report/test_report_contract.py",
    "runs/test_cluster.py",
    "exporters/test_export.py",
    "test_cli.py",
)
"""Files of half a minute and more: begun first, none is what the last worker is left with."""


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(_LONGEST))


@pytest.fixture(autouse=True)
def _leave_no_trace():
    """Give back the default dtype and the global random state, so that no test hangs on another."""
    dtype = torch.get_default_dtype()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(dtype)


@pytest.fixture(autouse=True)
def _no_page_so_far(request, monkeypatch):
    """Leave out the page of a run that goes on, which takes longer than a small run does."""
    if "page_so_far" not in request.keywords:
        monkeypatch.setattr(
            "capacity.runs.report_door.ReportSoFar.__call__", lambda self, **_: False
        )


@pytest.fixture
def float64():
    """Run a test in double precision."""
    torch.set_default_dtype(torch.float64)


def _quick_runs():
    """Leave out of runs what takes longer than small ones do.

    Their page, which `report()` writes when asked, and the graph of Hessian products, whose tracing
    costs as much as a hundred of them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("capacity.runs.run._reported", lambda made, progress: True)
        patch.setattr(HessianProducts, "_trace", lambda self, *inputs: self._untraced())
        yield


quick_run = pytest.fixture(_quick_runs, name="quick_run")
quick_runs = pytest.fixture(_quick_runs, scope="module", name="quick_runs")
