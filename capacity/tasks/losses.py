"""A user's loss, judged by evaluating it: of one sample, of some, and of a batch.

The loss of a batch is one of three things. It is the mean of its samples' losses; or a weighted
mean, sum w_i l_i / sum w_i, as with class weights or ignored targets, whose weights cancel where a
sample stands alone; or it couples the samples, as a sum or a contrastive loss does. What is
averaged over samples elsewhere - curvature, kernels, errors - is right for the first kind. For the
second, a reference sample r that stands beside each sample in turn shows its weight:

    L({i, r}) = (w_i l_i + w_r l_r) / (w_i + w_r),    dL/df_r = w_r / (w_i + w_r) dl_r/df_r,

so that w_i and w_i l_i are known (w_r = 1), also where w_i is 0. The third kind is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.func import grad
from torch.nn import functional

from capacity.base.differential import vmap
from capacity.base.in_place import Guarded
from capacity.tasks.task import SAMPLE_LOSSES, LossFunction, Split, Task, is_label_table


@dataclass(frozen=True)
class Reference:
    """The sample beside which others show their weight.

    Attributes:
        outputs: Its outputs (C,).
        target: Its target.
        loss: Its loss alone.
        slope: Gradient of that in its outputs (C,).
    """

    outputs: Tensor
    target: Tensor
    loss: Tensor
    slope: Tensor


@dataclass(frozen=True)
class FittedLoss:
    """A user's loss, called in the way that was seen to work.

    Attributes:
        function: The loss as it was handed over; a module on another device is a copy there.
        dtype: Precision of the outputs that it takes; None takes any.
        shape: Shape of one sample's outputs, where the network lays them out in one row.
        reference: For a weighted mean, the sample beside which others show their weight.
        mean_weight: Makes the loss a mean over samples: their weights are divided by this constant
            in place of the batch's own mean. None leaves it as it was handed over.
    """

    function: LossFunction
    dtype: torch.dtype | None = None
    shape: tuple[int, ...] | None = None
    reference: Reference | None = field(default=None, compare=False, repr=False)
    mean_weight: float | None = None

    @property
    def __name__(self) -> str:
        """Name of the loss, for messages."""
        return name_of(self.function)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Evaluate the loss of a batch.

        Args:
            outputs: Outputs (n, C).
            targets: Targets (n, ...).

        Returns:
            A scalar, in the precision of the outputs.
        """
        if self.mean_weight is not None:
            return self.contributions(outputs, targets).mean() / self.mean_weight
        return self._given(outputs, targets)

    @property
    def weighted(self) -> bool:
        """Whether samples weigh differently in the mean."""
        return self.reference is not None

    def parts(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Take a weighted mean apart.

        Args:
            outputs: Outputs (n, C).
            targets: Targets (n, ...).

        Returns:
            w_i l_i (n,) and w_i (n,).
        """
        return self.contributions(outputs, targets), self.weights(targets, outputs)

    def mean_of_weights(self, split: Split) -> float:
        """Average the weights of a split.

        Args:
            split: The samples.

        Returns:
            Their mean.
        """
        assert self.reference is not None
        return float(self.weights(split.y, self.reference.outputs.to(split.y.device)).mean())

    def weights(self, targets: Tensor, like: Tensor) -> Tensor:
        """Weigh samples in a weighted mean, relative to the reference sample.

        Args:
            targets: Targets (n, ...).
            like: A tensor of the wanted precision and device.

        Returns:
            Weights (n,), not negative.
        """
        return vmap(lambda y: self._weight(y, like))(targets)

    def contributions(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Give what every sample adds to the numerator of a weighted mean.

        Args:
            outputs: Outputs (n, C).
            targets: Targets (n, ...).

        Returns:
            w_i l_i (n,).
        """
        r = self._at(outputs)

        def one(f: Tensor, y: Tensor) -> Tensor:
            pair = self._given(torch.stack([f, r.outputs]), torch.stack([y, r.target]))
            return (1 + self._weight(y, f)) * pair - r.loss

        return vmap(one)(outputs, targets)

    def _given(self, outputs: Tensor, targets: Tensor) -> Tensor:
        kind = outputs.dtype
        if self.shape is not None:
            outputs = outputs.reshape(len(outputs), *self.shape)
        if self.dtype is not None:
            outputs = outputs.to(self.dtype)
            targets = targets.to(self.dtype) if targets.is_floating_point() else targets
        elif targets.is_floating_point():  # older versions of torch differentiate no mixed ones
            targets = targets.to(torch.promote_types(outputs.dtype, targets.dtype))
        return self._guarded(outputs, targets).to(kind)

    @cached_property
    def _guarded(self) -> LossFunction:
        return Guarded(self.function)

    def _weight(self, target: Tensor, like: Tensor) -> Tensor:
        """w_i: a function of the target, taken at the reference's outputs for both samples."""
        r = self._at(like)
        targets = torch.stack([target, r.target])
        slope = grad(lambda g: self._given(torch.stack([r.outputs, g]), targets))(r.outputs)
        return (r.slope.square().sum() / (slope * r.slope).sum() - 1).clamp(min=0)

    def _at(self, like: Tensor) -> Reference:
        r = self.reference
        assert r is not None
        floats = like.dtype if r.target.is_floating_point() else r.target.dtype
        return Reference(
            r.outputs.to(like), r.target.to(like.device, floats), r.loss.to(like), r.slope.to(like)
        )


def cross_entropy_by_position(outputs: Tensor, targets: Tensor) -> Tensor:
    """Average the cross-entropy over all positions that count.

    Args:
        outputs: Outputs (n, ..., C): one row of C per position.
        targets: Class indices (n, ...); -100 does not count.

    Returns:
        A scalar, in nats.
    """
    return functional.cross_entropy(outputs.movedim(-1, 1), targets)


@dataclass(frozen=True)
class ScoreByPosition:
    """Accuracy of labels per token or pixel: how many of a sample's are right, of how many.

    Attributes:
        shape: Shape of one sample's outputs, which lie in one row.
        last: Whether the classes are their last dimension, and not their first.
    """

    shape: tuple[int, ...]
    last: bool

    def __call__(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Count.

        Args:
            outputs: Outputs (n, C).
            targets: Class indices (n, ...); negative ones do not count.

        Returns:
            Right ones (n,), and those that count (n,), in the precision of the outputs.
        """
        table = outputs.reshape(len(outputs), *self.shape)
        known = targets >= 0
        right = (table.argmax(-1 if self.last else 1) == targets) & known
        return tuple(part.flatten(1).sum(1).to(outputs.dtype) for part in (right, known))  # type: ignore[return-value]

    def total(self, split: Split) -> float:
        """Count what a split's accuracy, and its loss, are means over.

        Args:
            split: The samples.

        Returns:
            Labels that count.
        """
        return float((split.y >= 0).sum())


def by_position(loss: str | LossFunction, outputs: Tensor, targets: Tensor) -> LossFunction | None:
    """Choose the cross-entropy of a label per token or pixel.

    Args:
        loss: The task's loss.
        outputs: The network's outputs (n, ...).
        targets: The task's targets (n, ...).

    Returns:
        The function for classes in the last dimension (a row of outputs per token) or in the first
        (a map per class); None for another loss, one label per sample, or outputs that do not fit.
    """
    if loss != "cross_entropy" or not is_label_table(targets):
        return None
    if outputs.shape[1:-1] == targets.shape[1:]:
        return cross_entropy_by_position
    if (*outputs.shape[:1], *outputs.shape[2:]) == (len(outputs), *targets.shape[1:]):
        return functional.cross_entropy
    return None


def name_of(loss: str | LossFunction) -> str:
    """Name a loss, for messages.

    Args:
        loss: A name or a function.

    Returns:
        The name; that of its class for a module.
    """
    if isinstance(loss, str):
        return loss
    return str(getattr(loss, "__name__", type(loss).__name__))


def additive(task: Task, split: Split) -> Task:
    """Make a task's loss a mean over samples, which is the same on one split.

    Args:
        task: A task whose loss was fitted.
        split: Where the two are the same; the weights are divided by their mean there.

    Returns:
        The task itself where its loss is a mean over samples already.
    """
    loss = task.loss
    if not isinstance(loss, FittedLoss) or not loss.weighted or loss.mean_weight is not None:
        return task
    return replace(task, loss=replace(loss, mean_weight=loss.mean_of_weights(split)))


def linearised_ratio(sums: Tensor, counts: Tensor) -> Tensor:
    """Give one number per sample whose mean is a ratio of means, and whose spread is that of it.

    Args:
        sums: Sums of the samples (n,), of their tokens, say.
        counts: Their counts (n,).

    Returns:
        R + (s_i - R c_i) / mean(c), R = sum(s) / sum(c) (n,): the linearisation of R in the
        samples, as a jackknife takes it.
    """
    parts = sums / counts.mean()
    return parts + (1 - counts / counts.mean()) * parts.mean()


def sample_losses(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    """Give one number per sample whose mean is the loss, and whose spread is that of the mean.

    Args:
        task: A task whose loss was fitted.
        outputs: The outputs that it reads (n, C).
        targets: Targets (n, ...).

    Returns:
        Losses (n,); for a weighted mean L those of its linearisation in the samples,
        L + w_i (l_i - L) / mean(w), as a jackknife takes them.
    """
    if isinstance(task.loss, str):
        return SAMPLE_LOSSES[task.loss](outputs, targets)
    loss = task.loss
    if isinstance(loss, FittedLoss) and loss.weighted and loss.mean_weight is None:
        return linearised_ratio(*loss.parts(outputs, targets))
    return vmap(lambda f, y: loss(f[None], y[None]))(outputs, targets)
