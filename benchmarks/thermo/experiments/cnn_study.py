"""Networks against their speed limit, after Seroussi et al., arXiv 2307.14653, fig. 1.

A convolutional network of five trainable layers (four 3 x 3 convolutions of stride 2, one linear
head), or a fully connected one of three; ReLU, He-normal weights, mean half squared error on
one-hot targets, full-batch gradient descent with small steps. Measured per initialisation, where W2
is exact: the loss over training; T dL/|d theta|^2, which steps as small as these keep close to the
inefficiency (both are recorded, every step in the package's one meter), from the initialisation
(cold) and from where the loss has halved (warm); the same over the size of the data set; the length
of the curve over its chord; and the tangent kernel at both starts, with the residue's overlap and
what the kernel alone predicts.

Digits by default. `--data cifar10` takes CIFAR-10 through capacity's own loader (it downloads, or
reads a copy in `--root`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from kernel_view import KernelView, compared, kernel_view, predicted_flow
from thermo_training import digits, first_samples, one_hot_task
from torch import Tensor, nn

from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import TaskStream, Training
from capacity.records.estimate import Estimate, from_samples
from capacity.tasks import build_tasks
from capacity.tasks.task import Split, Task
from capacity.thermo.action import ActionMeter, checked_ratio
from capacity.thermo.path import PathObserver
from capacity.training.data_order import DataOrder
from capacity.training.steps import Step
from capacity.training.train import train

CHANNELS = 16
WIDTH = 64
CNN, FCN = "cnn", "fcn"
COLD, WARM = "cold start", "warm start"
SIZES = (50, 100, 200, 400)
FULLY_CONNECTED = {"kind": FCN, "sizes": (50, 100, 200), "lr": 0.002, "steps": 2500}
"""How the fully connected network is measured: its kernel is larger, its steps are shorter."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What training has cost by one moment, over initialisations.

    Attributes:
        time: Learning time since the start that is counted from.
        by_drop: T dL/|d theta|^2.
        of_path: T sum |d theta_k|^2/lr / |d theta|^2.
        length_ratio: Curve length over chord.
        loss: Mean training loss.
    """

    time: float
    by_drop: Estimate
    of_path: Estimate
    length_ratio: Estimate
    loss: Estimate


@dataclass(frozen=True, kw_only=True)
class Size:
    """Training on one number of samples.

    Attributes:
        samples: n.
        end: At the end.
        quarter: When the mean loss had fallen to a quarter; None if it never did.
    """

    samples: int
    end: Moment
    quarter: Moment | None


@dataclass(frozen=True, kw_only=True)
class Held:
    """One quantity, by the kernel at the start and as it came, over the whole stretch.

    Attributes:
        name: Which.
        predicted: By the kernel.
        measured: Of the path.
        ratio: Predicted over measured.
    """

    name: str
    predicted: Estimate
    measured: Estimate
    ratio: Estimate


@dataclass(frozen=True, kw_only=True)
class Start:
    """A stretch of training from one start, and the kernel there.

    Attributes:
        name: Cold or warm.
        began: Learning time of the start.
        moments: Inefficiency and the rest over the stretch.
        predicted: Inefficiency by the kernel at the same times.
        held: Predicted against measured over the whole stretch.
        ranks: Modes k, for the next two.
        eigenvalues: Of Theta/n at k, mean over initialisations.
        overlap: Share of the squared residue in the first k modes.
        trace_share: Share of the kernel's trace in the first k modes.
        half_modes: Modes that hold half of the squared residue.
    """

    name: str
    began: float
    moments: list[Moment]
    predicted: list[Estimate]
    held: list[Held]
    ranks: list[int]
    eigenvalues: list[float]
    overlap: list[Estimate]
    trace_share: list[Estimate]
    half_modes: Estimate


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that is printed and drawn.

    Attributes:
        data: Name of the data set.
        parameters: P.
        replicas: Initialisations.
        lr: Learning rate.
        learning_time: T of every run.
        kernel_samples: n of the run whose kernel is taken apart.
        starts: Cold, then warm, on `kernel_samples`.
        sizes: By number of samples.
        network: Of which kind.
    """

    data: str
    parameters: int
    replicas: int
    lr: float
    learning_time: float
    kernel_samples: int
    starts: list[Start]
    sizes: list[Size]
    network: str = CNN


