"""capacity: how much will a network forget, why, and what would it cost to avoid that?

The names below are the public interface; everything else may move. They are imported when first
used, so that `import capacity` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from capacity.forecasting.forecast import Forecast as Forecast
    from capacity.forecasting.forecast import forecast as forecast
    from capacity.runs.run import Run as Run
    from capacity.runs.run import open_run as open_run
    from capacity.runs.run import run as run
    from capacity.tasks.task import Split as Split
    from capacity.tasks.task import Task as Task
    from capacity.tasks.task import TaskSequence as TaskSequence
    from capacity.transport.tracker import TransportTracker as TransportTracker

_HOME = {
    # do
    "run": "capacity.runs.run",
    "open_run": "capacity.runs.run",
    "forecast": "capacity.forecasting.forecast",
    "compatible_capacity": "capacity.compatibility.front_door",
    "task_dimension": "capacity.compatibility.front_door",
    "verdict": "capacity.compatibility.front_door",
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
    # read
    "Run": "capacity.runs.run",
    "Forecast": "capacity.forecasting.forecast",
    "Estimate": "capacity.estimate",
    "Status": "capacity.estimate",
}

__all__ = list(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'capacity' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
