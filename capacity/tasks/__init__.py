"""What is learned: tasks, and where they come from."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from capacity.tasks.sources import DataSource as DataSource
from capacity.tasks.sources import register as register

if TYPE_CHECKING:
    from capacity.tasks.build import build_tasks as build_tasks
    from capacity.tasks.streams import as_sequence as as_sequence
    from capacity.tasks.streams import from_avalanche as from_avalanche
    from capacity.tasks.task import LossFunction as LossFunction
    from capacity.tasks.task import Split as Split
    from capacity.tasks.task import Task as Task
    from capacity.tasks.task import TaskSequence as TaskSequence
    from capacity.tasks.tensors import as_task as as_task
    from capacity.tasks.tensors import from_tensors as from_tensors
    from capacity.tasks.tensors import hold_out as hold_out

_HOME = {
    "build_tasks": "build",
    "as_sequence": "streams",
    "from_avalanche": "streams",
    "LossFunction": "task",
    "Split": "task",
    "Task": "task",
    "TaskSequence": "task",
    "as_task": "tensors",
    "from_tensors": "tensors",
    "hold_out": "tensors",
}


def __getattr__(name: str) -> Any:
    # A recipe is checked against the names of sources, which needs no torch.
    if name not in _HOME:
        raise AttributeError(f"module 'capacity.tasks' has no attribute {name!r}")
    return getattr(import_module(f"capacity.tasks.{_HOME[name]}"), name)
