"""capacity: how much will a network forget, why, and what would it cost to avoid that?

The names below are the public interface; everything else may move. They are imported when first
used, so that `import capacity` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capacity import plots as plots
    from capacity.comparison.compare import Comparison as Comparison
    from capacity.comparison.compare import compare as compare
    from capacity.compatibility.front_door import compatible_capacity as compatible_capacity
    from capacity.compatibility.front_door import task_dimension as task_dimension
    from capacity.compatibility.front_door import verdict as verdict
    from capacity.config import Measure as Measure
    from capacity.config import Model as Model
    from capacity.config import Recipe as Recipe
    from capacity.config import TaskStream as TaskStream
    from capacity.config import Training as Training
    from capacity.dynamics.own_steps import BatchStep as BatchStep
    from capacity.dynamics.own_steps import GradientStep as GradientStep
    from capacity.estimate import Estimate as Estimate
    from capacity.estimate import Status as Status
    from capacity.exporters.export import export as export
    from capacity.forecasting.forecast import forecast as forecast
    from capacity.forecasting.record import Forecast as Forecast
    from capacity.runs.query import RunTables as RunTables
    from capacity.runs.query import load_runs as load_runs
    from capacity.runs.query import query as query
    from capacity.runs.rows import Rows as Rows
    from capacity.runs.run import Run as Run
    from capacity.runs.run import open_run as open_run
    from capacity.runs.run import resume as resume
    from capacity.runs.run import run as run
    from capacity.runs.seeds import SeedRuns as SeedRuns
    from capacity.runs.seeds import run_seeds as run_seeds
    from capacity.tasks.task import Split as Split
    from capacity.tasks.task import Task as Task
    from capacity.tasks.task import TaskSequence as TaskSequence
    from capacity.tasks.tensors import hold_out as hold_out
    from capacity.thermo.front_door import EpistemicSpeedLimit as EpistemicSpeedLimit
    from capacity.thermo.front_door import epistemic_speed_limit as epistemic_speed_limit
    from capacity.transport.tracker import TransportTracker as TransportTracker

_HOME = {
    # do
    "run": "capacity.runs.run",
    "resume": "capacity.runs.run",
    "open_run": "capacity.runs.run",
    "run_seeds": "capacity.runs.seeds",
    "compare": "capacity.comparison.compare",
    "load_runs": "capacity.runs.query",
    "query": "capacity.runs.query",
    "export": "capacity.exporters.export",
    "forecast": "capacity.forecasting.forecast",
    "compatible_capacity": "capacity.compatibility.front_door",
    "task_dimension": "capacity.compatibility.front_door",
    "verdict": "capacity.compatibility.front_door",
    "epistemic_speed_limit": "capacity.thermo.front_door",
    "TransportTracker": "capacity.transport.tracker",
    "GradientStep": "capacity.dynamics.own_steps",
    "BatchStep": "capacity.dynamics.own_steps",
    # say
    "Recipe": "capacity.config",
    "TaskStream": "capacity.config",
    "Model": "capacity.config",
    "Training": "capacity.config",
    "Measure": "capacity.config",
    "Split": "capacity.tasks.task",
    "Task": "capacity.tasks.task",
    "TaskSequence": "capacity.tasks.task",
    "hold_out": "capacity.tasks.tensors",
    # read
    "Run": "capacity.runs.run",
    "SeedRuns": "capacity.runs.seeds",
    "Comparison": "capacity.comparison.compare",
    "RunTables": "capacity.runs.query",
    "Rows": "capacity.runs.rows",
    "Forecast": "capacity.forecasting.record",
    "EpistemicSpeedLimit": "capacity.thermo.front_door",
    "Estimate": "capacity.estimate",
    "Status": "capacity.estimate",
}

_MODULES = {"plots": "capacity.plots"}

__all__ = [*_HOME, *_MODULES]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name not in _HOME:
        raise AttributeError(f"module 'capacity' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