def images(data: str = "digits", *, samples: int = max(SIZES), root: str | None = None) -> Task:
    """Load a data set as images with one-hot targets."""
    if data == "digits":
        flat = one_hot_task(digits())
        mean, deviation = flat.train.x.mean(), flat.train.x.std()

        def square(split: Split) -> Split:
            return Split(((split.x - mean) / deviation).view(-1, 1, 8, 8), split.y)

        return Task(name=data, train=square(flat.train), test=square(flat.test), loss="mse")
    stream = TaskStream(dataset="cifar10", experiences=1, samples=samples, root=root)
    return one_hot_task(build_tasks(stream)[0])


def network(shape: Sequence[int], seed: int, *, channels: int = CHANNELS) -> nn.Module:
    """Four convolutions and a linear head; biases 0, the head's weights of variance 1/fan-in."""
    generator = torch.Generator().manual_seed(seed)
    before, height, width = shape
    layers: list[nn.Module] = []
    for _ in range(4):
        conv = nn.Conv2d(before, channels, kernel_size=3, stride=2, padding=1)
        nn.init.normal_(conv.weight, 0, (2 / (9 * before)) ** 0.5, generator=generator)
        nn.init.zeros_(conv.bias)
        layers += [conv, nn.ReLU()]
        before, height, width = channels, (height + 1) // 2, (width + 1) // 2
    head = nn.Linear(channels * height * width, 10)
    nn.init.normal_(head.weight, 0, head.in_features**-0.5, generator=generator)
    nn.init.zeros_(head.bias)
    return nn.Sequential(*layers, nn.Flatten(), head)


