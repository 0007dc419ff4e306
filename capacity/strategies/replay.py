"""Old samples in the loss of the new task: their labels, their old outputs, or both.

A step under replay has a batch of b new and m memory samples. Its rows are numbers: the new task's
samples come first, then the slots of the replica's own memory. So one row says what a sample is
asked for, whatever head and loss its task has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from capacity.base.differential import vmap
from capacity.strategies.sample_memory import Memory
from capacity.strategies.terms import HERE, Private, Source
from capacity.tasks.losses import additive
from capacity.tasks.task import Task
from capacity.training.data_order import DataOrder

_FOREVER = 1 << 62


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A memory's part in the steps of one task.

    Kept are a copy of the old tasks' inputs that is shared by all replicas, and R M numbers per
    slot's row, target and reader (and R M C for old outputs).

    Attributes:
        inputs: Training inputs of all old tasks (n_old, ...).
        readers: Old tasks that differ in the outputs that they read or in their loss.
        private: `row` in `inputs`, `target`, `reader` and, for old outputs, `outputs` and
            `counted`, the share of each output in the mean; (R, M, ...) each.
        size: M, the slots.
        batch: m, memory samples per step.
        share: Weight of the memory's labels; the new batch has 1 - share. None adds them with
            `label_strength` instead.
        label_strength: Weight of the labels on top of the new batch, without a share.
        output_strength: Weight of the old outputs.
        source: Names the stream of the draws.
    """

    inputs: Tensor
    readers: tuple[Task, ...]
    private: Private = field(repr=False)
    size: int
    batch: int
    share: float | None = None
    label_strength: float = 0.0
    output_strength: float = 0.0
    source: Source = HERE

    def draws(self, replicas: int, device: torch.device) -> Iterator[Tensor]:
        """Draw slots for one step after another: shuffled passes over the memory.

        Args:
            replicas: R.
            device: Where the slots are wanted.

        Yields:
            Slots (R, m), endlessly.
        """
        if self.batch == self.size:
            every = torch.arange(self.size, device=device).expand(replicas, -1)
            while True:
                yield every
        order = DataOrder(
            samples=self.size,
            batch_size=self.batch,
            epochs=_FOREVER,
            replicas=replicas,
            seed=self.source.seed,
            path=(*self.source.path, "draws"),
        )
        for batches in order.epoch_batches(device):
            # The rest of a pass is left out, so that all steps have one shape.
            yield from (slots for slots in batches if slots.shape[1] == self.batch)

    def gather(self, slots: Tensor) -> Tensor:
        """Look up the inputs of slots.

        Args:
            slots: Slots (R, m).

        Returns:
            Inputs (R, m, ...).
        """
        return self.inputs[self.private["row"].gather(1, slots)]

    def combine(self, new: Tensor, outputs: Tensor, slots: Tensor, private: Private) -> Tensor:
        """Put the memory's losses beside the new task's, for one replica.

        Args:
            new: Mean loss of the new samples.
            outputs: Outputs of the memory samples (m, n_outputs).
            slots: Their slots (m,).
            private: The replica's own tensors.

        Returns:
            The loss of the step.
        """
        total = new
        if self.output_strength:
            # With labels beside them, each is asked of a half of its own.
            cut = len(slots) // 2 if self.label_strength else len(slots)
            drift = self.drift(outputs[:cut], slots[:cut], private)
            total = total + self.output_strength * drift
            outputs, slots = outputs[cut:], slots[cut:]
        if self.share is not None:
            labels = self.labels(outputs, slots, private)
            total = (1 - self.share) * total + self.share * labels
        elif self.label_strength:
            total = total + self.label_strength * self.labels(outputs, slots, private)
        return total

    def labels(self, outputs: Tensor, slots: Tensor, private: Private) -> Tensor:
        """Mean loss of memory samples at their own labels, for one replica.

        Args:
            outputs: Their outputs (m, n_outputs).
            slots: Their slots (m,).
            private: The replica's own tensors.

        Returns:
            A scalar.
        """
        targets = private["target"][slots]
        if len(self.readers) == 1:
            return self.readers[0].loss_of(outputs, targets)
        reader = private["reader"][slots]
        total = outputs.new_zeros(())
        for k, task in enumerate(self.readers):
            mine = reader == k
            # Label 0 is in every head; what it says of another head's samples is not counted.
            shape = (-1,) + (1,) * (targets.dim() - 1)
            asked = torch.where(mine.reshape(shape), targets, torch.zeros_like(targets))
            each = vmap(lambda f, t, task=task: task.loss_of(f[None], t[None]))(outputs, asked)
            total = total + torch.where(mine, each, torch.zeros_like(each)).sum()
        return total / len(slots)

    def drift(self, outputs: Tensor, slots: Tensor, private: Private) -> Tensor:
        """Mean squared change of the outputs since their task was learned, for one replica.

        Args:
            outputs: The outputs now (m, n_outputs).
            slots: Their slots (m,).
            private: The replica's own tensors.

        Returns:
            A scalar: the mean over samples and outputs; those that their tasks do not read are 0.
        """
        moved = (outputs - private["outputs"][slots]).square()
        return (private["counted"][slots] * moved).sum(-1).mean()


