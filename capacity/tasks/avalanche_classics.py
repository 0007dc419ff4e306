"""Avalanche's classic benchmarks, read or downloaded.

A data set that lies in `root` is read from there; one that does not is downloaded there by
torchvision. Without it and without a network there is one error that says what to do.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from capacity.recipe.config import TaskStream
from capacity.tasks.streams import from_avalanche
from capacity.tasks.task import TaskSequence


def classic_tasks(
    stream: TaskStream, title: str, layout: str, constructor: Callable[[Any], Callable[..., Any]]
) -> TaskSequence:
    """Build tasks from one of Avalanche's classic benchmarks.

    Inputs are normalised images (1, 28, 28) or (3, 32, 32), as Avalanche's evaluation transform
    gives them.

    Args:
        stream: A recipe's `tasks` section.
        title: Name of the data for people.
        layout: The files below the root.
        constructor: Takes Avalanche's module of classics, and gives what takes `n_experiences`,
            `dataset_root` and `return_task_id`.

    Returns:
        The sequence; task labels count up where `heads` is set.

    Raises:
        ValueError: If the data can neither be read nor downloaded.
    """
    with warnings.catch_warnings():
        # Avalanche's imports warn about optional solvers that are not installed.
        warnings.simplefilter("ignore")
        from avalanche.benchmarks import classic
        from avalanche.benchmarks.datasets import default_dataset_location

    root = Path(stream.root or default_dataset_location(stream.dataset)).expanduser()
    build = constructor(classic)
    with _no_traces(root):
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                # NumPy warns about the age of the CIFAR pickles.
                warnings.simplefilter("ignore")
                benchmark = build(
                    stream.experiences, dataset_root=root, return_task_id=stream.heads
                )
        except Exception as error:
            # The readers raise anything on a damaged file, the downloader anything on a bad line.
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = lines[-1] if lines else type(error).__name__
            benchmark = None
    if benchmark is None:
        raise ValueError(
            f"tasks.dataset = {stream.dataset!r}: {title} could neither be read from {root} nor "
            f"downloaded ({reason}); point to a copy with tasks.root=DIR, where DIR holds {layout}"
        )
    return from_avalanche(benchmark, name=stream.dataset, samples=stream.samples, seed=stream.seed)


def ascending(classes: int) -> dict[str, Any]:
    """Say that the classes of a split come in ascending order.

    Args:
        classes: How many there are.

    Returns:
        Options of Avalanche's split benchmarks.
    """
    return {"fixed_class_order": list(range(classes)), "shuffle": False}


@contextlib.contextmanager
def _no_traces(root: Path) -> Iterator[None]:
    # Remove the empty folders that a failed download leaves behind, but none that was there.
    folders = [root / "MNIST" / "raw", root / "MNIST", root, *root.parents]
    made = [folder for folder in folders if not folder.exists()]
    yield
    for folder in made:
        # A folder with something in it is wanted; one that is not there is fine.
        with contextlib.suppress(OSError):
            folder.rmdir()
