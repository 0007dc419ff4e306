"""What is learned: one task is data, the outputs it uses, a loss and a score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from capacity.base.checks import one_of, text_of
from capacity.base.in_place import Guarded
from capacity.records.notebook import InNotebook
from capacity.tasks.batches import BatchLayout
from capacity.tasks.generation import Generator
from capacity.tasks.split import LossFunction as LossFunction
from capacity.tasks.split import Split as Split
from capacity.tasks.split import check_split as check_split
from capacity.tasks.split import count_shared as count_shared
from capacity.tasks.split import is_label_table as is_label_table
from capacity.tasks.split import is_labels as is_labels
from capacity.tasks.split import keys_of as keys_of
from capacity.tasks.split import n_classes as n_classes
from capacity.tasks.splits import read_splits
from capacity.tasks.step_loss import StepLoss

SampleFunction = Callable[[Any, Any], Any]
"""Maps a model and a batch to values per sample (n,), or to sums and counts (n,) each."""


class ScoreParts(Protocol):
    """A score that counts within samples: tokens, pixels."""

    def __call__(self, outputs: Tensor, targets: Tensor, /) -> tuple[Tensor, Tensor]:
        """Map outputs (n, C) and targets (n, ...) to sums (n,) and counts (n,)."""

    def total(self, split: Split, /) -> float | None:
        """Count what a split's score is a mean over; None where only the network tells."""


def _cross_entropies(outputs: Tensor, targets: Tensor) -> Tensor:
    # functional.cross_entropy has no batching rule: vmap takes it apart in Python.
    if targets.dim() != 1 or outputs.dim() != 2 or targets.is_floating_point():
        return functional.cross_entropy(outputs, targets, reduction="none")
    return -outputs.log_softmax(1).gather(1, targets[:, None].long())[:, 0]


def _half_squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return 0.5 * (outputs - targets.reshape(outputs.shape)).square().sum(-1)


SAMPLE_LOSSES: dict[str, LossFunction] = {"cross_entropy": _cross_entropies, "mse": _half_squares}
"""Losses of samples (n,) by name; `mse` is 1/2 the squared distance of the output vector."""


def _mean_of(losses: LossFunction) -> LossFunction:
    return lambda outputs, targets: losses(outputs, targets).mean()


