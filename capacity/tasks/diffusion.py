"""Digits as a diffusion model learns them: predict the noise that was added to an image.

A sample is an image with noise, x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps, and features of the time
u in (0, 1), abar = cos^2(pi u/2); its target is eps. Noise and time are drawn once with the data,
so that they belong to the batch, and a step is a pure function of theta and the batch
(theory.md#diffusion). There is no accuracy: a task has its loss, and the images that it makes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from capacity.base.random_streams import stream
from capacity.recipe.config import TaskStream
from capacity.tasks.assemble import sequence
from capacity.tasks.generation import STEPS, Judge, Network, judged
from capacity.tasks.sampling import holdout, subsample
from capacity.tasks.scenarios import class_groups
from capacity.tasks.sources import DataSource
from capacity.tasks.split import Split
from capacity.tasks.task import Task, TaskSequence

CLASSES, PIXELS, SHADES = 10, 64, 16
FREQUENCIES = 4
"""Cosines and sines that tell a network the time."""
DRAWS = 16
"""Noisy versions of every image."""
DRAWN, STRIP = 256, 16
"""Images that are judged, and those among them that are kept."""
_FEATURES = 32


def noisy(x: Tensor, u: Tensor, noise: Tensor) -> Tensor:
    """Add noise to images.

    Args:
        x: Images (n, 64), scaled to [-1, 1].
        u: Times in (0, 1) (n,).
        noise: Standard normal (n, 64).

    Returns:
        Inputs of a denoiser (n, 72).
    """
    angle = (0.5 * math.pi * u)[:, None]
    return torch.cat([angle.cos() * x + angle.sin() * noise, times(u)], dim=1)


def times(u: Tensor) -> Tensor:
    """Give features of times (n,), (n, 8)."""
    angles = math.pi * u[:, None] * torch.arange(1, FREQUENCIES + 1, dtype=u.dtype).to(u.device)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


@torch.no_grad()
def generate(network: Network, noise: Tensor, *, steps: int = STEPS) -> Tensor:
    """Draw images by the deterministic sampler of Song et al. (2021, arXiv 2010.02502).

    Args:
        network: The denoiser.
        noise: Where the images start (n, 64).
        steps: Steps from noise to image.

    Returns:
        Images (n, 64), scaled to [-1, 1].
    """
    x, clean = noise, noise
    grid = torch.linspace(0.98, 0.0, steps + 1, dtype=torch.float64).tolist()
    for now, then in pairwise(grid):
        at = torch.full((len(x),), now, dtype=x.dtype, device=x.device)
        eps = network(torch.cat([x, times(at)], dim=1))
        a, b = math.cos(0.5 * math.pi * now), math.sin(0.5 * math.pi * now)
        clean = ((x - b * eps) / a).clamp(-1, 1)
        eps = (x - a * clean) / b
        x = math.cos(0.5 * math.pi * then) * clean + math.sin(0.5 * math.pi * then) * eps
    return clean


@dataclass(frozen=True, eq=False)
class Digits:
    """Draws digits from a denoiser, and judges them.

    Attributes:
        x: Real images of all classes (n, 64), in [-1, 1], which the judge is trained on.
        y: Their classes (n,).
        old: Classes learned before the task.
        new: Classes of the task.
        seed: Of the noise that images start from, the same after every task.
    """

    x: Tensor
    y: Tensor
    old: tuple[int, ...]
    new: tuple[int, ...]
    seed: int

    def judge(self, network: Network, like: Tensor) -> dict[str, Any]:
        """Draw images once the task was learned, and judge them."""
        source = stream(self.seed, "diffusion", "images")
        noise = torch.randn(DRAWN, PIXELS, generator=source, dtype=torch.float32).to(like)
        images = generate(network, noise)
        learned = torch.tensor([*self.old, *self.new])
        real = self.x[torch.isin(self.y, learned)].double().numpy()
        shades = (0.5 * (images[:STRIP] + 1) * SHADES).nan_to_num().round().int()
        made = judged(images, _judge(*self._digits), self.old, real, classes=CLASSES)
        return {"old": list(self.old), "new": list(self.new), "images": shades.tolist(), **made}

    def training_samples(self, network: Network, like: Tensor, count: int, *, seed: int) -> Split:
        """Draw images, and noise on each as on the real ones."""
        source = stream(seed, "diffusion", "training samples")
        noise = torch.randn(count, PIXELS, generator=source, dtype=torch.float32).to(like)
        images = generate(network, noise)
        made = _with_noise(images.float().cpu(), source)
        return Split(made.x.to(like), made.y.to(like))

    @property
    def _digits(self) -> tuple[bytes, bytes]:
        return self.x.double().numpy().tobytes(), self.y.numpy().tobytes()


@cache
def _judge(x: bytes, y: bytes) -> Judge:
    images = np.frombuffer(x).reshape(-1, PIXELS)
    return Judge.trained(images, np.frombuffer(y, dtype=np.int64), width=_FEATURES, seed=0)


def _build(stream_of_tasks: TaskStream) -> TaskSequence:
    from sklearn.datasets import load_digits

    data = load_digits()
    x = torch.from_numpy(data.data).float() / (SHADES / 2) - 1
    y = torch.from_numpy(data.target).long()
    seed = stream_of_tasks.seed
    train, test = holdout(y, stream_of_tasks.test_fraction, seed=seed)
    tasks, old = list[Task](), list[int]()
    for number, group in enumerate(class_groups(stream_of_tasks, CLASSES)):
        wanted = torch.isin(y, torch.tensor(list(group)))
        kept = Split(x[train[wanted[train]]], y[train[wanted[train]]])
        kept = subsample(kept, stream_of_tasks.samples, seed=seed, where=f"task {number}")
        tasks.append(
            Task(
                name=f"{'digit' if len(group) == 1 else 'digits'} {_listed(group)}",
                loss="mse",
                generator=Digits(x[train], y[train], tuple(old), tuple(group), seed),
                train=_drawn(kept.x, seed, number, "train"),
                test=_drawn(x[test[wanted[test]]], seed, number, "test"),
            )
        )
        old += group
    return sequence("diffusion-digits", tasks, "mse", PIXELS)


def _drawn(x: Tensor, seed: int, number: int, part: str) -> Split:
    return _with_noise(x, stream(seed, "diffusion", part, number))


def _with_noise(x: Tensor, source: torch.Generator) -> Split:
    """Draw times, spread evenly, and noise for every image."""
    many = x.repeat(DRAWS, 1)
    place = (
        torch.arange(len(many)) + torch.rand(len(many), generator=source, dtype=torch.float32)
    ) / len(many)
    u = place[torch.randperm(len(many), generator=source)].float()
    noise = torch.randn(many.shape, generator=source, dtype=torch.float32)
    return Split(noisy(many, u, noise), noise)


def _listed(group: Sequence[int]) -> str:
    return ", ".join(map(str, group))


SOURCE = DataSource(
    scenarios=("split",),
    classes=CLASSES,
    takes=("samples", "test_fraction"),
    downloads=False,
    build=_build,
)
