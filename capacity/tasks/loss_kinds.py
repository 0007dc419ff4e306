"""Which kind of mean a user's loss is, judged by evaluating it: see `capacity.tasks.losses`."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import grad

from capacity.base.differential import pullback
from capacity.base.in_place import Guarded
from capacity.tasks.losses import FittedLoss, Reference, name_of
from capacity.tasks.task import LOSSES, LossFunction, Split, Task

_LABELS = 16
"""Labels of a task of which one sample each is looked at, beside some samples spread evenly."""
_SPREAD = 8
_TABLES = 64
"""Further targets that are looked at where a sample has several labels."""
_CHUNK, _NUMBERS = 64, 1 << 22
"""Further targets that are looked at together, and the numbers in their outputs."""
_AWAY = 1e-4
"""How far outputs are moved, over their size, to see whether a loss without gradient changes."""
_IGNORED = 1e-4
"""Weight, relative to the reference's, below which a sample is left out by the loss."""


def telling_rows(split: Split) -> Tensor:
    """Choose samples that tell the kind of a loss: of every label one, and some spread evenly.

    Args:
        split: The split.

    Returns:
        Row numbers, each once.
    """
    n = len(split)
    rows = torch.linspace(0, n - 1, min(n, _SPREAD), dtype=torch.float32).round().long()
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


def further_targets(task: Task, seen: Tensor) -> Tensor:
    """Choose targets so that every label of a task is looked at.

    A weight that only a rare label has shows at that label alone.

    Args:
        task: The task.
        seen: Targets that are looked at already (n, ...).

    Returns:
        One target for each further label, of either split; of targets with several labels each, at
        most 64. None for values.
    """
    y = torch.cat([task.train.y, task.test.y])
    if y.is_floating_point():
        return y[:0]
    labels, places = y.reshape(len(y), -1).cpu().unique(return_inverse=True)
    rows = torch.arange(len(y))[:, None].expand_as(places)
    first = torch.full_like(labels, len(y)).scatter_reduce_(
        0, places.reshape(-1), rows.reshape(-1), "amin"
    )
    first = first[~torch.isin(labels, seen.cpu())].unique()
    if y.dim() > 1:
        first = first[:: max(1, math.ceil(len(first) / _TABLES))]
    return y[first.to(y.device)]


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
    more = further_targets(task, targets).to(targets.device)
    made = _of_kind(said, made, f.double() if made.dtype is None else f, targets, more)
    if twice:
        _check_curved(said, made, f[:1], targets[:1])
    plain = made.dtype is None and made.shape is None and made.reference is None
    if plain and made.function is loss:
        return task
    return replace(task, loss=made, ignored=_ignored(task, made))


def _ignored(task: Task, loss: FittedLoss) -> tuple[int, ...]:
    """List the labels, not negative, whose samples have no weight in the loss."""
    if loss.reference is None or not task.classifies:
        return ()
    labels = torch.cat([task.train.y, task.test.y]).unique()
    like = loss.reference.outputs
    parts = labels[labels >= 0].split(_CHUNK)
    none = [part[loss.weights(part, like) < _IGNORED] for part in parts]
    return tuple(int(label) for part in none for label in part)


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
    _check_slope(said, made, outputs, targets)
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


def _check_slope(said: str, loss: FittedLoss, f: Tensor, y: Tensor) -> None:
    """Refuse a loss that changes with the outputs and has no gradient there."""
    rows = f.detach().clone().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(loss(rows, y), rows)
    if bool(slope.any()) or bool(slope.isnan().any()):
        return
    # At a minimum the loss rises to both sides; along a slope it rises to one.
    source = torch.Generator().manual_seed(0)
    away = torch.randn(f.shape, generator=source, dtype=torch.float32).to(f)
    away *= _AWAY * f.abs().amax().clamp_min(1.0)
    here, up, down = (float(loss(part, y)) for part in (f, f + away, f - away))
    change, rounding = abs(up - here) + abs(down - here), 20 * torch.finfo(f.dtype).eps * abs(here)
    if change > rounding and abs(up - down) > 0.5 * change:
        raise ValueError(
            f"{said} changes with the outputs, and its gradient in them is 0 (a part of it is "
            "detached or rounded), so nothing would be learned; return a differentiable mean over "
            "samples"
        )


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


