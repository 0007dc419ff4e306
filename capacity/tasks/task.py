"""What is learned: one task is data, the outputs it uses, a loss and a score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from capacity.base.checks import finite_tensor, one_of, text_of
from capacity.base.in_place import Guarded
from capacity.records.notebook import InNotebook
from capacity.tasks.batches import BatchLayout

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Maps outputs (n, C) and targets (n, ...) to the mean loss, a scalar."""


def _half_mse(outputs: Tensor, targets: Tensor) -> Tensor:
    return 0.5 * (outputs - targets.reshape(outputs.shape)).square().sum(-1).mean()


LOSSES: dict[str, LossFunction] = {"cross_entropy": functional.cross_entropy, "mse": _half_mse}
"""Losses by name; `mse` is 1/2 the squared distance of the output vector, averaged over samples."""

_HASHED = 1024
"""Samples that are hashed at once."""
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Words of each number of bytes."""


@dataclass(frozen=True)
class Split(InNotebook):
    """Inputs and targets of one split of a task.

    Attributes:
        x: Inputs (n, ...).
        y: Targets: class indices (n,) of integer type, or values (n, ...) for regression.
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device) -> Split:
        """Copy to a device.

        Args:
            device: Where to.

        Returns:
            The split there.
        """
        return Split(self.x.to(device), self.y.to(device))

    def first(self, count: int) -> Split:
        """Take at most `count` samples, spread evenly over the split.

        Args:
            count: Most samples to keep.

        Returns:
            A split of min(n, count) samples in their order.
        """
        if len(self) <= count:
            return self
        index = torch.linspace(0, len(self) - 1, count, device=self.x.device, dtype=torch.float32)
        rows = index.round().long()
        return Split(self.x[rows], self.y[rows])