def build(
    old: tuple[Task, ...],
    memory: Memory,
    *,
    batch: int,
    source: Source,
    outputs: tuple[Tensor, ...] | None = None,
    share: float | None = None,
    label_strength: float = 0.0,
    output_strength: float = 0.0,
) -> Replay:
    """Bind a memory to the old tasks' data.

    Args:
        old: The old tasks.
        memory: The kept samples.
        batch: Memory samples per step; at most all of them are taken.
        source: Names the streams.
        outputs: Per task, the old outputs of its first samples by key (R, q, n_outputs).
        share: As in `Replay`.
        label_strength: As in `Replay`.
        output_strength: As in `Replay`.

    Returns:
        The memory's part.

    Raises:
        ValueError: If the old tasks' targets differ in type or shape.
    """
    kinds = {(task.train.y.dtype, tuple(task.train.y.shape[1:])) for task in old}
    if len(kinds) > 1:
        raise ValueError(
            f"old tasks have targets of {sorted(map(str, kinds))}; a memory batch needs one kind: "
            "give the tasks one type of target, or take strategy = 'ewc', which needs no memory"
        )
    device = old[0].train.x.device
    readers: list[Task] = []
    reader_of = []
    for task in old:
        kind = (task.outputs, task.loss)
        same = (k for k, r in enumerate(readers) if (r.outputs, r.loss) == kind)
        found = next(same, len(readers))
        if found == len(readers):
            readers.append(task)
        reader_of.append(found)
    if len(readers) > 1:  # their samples are taken one by one, where weights would cancel
        readers = [additive(task, task.train) for task in readers]
    starts = torch.tensor([0, *(len(task.train) for task in old[:-1])]).cumsum(0)
    row = (starts[memory.task] + memory.row).to(device)
    targets = torch.cat([task.train.y for task in old])
    private = {
        "row": row,
        "target": targets[row],
        "reader": torch.tensor(reader_of)[memory.task].to(device),
    }
    if outputs is not None:
        padded = torch.nn.utils.rnn.pad_sequence(
            [kept.transpose(0, 1) for kept in outputs], batch_first=True
        )  # (K, q, R, n_outputs)
        slots, ranks = memory.task.to(device), memory.rank.to(device)
        which = torch.arange(len(slots), device=device)[:, None]
        private["outputs"] = padded[slots, ranks, which]
        width = padded.shape[-1]
        counted = torch.stack([_counted(task, width) for task in old]).to(padded)
        private["counted"] = counted[slots]
    size = row.shape[1]
    return Replay(
        inputs=torch.cat([task.train.x for task in old]),
        readers=tuple(readers),
        private=private,
        size=size,
        batch=min(batch, size),
        share=share,
        label_strength=label_strength,
        output_strength=output_strength,
        source=source,
    )


def _counted(task: Task, width: int) -> Tensor:
    """Give the outputs that a task reads their share of the mean over all outputs."""
    # Over all, not over its own: a strength then means the same with and without heads.
    weights = torch.zeros(width, dtype=torch.float64)
    weights[list(range(width)) if task.outputs is None else list(task.outputs)] = 1 / width
    return weights
