"""MNIST and CIFAR as Avalanche's classic benchmarks.

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
from capacity.tasks.digits import angles, class_groups
from capacity.tasks.streams import from_avalanche
from capacity.tasks.task import TaskSequence

LAYOUTS = {
    "mnist": ("MNIST", "MNIST/raw/train-images-idx3-ubyte and its three companions", 10),
    "cifar10": ("CIFAR-10", "cifar-10-batches-py/data_batch_1 and its companions", 10),
    "cifar100": ("CIFAR-100", "cifar-100-python/train, test and meta", 100),
}
"""Per data set: its name for people, the files below the root, and the number of classes."""


def classic_tasks(stream: TaskStream) -> TaskSequence:
    """Build tasks from MNIST, CIFAR-10 or CIFAR-100.

    Inputs are normalised images (1, 28, 28) or (3, 32, 32), as Avalanche's evaluation transform
    gives them.

    Args:
        stream: A recipe's `tasks` section.

    Returns:
        The sequence.
    """
    return from_avalanche(
        classic_benchmark(stream), name=stream.dataset, samples=stream.samples, seed=stream.seed
    )


def classic_benchmark(stream: TaskStream) -> Any:
    """Build Avalanche's classic benchmark for a recipe.

    One of SplitMNIST, PermutedMNIST, RotatedMNIST, SplitCIFAR10 and SplitCIFAR100. Classes come in
    ascending order. Avalanche permutes the pixels of every task, the first too.

    Args:
        stream: A recipe's `tasks` section.

    Returns:
        The benchmark; task labels count up where `heads` is set.

    Raises:
        ValueError: If the data set or scenario is not a classic one, the classes do not divide,
            or the data can neither be read nor downloaded.
    """
    if stream.dataset not in LAYOUTS:
        raise ValueError(
            f"tasks.dataset = {stream.dataset!r} is not a classic one; accepted: "
            f"{', '.join(LAYOUTS)}"
        )
    if stream.dataset != "mnist" and stream.scenario != "split":
        raise ValueError(
            f"tasks.scenario = {stream.scenario!r} does not exist for {stream.dataset}; accepted: "
            "split (permuted and rotated go with digits and mnist)"
        )
    title, layout, classes = LAYOUTS[stream.dataset]
    if stream.scenario == "split":
        class_groups(stream, classes)

    root, build = _classic(stream, classes)
    with _no_traces(root):
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                # NumPy warns about the age of the CIFAR pickles.
                warnings.simplefilter("ignore")
                return build()
        except Exception as error:
            # The readers raise anything on a damaged file, the downloader anything on a bad line.
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = lines[-1] if lines else type(error).__name__
    raise ValueError(
        f"tasks.dataset = {stream.dataset!r}: {title} could neither be read from {root} nor "
        f"downloaded ({reason}); point to a copy with tasks.root=DIR, where DIR holds {layout}"
    )


def _classic(stream: TaskStream, classes: int) -> tuple[Path, Callable[[], Any]]:
    # Find the root, and bind the benchmark's constructor to the recipe.
    with warnings.catch_warnings():
        # Avalanche's imports warn about optional solvers that are not installed.
        warnings.simplefilter("ignore")
        from avalanche.benchmarks import classic
        from avalanche.benchmarks.datasets import default_dataset_location

    root = Path(stream.root or default_dataset_location(stream.dataset)).expanduser()
    given: dict[str, Any] = {"dataset_root": root, "return_task_id": stream.heads}
    if stream.scenario == "permuted":
        # The classic takes NumPy's legacy seeds, of 32 bits.
        kind = classic.PermutedMNIST
        given["seed"] = stream.seed % 2**32
    elif stream.scenario == "rotated":
        kind = classic.RotatedMNIST
        given["rotations_list"] = angles(stream)
    else:
        kind = {
            "mnist": classic.SplitMNIST,
            "cifar10": classic.SplitCIFAR10,
            "cifar100": classic.SplitCIFAR100,
        }[stream.dataset]
        given |= {"fixed_class_order": list(range(classes)), "shuffle": False}
    return root, lambda: kind(stream.experiences, **given)


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
