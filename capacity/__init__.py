"""capacity: how much will a network forget, why, and what would it cost to avoid that?

The names below are the public interface; everything else may move. They are imported when first
used, so that `import capacity` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from capacity.base.distribution import VERSION

if TYPE_CHECKING:
    from capacity import closed_forms as closed_forms
    from capacity import plots as plots
    from capacity.comparison.compare import Comparison as Comparison
    from capacity.comparison.compare import compare as compare
    from capacity.criterion.front_door import compatible_capacity as compatible_capacity
    from capacity.criterion.front_door import task_dimension as task_dimension
    from capacity.criterion.front_door import verdict as verdict
    from capacity.exporters.export import export as export
    from capacity.forecasting.curve import Curve as Curve
    from capacity.forecasting.curve import curve as curve
    from capacity.forecasting.forecast import forecast as forecast
    from capacity.forecasting.record import Forecast as Forecast
    from capacity.jacobian.tracker import TransportTracker as TransportTracker
    from capacity.networks.belief import Belief as Belief
    from capacity.optimizers.own_steps import BatchStep as BatchStep
    from capacity.optimizers.own_steps import GradientStep as GradientStep
    from capacity.recipe.config import Measure as Measure
    from capacity.recipe.config import Model as Model
    from capacity.recipe.config import Recipe as Recipe
    from capacity.recipe.config import TaskStream as TaskStream
    from capacity.recipe.config import Training as Training
    from capacity.records.estimate import Estimate as Estimate
    from capacity.records.estimate import Status as Status
    from capacity.records.rows import Rows as Rows
    from capacity.results.history import history as history
    from capacity.results.query import RunTables as RunTables
    from capacity.results.query import load_runs as load_runs
    from capacity.results.query import query as query
    from capacity.runs.run import Run as Run
    from capacity.runs.run import open_run as open_run
    from capacity.runs.run import resume as resume
    from capacity.runs.run import run as run
    from capacity.runs.seed_runs import SeedRuns as SeedRuns
    from capacity.runs.seed_runs import run_seeds as run_seeds
    from capacity.runs.sweep import Sweep as Sweep
    from capacity.runs.sweep import sweep as sweep
    from capacity.tasks.streamed import Streamed as Streamed
    from capacity.tasks.task import Split as Split
    from capacity.tasks.task import Task as Task
    from capacity.tasks.task import TaskSequence as TaskSequence
    from capacity.tasks.tensors import hold_out as hold_out
    from capacity.thermo.epistemic_speed_limit import EpistemicSpeedLimit as EpistemicSpeedLimit
    from capacity.thermo.epistemic_speed_limit import epistemic_speed_limit as epistemic_speed_limit
    from capacity.thermo.initial_law import InitialLaw as InitialLaw

_HOME = {
    # do
    "run": "capacity.runs.run",
    "resume": "capacity.runs.run",
    "open_run": "capacity.runs.run",
    "run_seeds": "capacity.runs.seed_runs",
    "sweep": "capacity.runs.sweep",
    "compare": "capacity.comparison.compare",
    "load_runs": "capacity.results.query",
    "query": "capacity.results.query",
    "history": "capacity.results.history",
    "export": "capacity.exporters.export",
    "forecast": "capacity.forecasting.forecast",
    "curve": "capacity.forecasting.curve",
    "compatible_capacity": "capacity.criterion.front_door",
    "task_dimension": "capacity.criterion.front_door",
    "verdict": "capacity.criterion.front_door",
    "epistemic_speed_limit": "capacity.thermo.epistemic_speed_limit",
    "TransportTracker": "capacity.jacobian.tracker",
    "GradientStep": "capacity.optimizers.own_steps",
    "BatchStep": "capacity.optimizers.own_steps",
    "Belief": "capacity.networks.belief",
    "InitialLaw": "capacity.thermo.initial_law",
    # say
    "Recipe": "capacity.recipe.config",
    "TaskStream": "capacity.recipe.config",
    "Model": "capacity.recipe.config",
    "Training": "capacity.recipe.config",
    "Measure": "capacity.recipe.config",
    "Split": "capacity.tasks.task",
    "Streamed": "capacity.tasks.streamed",
    "Task": "capacity.tasks.task",
    "TaskSequence": "capacity.tasks.task",
    "hold_out": "capacity.tasks.tensors",
    # read
    "Run": "capacity.runs.run",
    "SeedRuns": "capacity.runs.seed_runs",
    "Sweep": "capacity.runs.sweep",
    "Comparison": "capacity.comparison.compare",
    "RunTables": "capacity.results.query",
    "Rows": "capacity.records.rows",
    "Forecast": "capacity.forecasting.record",
    "Curve": "capacity.forecasting.curve",
    "EpistemicSpeedLimit": "capacity.thermo.epistemic_speed_limit",
    "Estimate": "capacity.records.estimate",
    "Status": "capacity.records.estimate",
}

_MODULES = {"closed_forms": "capacity.closed_forms", "plots": "capacity.plots"}

__all__ = [*_HOME, *_MODULES]
__version__ = VERSION


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
