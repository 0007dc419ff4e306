"""The public names: few, documented, quick to import."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from importlib import import_module

import pytest

import capacity

NAMES = [
    "BatchStep", "Belief", "Comparison", "Curve", "EpistemicSpeedLimit", "Estimate", "Forecast",
    "GradientStep",
    "InitialLaw",
    "Measure", "Model", "Recipe", "Rows", "Run", "RunTables", "SeedRuns", "Split", "Status",
    "Streamed", "Sweep", "Task",
    "TaskSequence", "TaskStream", "Training", "TransportTracker", "closed_forms", "compare",
    "compatible_capacity",
    "curve",
    "epistemic_speed_limit", "export", "forecast", "history", "hold_out", "load_runs", "open_run",
    "plots",
    "query", "resume", "run", "run_seeds", "sweep", "task_dimension", "verdict",
]  # fmt: skip


def test_public_names_are_these():
    assert sorted(capacity.__all__) == NAMES
    for name in NAMES:
        assert getattr(capacity, name).__doc__
        assert name in dir(capacity)


@pytest.mark.parametrize("name", capacity._MODULES)
def test_a_public_module_is_imported_by_its_public_name(name):
    assert import_module(f"capacity.{name}") is getattr(capacity, name)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_says_how_it_is_used(name):
    # A dataclass without a docstring is given its signature: that has no such part.
    written = getattr(capacity, name).__doc__
    parts = re.findall(r"^ *(Args|Attributes|Example):$", written, flags=re.MULTILINE)
    assert parts, written


@pytest.mark.parametrize("name", ["Recipe", "TaskStream", "Model", "Training", "Measure"])
def test_every_field_of_a_recipe_is_described(name):
    fields = getattr(capacity, name).model_fields
    assert fields
    assert [field for field, info in fields.items() if not info.description] == []


@pytest.mark.parametrize("name", capacity.plots.FIGURES)
def test_every_figure_says_how_it_is_used(name):
    assert "    Args:\n" in getattr(capacity.plots, name).__doc__


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'forcast'"):
        _ = capacity.forcast


@pytest.mark.slow
def test_importing_is_quick_and_the_function_survives_its_modules():
    code = (
        "import sys, capacity; assert 'torch' not in sys.modules; "
        "import capacity.forecasting.scores; assert callable(capacity.forecast)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        "capacity.criterion.front_door",
        "capacity.recipe.config",
        "capacity.records.estimate",
        "capacity.plots",
        "capacity.forecasting.forecast",
        "capacity.jacobian.tracker",
        "capacity.runs.run",
        "capacity.results.query",
        "capacity.tasks.streamed",
        "capacity.tasks.task",
        "capacity.tasks.tensors",
    ],
)
def test_docstring_examples(module):
    result = doctest.testmod(import_module(module))
    assert result.attempted > 0
    assert result.failed == 0
