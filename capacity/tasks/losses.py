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

import copy
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.func import grad

from capacity.differential import pullback, vmap
from capacity.in_place import Guarded
from capacity.tasks.task import LOSSES, LossFunction, Split, Task

_LABELS = 16
"""Labels of a task of which one sample each is looked at, beside some samples spread evenly."""
_SPREAD = 8


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
    if not isinstance(loss, FittedLoss) or loss.reference is None or loss.mean_weight is not None:
        return task
    like = loss.reference.outputs.to(split.y.device)
    weight = float(loss.weights(split.y, like).mean())
    return replace(task, loss=replace(loss, mean_weight=weight))


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
    loss = LOSSES[task.loss] if isinstance(task.loss, str) else task.loss
    if isinstance(loss, FittedLoss) and loss.reference is not None and loss.mean_weight is None:
        weights = loss.weights(targets, outputs)
        shares = weights / weights.mean()
        parts = loss.contributions(outputs, targets) / weights.mean()
        return parts + (1 - shares) * parts.mean()
    return vmap(lambda f, y: loss(f[None], y[None]))(outputs, targets)


def telling_rows(split: Split) -> Tensor:
    """Choose samples that tell the kind of a loss: of every label one, and some spread evenly.

    Args:
        split: The split.

    Returns:
        Row numbers, each once.
    """
    n = len(split)
    rows = torch.linspace(0, n - 1, min(n, _SPREAD)).round().long()
    if split.y.is_floating_point():
        return rows.unique()
    y = split.y.cpu().reshape(n, -1)
    labels = y.unique()
    step = max(1, len(labels) // _LABELS)
    first = [int((y == label).any(1).long().argmax()) for label in labels[::step][:_LABELS]]
    # Where some targets of a sample are ignored, the most and the fewest.
    ignored = (y < 0).sum(1)
    first += [int(ignored.argmin()), int(ignored.argmax())]
    first += [int(y.amin(1).argmin()), int(y.amax(1).argmax())]
    return torch.cat([rows, torch.tensor(first)]).unique()


def fit_loss(
    task: Task,
    outputs: Tensor,
    targets: Tensor,
    *,
    shape: tuple[int, ...] | None = None,
    twice: bool = True,
) -> Task:
    """Judge a task's loss, and bind it in the way that works.

    Args:
        task: The task.
        outputs: All of the network's outputs (n, n_outputs) for some samples, in its precision.
        targets: Their targets (n, ...).
        shape: As in `FittedLoss`.
        twice: Whether the loss's second derivatives in the outputs are needed.

    Returns:
        The task, whose loss is a mean or a weighted mean over samples. A loss that is neither, or
        does not fit, is a ValueError that says what to return.
    """
    loss = task.loss
    if isinstance(loss, FittedLoss):
        return task
    f = task.select(outputs).detach()
    said = f"task {task.name!r}: loss = {name_of(loss)!r}"
    if isinstance(loss, str):
        value = _tried(said, LOSSES[loss], f, targets)
        _check_finite(said, value)
        return task
    made = fit_batch_loss(said, loss, f, targets, shape=shape)
    made = _of_kind(said, made, f.double() if made.dtype is None else f, targets)
    if twice:
        _check_curved(said, made, f[:1], targets[:1])
    plain = made.dtype is None and made.shape is None and made.reference is None
    if plain and made.function is loss:
        return task
    return replace(task, loss=made)


def fit_batch_loss(
    said: str,
    loss: LossFunction,
    outputs: Tensor,
    targets: Tensor,
    *,
    shape: tuple[int, ...] | None = None,
) -> FittedLoss:
    """Judge what a loss gives for a batch, whatever kind of mean it is.

    Args:
        said: Whose loss it is, the beginning of a message.
        loss: The loss.
        outputs: The outputs that it reads (n, C), in the network's precision.
        targets: Their targets (n, ...).
        shape: As in `FittedLoss`.

    Returns:
        The loss, called in a precision that it takes.

    Raises:
        ValueError: If it gives no finite scalar that is a function of the outputs alone.
    """
    if isinstance(loss, nn.Module):
        loss = _on(loss, outputs.device)
    made = FittedLoss(loss, outputs.dtype, shape)
    value = _tried(said, made, outputs, targets)
    with torch.enable_grad():
        foreign = made(outputs, targets).requires_grad
        f = outputs.clone().requires_grad_()
        own = made(f, targets).requires_grad
    if foreign:
        raise ValueError(
            f"{said} depends on parameters beside the outputs, whose gradient would be left out; "
            "detach them, and put a penalty on weights into Training(weight_decay=...)"
        )
    if not own:
        raise ValueError(
            f"{said} has no gradient in the outputs (it rounds or detaches them); return a "
            "differentiable mean over samples"
        )
    _check_finite(said, value)
    again = made(outputs, targets)
    if not torch.equal(value, again):
        raise ValueError(
            f"{said} gives {float(value):.6g}, then {float(again):.6g} for the same outputs and "
            "targets; take random numbers and running averages out of it"
        )
    try:
        FittedLoss(loss, torch.float64, shape)(outputs, targets)
    except (RuntimeError, TypeError):
        return made  # a tensor of single precision inside
    return FittedLoss(loss, None, shape)


def _tried(said: str, loss: LossFunction, outputs: Tensor, targets: Tensor) -> Tensor:
    function = loss.function if isinstance(loss, FittedLoss) else loss
    if isinstance(loss, FittedLoss) and loss.shape is not None:
        outputs = outputs.reshape(len(outputs), *loss.shape)
    try:
        with torch.no_grad():
            value = Guarded(function)(outputs, targets)
    except Exception as error:
        why = " ".join(str(error).split())
        raise ValueError(
            f"{said} does not take outputs of shape {tuple(outputs.shape)} and {outputs.dtype} and "
            f"targets of shape {tuple(targets.shape)} and {targets.dtype}: {why}"
        ) from error
    if not isinstance(value, Tensor) or value.dim() > 0:
        came = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{said} returns {came}; return the mean over samples, a scalar tensor")
    return value.to(outputs.dtype)


def _check_finite(said: str, value: Tensor) -> None:
    if not bool(torch.isfinite(value)):
        raise ValueError(f"{said} is {float(value)} for the network as it is; it must be finite")


def _check_curved(said: str, loss: FittedLoss, f: Tensor, y: Tensor) -> None:
    def slope(g: Tensor) -> Tensor:
        made: Tensor = grad(loss)(g, y)
        return made

    try:
        pullback(slope, f)[1](torch.ones_like(f))
    except (RuntimeError, NotImplementedError) as error:
        why = " ".join(str(error).split())
        raise ValueError(
            f"{said} has no second derivative in torch, which curvature and J_t take ({why}); "
            "write it in torch's elementary operations, as a function of (outputs, targets)"
        ) from error


def _on(loss: nn.Module, device: torch.device) -> LossFunction:
    held = [*loss.parameters(), *loss.buffers()]
    if all(t.device == device for t in held):
        return loss
    moved: LossFunction = copy.deepcopy(loss).to(device)
    return moved


def _of_kind(said: str, loss: FittedLoss, f: Tensor, y: Tensor) -> FittedLoss:
    """Tell a mean from a weighted mean, and refuse what is neither."""
    if len(f) < 2:
        return loss
    slope, whole = grad(loss)(f, y), loss(f, y)
    singles = [_alone(loss, f[i : i + 1], y[i : i + 1]) for i in range(len(f))]
    alone = torch.stack([value for value, _ in singles])
    slopes = torch.cat([part for _, part in singles])
    kind = f.dtype if loss.dtype is None else loss.dtype
    values = torch.cat([whole[None], alone])
    if torch.equal(values.float().to(values), values):
        kind = torch.float32  # it rounds to single precision inside, as with outputs.float()
    near = 3 * torch.finfo(kind).eps ** 0.5
    size, steep = float(alone.abs().nan_to_num().max()), float(slopes.abs().nan_to_num().max())

    def same(one: Tensor, other: Tensor, scale: float) -> bool:
        return bool(((one - other).abs() <= near * max(scale, 1e-30)).all())  # NaN is not

    if same(whole, alone.mean(), size) and same(slope * len(f), slopes, steep):
        return loss
    if same(whole, alone.sum(), size * len(f)) and same(slope, slopes, steep):
        raise ValueError(
            f"{said} is the sum over the samples of a batch, so its steps grow with the batch; "
            "return the mean (reduction='mean') and multiply the learning rate by the batch size"
        )
    weighted = _weighted(loss, f, y, slope, alone, slopes)
    if weighted is not None:
        mixed = f[torch.arange(len(f)).roll(1)]  # outputs that other samples have: in the domain
        checks = [(f, y), (f[: len(f) // 2 + 1], y[: len(f) // 2 + 1]), (mixed, y)]
        means = [
            weighted.contributions(a, b).sum() / weighted.weights(b, a).sum() for a, b in checks
        ]
        if all(same(loss(a, b), mean, size) for (a, b), mean in zip(checks, means, strict=True)):
            return weighted
    raise ValueError(
        f"{said} couples the samples of a batch: of {len(f)} it is {float(whole):.4g}, and the "
        f"mean of each alone {float(alone.mean()):.4g}, nor is it a weighted mean; return a mean "
        "over samples, or watch the training with TransportTracker, which takes any loss of a batch"
    )


def _alone(loss: FittedLoss, f: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and gradient of one sample; NaN where it takes none."""
    try:
        return loss(f, y), grad(loss)(f, y)
    except (RuntimeError, ValueError, IndexError):
        return f.new_tensor(torch.nan), torch.full_like(f, torch.nan)


def _weighted(
    loss: FittedLoss, f: Tensor, y: Tensor, slope: Tensor, alone: Tensor, slopes: Tensor
) -> FittedLoss | None:
    """Take the lightest sample that has a weight as the reference of a weighted mean."""
    flat, own = slopes.flatten(1).nan_to_num(), slope.flatten(1).nan_to_num()
    steep = flat.square().sum(1)
    shares = (own * flat).sum(1) / steep.clamp(min=1e-300)
    fit = torch.isfinite(alone) & (shares > 0) & (steep > 1e-6 * steep.max())
    if not bool(fit.any()):
        return None
    i = int(torch.where(fit, shares, torch.full_like(shares, torch.inf)).argmin())
    return replace(loss, reference=Reference(f[i], y[i], alone[i], slopes[i]))
