"""Where a recipe's tasks come from: sources of data by name, one file each.

A source of one's own is a `DataSource` in a file like `digits.py`, and one line:
`capacity.tasks.register("mine", SOURCE)`, or an entry point `mine = "package:SOURCE"` in the group
`capacity.tasks`. A recipe then says `dataset: mine`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from capacity.base.registry import Registry
from capacity.recipe.config import TaskStream
from capacity.tasks.scenarios import class_groups

if TYPE_CHECKING:
    from capacity.tasks.task import TaskSequence

_OPTIONS = ("heads", "samples", "test_fraction", "max_angle", "root", "tokenizer")
"""Fields of a recipe's tasks that not every source takes."""

REGISTRY = Registry(
    "tasks.dataset",
    "capacity.tasks",
    {
        "digits": "capacity.tasks.digits:SOURCE",
        "mnist": "capacity.tasks.mnist:SOURCE",
        "cifar10": "capacity.tasks.cifar:CIFAR10",
        "cifar100": "capacity.tasks.cifar:CIFAR100",
        "diffusion-digits": "capacity.tasks.diffusion:SOURCE",
        "text-topics": "capacity.tasks.text_topics:SOURCE",
    },
)

register = REGISTRY.register


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """A source of data.

    Attributes:
        scenarios: Which of split, permuted, rotated and mixed it has.
        classes: Number of its classes, which a split deals out to the tasks.
        takes: Which of heads, samples and test_fraction it takes from the recipe. Another one that
            is not at its default is refused, and so are max_angle without rotations, and root
            without downloads.
        downloads: Whether its data are downloaded to `tasks.root`.
        mixed: Names of the tasks of its scenario mixed, as many as it has at most.
        build: Builds the tasks; the same section gives the same ones.
    """

    scenarios: tuple[str, ...]
    classes: int
    takes: tuple[str, ...]
    downloads: bool
    build: Callable[[TaskStream], TaskSequence]
    mixed: tuple[str, ...] = ()

    def check(self, stream: TaskStream) -> None:
        """Refuse what the source does not have, before any data is looked for.

        Args:
            stream: A recipe's `tasks` section.

        Raises:
            ValueError: If the scenario does not exist, its classes do not divide, or an option is
                not taken.
        """
        if stream.scenario not in self.scenarios:
            raise ValueError(
                f"tasks.scenario = {stream.scenario!r} does not exist for {stream.dataset}; "
                f"accepted: {', '.join(self.scenarios)}"
            )
        taken = [*self.takes, *(["max_angle"] if "rotated" in self.scenarios else [])]
        taken += ["root"] if self.downloads else []
        for name in _OPTIONS:
            value = getattr(stream, name)
            if name not in taken and value != TaskStream.model_fields[name].default:
                raise ValueError(
                    f"tasks.{name} = {value!r} is no option of tasks.dataset = {stream.dataset!r}; "
                    f"accepted: {', '.join(taken)}"
                )
        if stream.scenario == "split":
            class_groups(stream, self.classes)
        if stream.scenario == "mixed" and stream.experiences > len(self.mixed):
            raise ValueError(
                f"tasks.experiences = {stream.experiences} is more than the {len(self.mixed)} "
                f"tasks of tasks.scenario = 'mixed'; accepted: 1 to {len(self.mixed)}"
            )
