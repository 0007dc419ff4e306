"""What is learned: tasks, and where they come from."""

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
