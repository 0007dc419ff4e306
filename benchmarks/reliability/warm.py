"""Imported by the server of `victims`: one small run, so that its children find everything warm."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from reliability.victims import recipe_of, without_reports

from capacity.runs.directory import RunDirectory
from capacity.runs.run import run

torch.set_num_threads(1)
_compact = RunDirectory.compact_metrics
# DuckDB starts threads, which children do not inherit and would wait for.
RunDirectory.compact_metrics = lambda _: None  # type: ignore[method-assign]
without_reports()
with warnings.catch_warnings(), tempfile.TemporaryDirectory() as _folder:
    warnings.simplefilter("ignore")
    run(recipe_of("verdicts"), out=Path(_folder) / "run", device="cpu", quiet=True)
RunDirectory.compact_metrics = _compact  # type: ignore[method-assign]