LOSSES: dict[str, LossFunction] = {name: _mean_of(of) for name, of in SAMPLE_LOSSES.items()}
"""The same of a batch: their mean."""


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
        losses: In place of `loss`, a function of (model, batch) that returns a loss per sample
            (n,), or sums and counts per sample, as of their tokens; a batch is then what the data
            yields, targets and all, and the mean is that of the sums over that of the counts.
        scores: Beside `losses`, a function of the same kind that returns what stands for accuracy:
            a score per sample, between 0 and 1, or sums and counts.
        score: How sums and counts of the score are read off outputs (n, C) and targets, as every
            door finds it; None where accuracy is that of one label per sample, or is not defined.
        generator: How samples are drawn from the network that learned it, and judged; None where it
            makes none.

    Args:
        name: As above.
        train: A `Split`; or data in any form that `capacity.forecast` takes: `(x, y)`, a Dataset,
            a DataLoader, a mapping of tensors. With `losses`, also anything that can be iterated
            over, whose items are batches.
        test: The same; None holds a fifth of the training samples out, as `hold_out` does.
        outputs: As above.
        loss: As above.
        classes: As above.
        held_out: As above.
        batch_size: As above.
        ignored: As above.
        layout: As above.
        losses: As above.
        scores: As above.
        score: As above.
        generator: As above.

    Example:
        >>> import torch, capacity
        >>> from torch.nn.functional import cross_entropy
        >>> def losses(model, batch):
        ...     return cross_entropy(model(batch["x"]), batch["y"], reduction="none")
        >>> data = {"x": torch.randn(50, 4), "y": torch.arange(50) % 2}
        >>> task = capacity.Task(name="first", train=data, losses=losses)
        >>> len(task.train), len(task.test)
        (40, 10)
    """

    name: str
    train: Split
    test: Split = None  # type: ignore[assignment]
    outputs: tuple[int, ...] | None = None
    loss: str | LossFunction = "cross_entropy"
    classes: tuple[int, ...] = field(default=())
    held_out: bool = False
    batch_size: int | None = None
    ignored: tuple[int, ...] = ()
    layout: BatchLayout | None = None
    losses: SampleFunction | None = None
    scores: SampleFunction | None = None
    score: ScoreParts | None = field(default=None, compare=False)
    generator: Generator | None = field(default=None, compare=False)

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            name: str,
            train: object,
            test: object = None,
            outputs: tuple[int, ...] | None = None,
            loss: str | LossFunction = "cross_entropy",
            classes: tuple[int, ...] = (),
            held_out: bool = False,
            batch_size: int | None = None,
            ignored: tuple[int, ...] = (),
            layout: BatchLayout | None = None,
            losses: SampleFunction | None = None,
            scores: SampleFunction | None = None,
            score: ScoreParts | None = None,
            generator: Generator | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        text_of("name", self.name)
        self._check_functions()
        if isinstance(self.loss, str):
            one_of("loss", self.loss, LOSSES)
        elif not callable(self.loss):
            raise ValueError(
                f"loss = {self.loss!r} must be one of {', '.join(LOSSES)} or a function of "
                "(outputs, targets)"
            )
        if not isinstance(self.train, Split) or not isinstance(self.test, Split):
            whole = self.losses is not None or isinstance(self.loss, StepLoss)
            made = read_splits(self.name, self.train, self.test, loss=self.loss, whole=whole)
            for name, value in made._asdict().items():
                object.__setattr__(self, name, value)
        for part, split in (("train", self.train), ("test", self.test)):
            check_split(f"task {self.name!r}, {part}", split, self.loss)
        if self.train.x.shape[1:] != self.test.x.shape[1:]:
            raise ValueError(
                f"task {self.name!r}: train inputs have shape {tuple(self.train.x.shape[1:])}, "
                f"test inputs {tuple(self.test.x.shape[1:])}; they must agree"
            )

    def _check_functions(self) -> None:
        """Check `losses` and `scores`, and let the one be the loss."""
        for name in ("losses", "scores"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise ValueError(
                    f"{name} = {getattr(self, name)!r} must be a function of (model, batch) that "
                    "returns one value per sample (n,), or (sums, counts) per sample"
                )
        if self.losses is None:
            if self.scores is not None:
                raise ValueError("scores needs losses beside it, which get the same batches")
            return
        given = getattr(self.loss, "function", self.loss)  # as the door binds it
        if given not in ("cross_entropy", self.losses):
            raise ValueError("task has loss and losses; pass one of them")
        if self.outputs is not None:
            raise ValueError("outputs is for loss; let losses choose what it reads of the outputs")
        if given == "cross_entropy":
            object.__setattr__(self, "loss", self.losses)

    @property
    def scored(self) -> bool:
        """Whether there is an accuracy, or a score in place of it."""
        return self.score is not None or self.classifies

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
        """Share of samples, tokens or pixels whose largest output is their target; or the score.

        Args:
            outputs: All model outputs (n, n_outputs).
            targets: Class indices (n, ...).

        Returns:
            A scalar, in [0, 1] for an accuracy, over the samples that count (see `counted`); NaN
            where accuracy is not defined (regression).
        """
        if not self.scored:
            return outputs.new_full((), torch.nan)
        right, counts = self.score_parts(self.select(outputs), targets)
        return right.sum() / counts.sum()

    def score_parts(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Score sample by sample.

        Args:
            outputs: The outputs that the task reads (n, C).
            targets: Targets (n, ...).

        Returns:
            Sums (n,) and counts (n,), whose ratio of means is the accuracy; of one label per sample
            1 where it is right, and 1 where it counts.
        """
        if self.score is not None:
            return self.score(outputs, targets)
        known = self.counted(targets)
        right = (outputs.argmax(-1) == targets) & known
        return right.to(outputs.dtype), known.to(outputs.dtype)

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