def _of_kind(said: str, loss: FittedLoss, f: Tensor, y: Tensor, more: Tensor) -> FittedLoss:
    """Tell a mean from a weighted mean, and refuse what is neither."""
    if len(f) < 2:
        return loss
    size = max(1, min(_CHUNK, _NUMBERS // f[0].numel()))
    # The outputs f stand beside the further targets, too: a loss is a function of both.
    parts = [y, *(torch.cat([y[:_SPREAD], part]) for part in more.split(size) if len(part))]
    probes = [(f[torch.arange(len(part), device=f.device) % len(f)], part) for part in parts]
    judged = [_judged(said, loss, *probe) for probe in probes]
    weighted = next((made for made in judged if made.reference is not None), None)
    if weighted is None:
        return loss
    for made, probe in zip(judged, probes, strict=True):
        if made is not weighted and not _Probe(loss, *probe).is_mean_of(weighted):
            raise _Probe(loss, *probe).refusal(said)
    return weighted


def _judged(said: str, loss: FittedLoss, f: Tensor, y: Tensor) -> FittedLoss:
    probe = _Probe(loss, f, y)
    if probe.is_mean:
        return loss
    if probe.is_sum:
        raise ValueError(
            f"{said} is the sum over the samples of a batch, so its steps grow with the batch; "
            "return the mean (reduction='mean') and multiply the learning rate by the batch size"
        )
    weighted = _weighted(loss, f, y, probe.slope, probe.alone, probe.slopes)
    if weighted is None or not probe.is_mean_of(weighted):
        raise probe.refusal(said)
    return weighted


class _Probe:
    """A loss on some samples together, and on each alone."""

    def __init__(self, loss: FittedLoss, f: Tensor, y: Tensor) -> None:
        self.loss, self.f, self.y = loss, f, y
        self.slope, self.whole = grad(loss)(f, y), loss(f, y)
        self.alone, self.slopes = _each_alone(loss, f, y)
        kind = f.dtype if loss.dtype is None else loss.dtype
        values = torch.cat([self.whole[None], self.alone])
        if torch.equal(values.float().to(values), values):
            kind = torch.float32  # it rounds to single precision inside, as with outputs.float()
        self._near = 3 * torch.finfo(kind).eps ** 0.5
        self._size = float(self.alone.abs().nan_to_num().max())
        self._steep = float(self.slopes.abs().nan_to_num().max())

    def _same(self, one: Tensor, other: Tensor, scale: float) -> bool:
        near = self._near * max(scale, 1e-30)
        return bool(((one - other).abs() <= near).all())  # NaN is not

    @property
    def is_mean(self) -> bool:
        n = len(self.f)
        return self._same(self.whole, self.alone.mean(), self._size) and self._same(
            self.slope * n, self.slopes, self._steep
        )

    @property
    def is_sum(self) -> bool:
        return self._same(self.whole, self.alone.sum(), self._size * len(self.f)) and self._same(
            self.slope, self.slopes, self._steep
        )

    def is_mean_of(self, weighted: FittedLoss) -> bool:
        f, y, half = self.f, self.y, len(self.f) // 2 + 1
        mixed = f[torch.arange(len(f)).roll(1)]  # outputs that other samples have: in the domain
        for a, b in ((f, y), (f[:half], y[:half]), (mixed, y)):
            mean = weighted.contributions(a, b).sum() / weighted.weights(b, a).sum()
            if not self._same(self.loss(a, b), mean, self._size):
                return False
        return True

    def refusal(self, said: str) -> ValueError:
        return ValueError(
            f"{said} couples the samples of a batch: of {len(self.f)} it is "
            f"{float(self.whole):.4g}, and the mean of each alone {float(self.alone.mean()):.4g}, "
            "nor is it a weighted mean; return a mean over samples, or watch the training with "
            "TransportTracker, which takes any loss of a batch"
        )


def _each_alone(loss: FittedLoss, f: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Losses (n,) and gradients (n, C) of samples that stand alone; NaN where one takes none."""
    made = [_alone(loss, f[i : i + 1], y[i : i + 1]) for i in range(len(f))]
    return torch.stack([value for value, _ in made]), torch.cat([slope for _, slope in made])


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