@dataclass(frozen=True, kw_only=True)
class Task(InNotebook):
    """One task of a sequence.

    Attributes:
        name: For people; unique in a sequence.
        train: Training split. Targets of a classification count within `outputs` (see there).
        test: The samples that scores are taken on, which training does not see.
        outputs: Indices of the model outputs that this task reads, or None for all of them. A head
            per task is a block of outputs per task; target c then means output `outputs[c]`.
        loss: Name of a loss (`cross_entropy`, `mse`), or a function of (outputs, targets) that
            returns the mean over samples.
        classes: Labels as the data set names them, for people; empty for regression.
        held_out: Whether `test` was held out of one set of data by `hold_out`, as the doors of
            this package do with data that come without a test split.
        batch_size: Batch size of the loader that the training samples came from; None where they
            came from elsewhere.
        ignored: Labels, not negative, whose samples the loss leaves out, as every door finds them
            (`ignore_index` of a class); accuracy leaves them out, too.
        layout: How batches of several tensors lie in the inputs; None where each is one tensor.
    """

    name: str
    train: Split
    test: Split
    outputs: tuple[int, ...] | None = None
    loss: str | LossFunction = "cross_entropy"
    classes: tuple[int, ...] = field(default=())
    held_out: bool = False
    batch_size: int | None = None
    ignored: tuple[int, ...] = ()
    layout: BatchLayout | None = None

    def __post_init__(self) -> None:
        text_of("name", self.name)
        if isinstance(self.loss, str):
            one_of("loss", self.loss, LOSSES)
        elif not callable(self.loss):
            raise ValueError(
                f"loss = {self.loss!r} must be one of {', '.join(LOSSES)} or a function of "
                "(outputs, targets)"
            )
        for part, split in (("train", self.train), ("test", self.test)):
            check_split(f"task {self.name!r}, {part}", split, self.loss)
        if self.train.x.shape[1:] != self.test.x.shape[1:]:
            raise ValueError(
                f"task {self.name!r}: train inputs have shape {tuple(self.train.x.shape[1:])}, "
                f"test inputs {tuple(self.test.x.shape[1:])}; they must agree"
            )

    @property
    def classifies(self) -> bool:
        """Whether targets are class indices (n,), so that accuracy is defined."""
        return self.loss != "mse" and is_labels(self.train.y)

    @cached_property
    def overlap(self) -> int:
        """How many test samples (input and target) are training samples, too."""
        return count_shared(self.test, self.train)

    @property
    def scored_on(self) -> Literal["test", "training"]:
        """What its scores are scores on; `training` where each test sample is a training sample."""
        return "training" if self.overlap == len(self.test) else "test"

    def select(self, outputs: Tensor) -> Tensor:
        """Keep the outputs that this task reads.

        Args:
            outputs: Model outputs (..., n_outputs).

        Returns:
            The task's outputs (..., C).
        """
        if self.outputs is None:
            return outputs
        first, last = self.outputs[0], self.outputs[-1]
        if self.outputs == tuple(range(first, last + 1)):
            return outputs[..., first : last + 1]
        return outputs[..., list(self.outputs)]

    def loss_of(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of model outputs.

        Args:
            outputs: All model outputs (n, n_outputs).
            targets: Targets (n, ...).

        Returns:
            A scalar, in the loss's own unit (nats for cross-entropy).
        """
        return self.loss_function(self.select(outputs), targets)

    @cached_property
    def loss_function(self) -> LossFunction:
        """The loss of the task's own outputs, which writes into neither outputs nor targets."""
        return LOSSES[self.loss] if isinstance(self.loss, str) else Guarded(self.loss)

    def accuracy_of(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Share of samples whose largest output is their target.

        Args:
            outputs: All model outputs (n, n_outputs).
            targets: Class indices (n,).

        Returns:
            A scalar in [0, 1], over the samples that count (see `counted`); NaN where accuracy is
            not defined (regression).
        """
        if not self.classifies:
            return outputs.new_full((), torch.nan)
        right = (self.select(outputs).argmax(-1) == targets) & self.counted(targets)
        return right.sum().to(outputs.dtype) / self.counted(targets).sum()

    def counted(self, targets: Tensor) -> Tensor:
        """Tell which samples a classification counts: those that its loss does not ignore.

        Args:
            targets: Class indices (n,).

        Returns:
            Whether the index is neither negative nor among `ignored` (n,).
        """
        known = targets >= 0
        for label in self.ignored:
            known = known & (targets != label)
        return known

    def check_outputs(self, n_outputs: int) -> None:
        """Check that the model has the outputs that this task needs.

        Args:
            n_outputs: Width of the model's output.

        Raises:
            ValueError: If an output or a label lies outside the head.
        """
        if self.outputs is not None and max(self.outputs) >= n_outputs:
            raise ValueError(
                f"task {self.name!r} reads output {max(self.outputs)}, but the model has "
                f"{n_outputs} outputs; give it at least {max(self.outputs) + 1}"
            )
        if not self.classifies:
            return
        own = not isinstance(self.loss, str)  # may ignore negative labels
        width = n_outputs if self.outputs is None else len(self.outputs)
        for part, split in (("train", self.train), ("test", self.test)):
            low, high = int(split.y.min()), int(split.y.max())
            if own and high >= width:
                raise ValueError(
                    f"task {self.name!r}, {part}: labels run from {low} to {high}, but the task "
                    f"reads {width} output(s), and accuracy is the share of samples whose largest "
                    "output is their label; make the targets of samples to be ignored negative "
                    "(ignore_index=-100), and pass targets that number no outputs (of a single "
                    "logit, say) as floats, which are scored by their loss alone"
                )
            if not own and (low < 0 or high >= width):
                raise ValueError(
                    f"task {self.name!r}, {part}: labels run from {low} to {high}, but the head "
                    f"has {width} outputs; accepted: 0 to {width - 1}"
                )

    def to(self, device: torch.device) -> Task:
        """Copy to a device.

        Args:
            device: Where to.

        Returns:
            The task there; this one, whose data need no second check, where it is there already.
        """
        splits = (self.train, self.test)
        if all(part.device == device for split in splits for part in (split.x, split.y)):
            return self
        return replace(self, train=self.train.to(device), test=self.test.to(device))


@dataclass(frozen=True, kw_only=True)
class TaskSequence(InNotebook):
    """Tasks in the order in which they are learned.

    Attributes:
        name: For people.
        tasks: At least one task; all with one input shape.
        n_outputs: Width that a model's output needs.
    """

    name: str
    tasks: tuple[Task, ...]
    n_outputs: int

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError(f"tasks of {self.name!r} is empty; a sequence needs at least one task")
        shapes = {tuple(task.train.x.shape[1:]) for task in self.tasks}
        if len(shapes) > 1:
            raise ValueError(
                f"tasks of {self.name!r} have inputs of shapes {sorted(shapes)}; one model needs "
                "one shape: pad, crop or flatten them alike"
            )
        names = [task.name for task in self.tasks]
        if len(set(names)) < len(names):
            raise ValueError(f"tasks of {self.name!r} have names {names}; each must be unique")
        for task in self.tasks:
            task.check_outputs(self.n_outputs)

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: int) -> Task:
        return self.tasks[index]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.tasks[0].train.x.shape[1:])

    def to(self, device: torch.device) -> TaskSequence:
        """Copy to a device.

        Args:
            device: Where to.

        Returns:
            The sequence there.
        """
        return replace(self, tasks=tuple(task.to(device) for task in self.tasks))


def check_split(where: str, split: Split, loss: str | LossFunction) -> None:
    """Check the samples of a task.

    Args:
        where: Name of the split, for the message.
        split: The samples.
        loss: Loss of the task.

    Raises:
        ValueError: If they are empty, not finite, do not pair up, or do not fit the loss.
    """
    finite_tensor(f"{where} inputs", split.x)
    finite_tensor(f"{where} targets", split.y)
    if len(split.x) != len(split.y):
        raise ValueError(
            f"{where}: {len(split.x)} inputs but {len(split.y)} targets; they must pair up"
        )
    if loss == "cross_entropy" and not (is_labels(split.y) or is_label_table(split.y)):
        raise ValueError(
            f"{where} targets have dtype {split.y.dtype} and shape {tuple(split.y.shape)}; "
            "cross_entropy takes class indices: an integer tensor (n,), or (n, ...) with a label "
            "per token or pixel; for other targets (soft labels) pass a loss of your own, as "
            "loss=lambda outputs, targets: ..."
        )


def is_labels(targets: Tensor) -> bool:
    """Tell whether targets are class indices: integers, one per sample.

    Args:
        targets: Targets (n, ...).

    Returns:
        Whether they are.
    """
    return targets.dim() == 1 and not (targets.is_floating_point() or targets.is_complex())


def is_label_table(targets: Tensor) -> bool:
    """Tell whether targets are several class indices per sample: one per token or pixel.

    Args:
        targets: Targets (n, ...).

    Returns:
        Whether they are.
    """
    whole = not (targets.is_floating_point() or targets.is_complex())
    return whole and targets.dim() > 1 and targets[0].numel() > 1


def count_shared(part: Split, whole: Split) -> int:
    """Count the samples of one split that another one holds, too.

    Args:
        part: The samples in question.
        whole: Where they are looked for.

    Returns:
        How many of `part` are in `whole`, with the same input and the same target.
    """
    if part is whole or (part.x is whole.x and part.y is whole.y):
        return len(part)
    pairs = ((part.x, whole.x), (part.y, whole.y))
    if any(a.shape[1:] != b.shape[1:] or a.dtype != b.dtype for a, b in pairs):
        return 0
    there = keys_of(whole).to(part.x.device)
    return int(torch.isin(keys_of(part), there).sum())


def keys_of(split: Split) -> Tensor:
    """Hash samples, each to one number: sums of words that wrap around are exact.

    Args:
        split: The samples.

    Returns:
        Keys (n,), int64, alike for samples with the same input and the same target.
    """
    generator = torch.Generator().manual_seed(0)
    keys = torch.zeros(len(split), dtype=torch.int64, device=split.x.device)
    for values in (split.x, split.y):
        rows = values.detach().reshape(len(values), -1)
        word = _WORDS[min(rows.element_size(), 8)]
        width = rows[:1].contiguous().view(word).shape[1]
        factors = torch.randint(1 << 62, (width,), generator=generator).to(keys.device) | 1
        for start in range(0, len(rows), _HASHED):
            words = rows[start : start + _HASHED].contiguous().view(word).long()
            # Round floats are multiples of large powers of two: their high bits go below, too.
            words = words ^ (words >> 32)
            words = words ^ (words >> 16)
            keys[start : start + _HASHED] += (words * factors).sum(1)
    return keys


def n_classes(splits: Sequence[Split]) -> int:
    """Count the classes that a shared head needs for some splits.

    Args:
        splits: Classification splits.

    Returns:
        The largest label plus one.
    """
    return 1 + max(int(split.y.max()) for split in splits)
