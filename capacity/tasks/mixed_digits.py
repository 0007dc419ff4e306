"""Six tasks on one set of images that differ from the first in six ways, and are forgotten so.

Shifts of the domain leave the labels; a class split and a swap of labels leave the images; permuted
pixels have nothing to do with any of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from capacity.recipe.config import TaskStream

SIDE = 8
MIXED = (
    "all digits",
    "noisy pixels",
    "rotated 30 degrees",
    "digits 5-9 only",
    "labels swapped",
    "permuted pixels",
)
"""Names of the tasks, in their order."""

_NOISE = 0.35
_SWAPPED = {1: 7, 7: 1, 3: 8, 8: 3}


class Variant(NamedTuple):
    """Images and labels of one task, before training and test samples are told apart.

    Attributes:
        x: Pixels in [0, 1] (N, 64), in the order of the data set.
        y: Labels (N,).
        classes: Labels that the task has.
    """

    x: Tensor
    y: Tensor
    classes: tuple[int, ...]


def mixed(stream: TaskStream, x: Tensor, y: Tensor) -> list[Variant]:
    """Make the tasks of the mixed scenario.

    Args:
        stream: A recipe's `tasks` section; its seed draws the noise and the permutation.
        x: Pixels in [0, 1] (N, 64).
        y: Labels (N,).

    Returns:
        The first `experiences` of the six.
    """
    random = np.random.default_rng((stream.seed, 3))
    noise = torch.from_numpy(random.normal(0.0, _NOISE, x.shape)).float()
    order = torch.from_numpy(random.permutation(x.shape[1]))
    every = tuple(range(10))
    swapped = torch.tensor([_SWAPPED.get(label, label) for label in every])
    made = [
        Variant(x, y, every),
        Variant((x + noise).clamp(0.0, 1.0), y, every),
        Variant(rotated(x, 30.0), y, every),
        Variant(x, y, every[5:]),
        Variant(x, swapped[y], every),
        Variant(x[:, order], y, every),
    ]
    return made[: stream.experiences]


def rotated(x: Tensor, angle: float) -> Tensor:
    """Rotate images.

    Args:
        x: Pixels in [0, 1] (N, 64).
        angle: Degrees, counter-clockwise.

    Returns:
        The same, rotated; corners that come from outside are 0.
    """
    if angle == 0:
        return x
    from scipy import ndimage

    images = x.numpy().reshape(-1, SIDE, SIDE)
    # Linear interpolation: higher orders overshoot and would leave [0, 1].
    turned = ndimage.rotate(images, angle, axes=(1, 2), reshape=False, order=1)
    return torch.from_numpy(turned.reshape(len(x), -1)).clamp(0.0, 1.0)
