"""What a generative network makes, judged by a classifier that has seen the real thing.

A task with a generator says how samples are drawn from the network that learned it. A classifier,
trained once on real samples and kept, says of what class each is; a Frechet distance in its
features says how far the samples as a whole are from the real ones (theory.md#diffusion).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from capacity.records.estimate import Estimate, from_error, not_defined
from capacity.records.jackknife import jackknife
from capacity.tasks.split import Split

Network = Callable[[Tensor], Tensor]
"""Inputs (n, ...) to outputs (n, n_outputs) of a network as it now is."""

STEPS = 20
"""Runs of a network behind a sample that is drawn from it."""
_GROUPS = 8
"""Parts that are left out in turn for the error of a distance."""


class Generator(Protocol):
    """How samples are drawn from the network that learns a task, and what is said of them."""

    def judge(self, network: Network, like: Tensor) -> dict[str, Any]:
        """Draw samples once the task was learned, and judge them.

        Args:
            network: The network as it now is.
            like: A tensor on the network's device, in its precision.

        Returns:
            A record for `result.json`: `Generation` of `capacity.results.schema`.
        """

    def training_samples(self, network: Network, like: Tensor, count: int, *, seed: int) -> Split:
        """Draw samples as a training takes them, of all that the network has learned.

        Args:
            network: The network as it now is.
            like: A tensor on the network's device, in its precision.
            count: Samples to draw.
            seed: Of the draws.

        Returns:
            Inputs and targets, as those of the tasks, one row or more of each sample.
        """


@dataclass(frozen=True, eq=False)
class Judge:
    """A fixed classifier: one hidden layer.

    Attributes:
        weights: Of the two layers, float64.
        biases: Of the two layers, float64.
    """

    weights: tuple[np.ndarray, np.ndarray]
    biases: tuple[np.ndarray, np.ndarray]

    @classmethod
    def trained(cls, x: np.ndarray, y: np.ndarray, *, width: int, seed: int) -> Judge:
        """Train it.

        Args:
            x: Real samples (n, d).
            y: Their classes (n,), from 0 without gaps.
            width: Features.
            seed: Of its initialisation.

        Returns:
            The classifier; the same samples give the same one.
        """
        from sklearn.neural_network import MLPClassifier

        made = MLPClassifier((width,), solver="lbfgs", alpha=0.1, max_iter=400, random_state=seed)
        made.fit(x, y)
        return cls(tuple(made.coefs_), tuple(made.intercepts_))

    def features(self, x: np.ndarray) -> np.ndarray:
        """Give the hidden layer (n, width) of samples (n, d)."""
        hidden: np.ndarray = np.maximum(x @ self.weights[0] + self.biases[0], 0)
        return hidden

    def classes(self, x: np.ndarray) -> np.ndarray:
        """Classify samples (n, d); (n,)."""
        scores: np.ndarray = self.features(x) @ self.weights[1] + self.biases[1]
        return scores.argmax(1)


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Squared Frechet (Wasserstein-2) distance between Gaussians of two samples' moments.

    Args:
        one: Features (n, d).
        other: Features (m, d).

    Returns:
        |dmu|^2 + tr(S + R - 2 (S R)^{1/2}), at least 0. The moments of few samples make it larger.
    """
    away = np.square(one.mean(0) - other.mean(0)).sum()
    s, r = np.cov(one.T), np.cov(other.T)
    # tr (S R)^{1/2} is the sum of the singular values of S^{1/2} R^{1/2}.
    cross = np.linalg.norm(_root(s) @ _root(r), "nuc")
    return max(float(away + np.trace(s) + np.trace(r) - 2 * cross), 0.0)


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    made: np.ndarray = vectors * np.sqrt(values.clip(0)) @ vectors.T
    return made


def judged(
    samples: Tensor,
    judge: Judge,
    old: Sequence[int],
    real: np.ndarray,
    *,
    classes: int,
) -> dict[str, Any]:
    """Say of what class samples are, and how far from the real ones.

    Args:
        samples: What was drawn (n, d).
        judge: The classifier.
        old: Classes that were learned before the last task.
        real: Real samples of the classes learned (m, d).
        classes: Classes that there are.

    Returns:
        Estimates by name, and the share of every class.
    """
    x = samples.double().cpu().numpy()
    if not np.isfinite(x).all():
        none = not_defined("Samples of this network are not finite.").to_dict()
        return {"shares": [0.0] * classes, "share_old": none, "frechet": none}
    counts = np.bincount(judge.classes(x), minlength=classes) / len(x)
    share = float(counts[list(old)].sum())
    spread = math.sqrt(share * (1 - share) / len(x))
    told: Estimate = (
        from_error(share, spread, n=len(x))
        if old
        else not_defined("There is no old class after the first task.")
    )
    return {
        "shares": counts.tolist(),
        "share_old": told.to_dict(),
        "frechet": _distance(judge.features(x), judge.features(real)).to_dict(),
    }


def _distance(made: np.ndarray, real: np.ndarray) -> Estimate:
    parts = np.array_split(np.arange(len(made)), _GROUPS)
    without = [frechet_distance(np.delete(made, part, axis=0), real) for part in parts]
    return jackknife(frechet_distance(made, real), without)