def fully_connected(shape: Sequence[int], seed: int, *, width: int = WIDTH) -> nn.Module:
    """Two hidden layers and a linear head, drawn as in `network`."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = [nn.Flatten()]
    before = math.prod(shape)
    for after, gain in ((width, 2), (width, 2), (10, 1)):
        linear = nn.Linear(before, after)
        nn.init.normal_(linear.weight, 0, (gain / before) ** 0.5, generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
        before = after
    return nn.Sequential(*layers[:-1])


def measured(
    task: Task | None = None,
    *,
    kind: str = CNN,
    data: str = "digits",
    sizes: Sequence[int] = SIZES,
    kernel_samples: int = 100,
    count: int = 5,
    lr: float = 0.005,
    steps: int = 6000,
) -> Findings:
    """Train on every number of samples, and take the kernel of one of them apart."""
    task = images(data) if task is None else task
    shape = tuple(task.train.x.shape[1:])
    build = {CNN: network, FCN: fully_connected}[kind]
    nets = [FlatModel(build(shape, seed)) for seed in range(count)]
    model, theta = nets[0], torch.stack([net.initial() for net in nets])
    starts: list[Start] = []
    found: list[Size] = []
    for samples in sizes:
        part = first_samples(task, samples)
        cold = Track(steps=steps)
        halved = WarmTrack(steps=steps)
        print(f"{samples} samples", file=sys.stderr)
        end = descend(model, theta, part, lr=lr, steps=steps, tracks=[cold, halved])
        found.append(Size(samples=samples, end=cold.moments[-1], quarter=cold.quarter))
        if samples == kernel_samples:
            starts = [
                taken_apart(model, part, track, end, name)
                for name, track in ((COLD, cold), (WARM, halved))
            ]
    return Findings(
        data=data,
        parameters=model.size,
        replicas=count,
        lr=lr,
        learning_time=lr * steps,
        kernel_samples=kernel_samples,
        starts=starts,
        sizes=found,
        network=kind,
    )


class Track:
    """Watches a stretch of full-batch training at moments that spread over its logarithm."""

    def __init__(self, *, steps: int, moments: int = 36) -> None:
        self._at = {round(steps ** (k / moments)) for k in range(moments)}
        self.moments: list[Moment] = []
        self.quarter: Moment | None = None
        self.path = PathObserver()
        self.start: Tensor | None = None
        self.began = 0.0
        self._meter = ActionMeter()
        self._first_loss: Tensor | None = None
        self._count = 0

    def observe(self, step: Step) -> None:
        """See one step; what is noted of it is the state before it, whose loss is known."""
        if self.start is None or self._first_loss is None:
            self.start, self._first_loss = step.before[0].clone(), step.loss.double()
        else:
            loss = step.loss.double()
            if self._count in self._at:
                self.moments.append(self._moment(step.before[0], loss))
            if self.quarter is None and float(loss.mean()) <= float(self._first_loss.mean()) / 4:
                self.quarter = self._moment(step.before[0], loss)
        self._meter.add(step.lr, step.before[0], step.after[0])
        self._count += 1
        self.path.observe(step)

    def close(self, theta: Tensor, loss: Tensor) -> None:
        """Note the end."""
        self.moments.append(self._moment(theta, loss.double()))

    @property
    def first_loss(self) -> Tensor:
        """Loss of every replica at the start (R,)."""
        assert self._first_loss is not None
        return self._first_loss

    def _moment(self, theta: Tensor, loss: Tensor) -> Moment:
        assert self.start is not None
        chord = (theta.double() - self.start.double()).square().sum(-1)
        time = self._meter.time
        return Moment(
            time=time,
            by_drop=_spread(time * (self.first_loss - loss) / chord),
            of_path=_spread(checked_ratio(time, self._meter.action, chord)),
            length_ratio=_spread(self._meter.length / chord.sqrt()),
            loss=_spread(loss),
        )


class WarmTrack(Track):
    """Starts to watch where the mean loss has halved."""

    def __init__(self, *, steps: int) -> None:
        super().__init__(steps=steps)
        self._initial: float | None = None
        self._elapsed = 0.0

    def observe(self, step: Step) -> None:
        """See one step."""
        loss = float(step.loss.mean())
        self._initial = loss if self._initial is None else self._initial
        if self.start is None and loss > 0.5 * self._initial:
            self._elapsed += step.lr
            return
        self.began = self._elapsed
        super().observe(step)


def descend(
    model: FlatModel,
    theta: Tensor,
    task: Task,
    *,
    lr: float,
    steps: int,
    tracks: Sequence[Track],
) -> Tensor:
    """Descend the loss of all samples, and return its value for every replica at the end (R,)."""
    size = len(task.train)
    training = Training(lr=lr, epochs=steps, batch_size=size)
    order = DataOrder(samples=size, batch_size=size, epochs=steps, replicas=len(theta), seed=0)
    phase = train(model, theta, task, training, order, observers=tracks)
    if phase.diverged is not None:
        raise ValueError(f"lr = {lr:g} diverged at step {phase.diverged.step}; take a smaller one")
    loss = evaluate(model, phase.theta, task, task.train).loss
    for track in tracks:
        if track.start is not None:
            track.close(phase.theta, loss)
    return loss


def taken_apart(model: FlatModel, task: Task, track: Track, end_loss: Tensor, name: str) -> Start:
    """Take the kernel at the start of a stretch apart, and hold its predictions against it."""
    if track.start is None:
        raise ValueError("the loss never halved, so there is no warm start; train for longer")
    view = kernel_view(model, track.start, task)
    cost = track.path.cost(track.first_loss, end_loss, plain=True, full=True)
    flows = compared(predicted_flow(view, cost.learning_time), cost)
    ranks = _ranks(view)
    at = torch.tensor(ranks) - 1
    trace = view.eigenvalues.cumsum(-1) / view.eigenvalues.sum(-1, keepdim=True)
    return Start(
        name=name,
        began=track.began,
        moments=track.moments,
        predicted=[predicted_flow(view, m.time).inefficiency for m in track.moments],
        held=[
            Held(name=f.name, predicted=f.predicted, measured=f.measured, ratio=f.ratio)
            for f in flows
        ],
        ranks=ranks,
        eigenvalues=view.eigenvalues.mean(0)[at].tolist(),
        overlap=[_spread(column) for column in view.overlap()[:, at].T],
        trace_share=[_spread(column) for column in trace[:, at].T],
        half_modes=view.modes_holding(0.5),
    )


def _ranks(view: KernelView) -> list[int]:
    modes = view.eigenvalues.shape[-1]
    return sorted({round(modes ** (k / 30)) for k in range(31)})


def _spread(values: Tensor) -> Estimate:
    # The first step's path is its chord: what rounding makes of it is no uncertainty.
    return from_samples([round(value, 9) for value in values.double().tolist()])
