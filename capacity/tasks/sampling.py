"""Which samples are kept: seeded, in the classes' own proportions, and never without a class."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from capacity.tasks.split import Split, is_labels


def subsample(split: Split, count: int | None, *, seed: int, where: str) -> Split:
    """Keep some samples, with every class in its own proportion.

    Args:
        split: The samples.
        count: Most samples to keep; None keeps all.
        seed: Seed of the choice.
        where: Name of the split, for the message.

    Returns:
        A split of min(n, count) samples in their order.
    """
    if count is None or count >= len(split):
        return split
    kept = torch.from_numpy(subsample_index(split.y, count, seed=seed, where=where))
    return split.take(kept)


def subsample_index(labels: Tensor, count: int | None, *, seed: int, where: str) -> np.ndarray:
    """Choose samples by their labels alone, so that the rest need not be read.

    Args:
        labels: Class indices (n,), or values of a regression (n, ...), which are not balanced.
        count: Most samples to keep; None keeps all.
        seed: Seed of the choice.
        where: Name of the split, for the message.

    Returns:
        Indices of min(n, count) samples, ascending.

    Raises:
        ValueError: If so few samples would leave a class without any.
    """
    size = len(labels)
    if count is None or count >= size:
        return np.arange(size)
    order = np.random.default_rng((seed, 1)).permutation(size)
    if labels.is_floating_point():
        return np.sort(order[:count])
    classes = len(labels.unique())
    if count < classes:
        raise ValueError(
            f"samples = {count} is too few for {where} with {classes} classes; "
            f"take at least {classes}, or None for all"
        )
    # Ranked within its class and scaled by the class size, any first part of this order holds the
    # classes in proportion, and the first ranks (all 0) put one of each class in front.
    y = labels.numpy()[order]
    place = np.empty(size)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        place[members] = np.arange(len(members)) / len(members)
    return np.sort(order[np.argsort(place, kind="stable")[:count]])


def holdout(
    labels: Tensor, fraction: float, *, seed: int, keys: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Split samples into training and test, class by class.

    Args:
        labels: Class indices (n,), or targets of another kind (n, ...), which are not balanced.
        fraction: Share of each class held out, rounded; at least one sample of it, and never the
            last one.
        seed: Seed of the choice.
        keys: One number per sample (n,), alike for copies of one sample (as a sampler with
            replacement draws them), which go together; None takes all samples for different ones.

    Returns:
        Indices of the training and of the test samples, ascending; none of the latter where each
        class has but one sample.
    """
    if keys is not None:
        _, first, copy_of = np.unique(keys.cpu().numpy(), return_index=True, return_inverse=True)
        if len(first) < len(labels):
            order = np.sort(first)
            _, out = holdout(labels[torch.from_numpy(order)], fraction, seed=seed)
            test = np.isin(first[copy_of], order[out.numpy()])
            return _parted(test)
    random = np.random.default_rng((seed, 0))
    group = labels.cpu().numpy() if is_labels(labels) else np.zeros(len(labels))
    test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(group):
        members = random.permutation(np.flatnonzero(group == label))
        held = min(max(round(fraction * len(members)), 1), len(members) - 1)
        test[members[:held]] = True
    return _parted(test)


def _parted(test: np.ndarray) -> tuple[Tensor, Tensor]:
    chosen = torch.from_numpy(test)
    return torch.nonzero(~chosen).flatten(), torch.nonzero(chosen).flatten()
