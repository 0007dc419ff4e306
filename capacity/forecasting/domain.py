"""Where earlier transitions speak of a new forecast: what network it is, and how near they are.

A calibration holds for cases like those that it was fitted on. Like is what the engine itself sees:
a forecast is a point in the space of what a correction may look at (`corrector.features`), each
number over its spread among the earlier transitions. A point is inside where its nearest neighbours
are no further than those of 95 % of the earlier transitions, with the whole pair of tasks that
these belong to left out: near copies of itself speak for nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from capacity.forecasting.corrector import FEATURES, features
from capacity.networks.flat_model import FlatModel

NEIGHBOURS = 5
"""Earlier transitions whose mean distance counts."""
INSIDE = 0.95
"""Share of the earlier transitions that count as inside, seen from other pairs."""

_LINEAR, _CONVOLUTION = {"linear"}, {"conv1d", "conv2d", "conv3d"}
_ATTENTION = {"scaled_dot_product_attention", "multi_head_attention_forward", "softmax"}
_STRUCTURE = {
    "batch_norm", "group_norm", "instance_norm", "local_response_norm", "rms_norm", "embedding",
    "lstm", "gru", "rnn_tanh", "rnn_relu", "bilinear", "spectral_norm", "einsum",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "tensordot",
}  # fmt: skip


class _Calls(TorchFunctionMode):
    """Notes which functions of torch a network calls."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = resolve_name(func) or getattr(func, "__name__", "")
        self.names.add(name.rsplit(".", 1)[-1])
        return func(*args, **(kwargs or {}))


def architecture_of(model: FlatModel, theta: Tensor, x: Tensor) -> str:
    """Say which kind of network one is, by what it calls.

    Args:
        model: The network.
        theta: Its parameters (P,).
        x: One input or more (n, ...).

    Returns:
        `mlp`, `cnn` or `transformer`; else what it calls beside them, for people.
    """
    calls = _Calls()
    with torch.no_grad(), calls:
        model.outputs(theta, x[:1])
    used = calls.names
    strange = sorted(used & _STRUCTURE)
    convolves, attends = bool(used & _CONVOLUTION), bool(used & _ATTENTION)
    if "layer_norm" in used and not attends:
        strange.append("layer_norm")
    if convolves and attends:
        strange.append("attention over convolutions")
    if strange or not used & (_LINEAR | _CONVOLUTION | _ATTENTION):
        return f"network with {', '.join(strange) or 'none of linear layers and convolutions'}"
    return "transformer" if attends else "cnn" if convolves else "mlp"


class Domain:
    """The region of forecasts that some earlier transitions speak of.

    Args:
        rows: Their numbers, `pair` among them.
        strategies: Strategies to tell apart.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], strategies: Sequence[str]) -> None:
        self._strategies = tuple(strategies)
        self._names = (*FEATURES, *(f"strategy {name}" for name in strategies))
        made = np.array([features(row, self._strategies) for row in rows])
        spread = made.std(0)
        # What never varied says nothing: it may not differ at all, and counts in its own unit.
        self._scale = np.where(spread > 1e-9, spread, 1.0)
        self._points = made / self._scale
        pairs = np.unique([row["pair"] for row in rows], return_inverse=True)[1]
        own = np.array([
            self._nearest(point, pairs != pair)[0]
            for point, pair in zip(self._points, pairs, strict=True)
        ])
        self.radius = float(np.quantile(own, INSIDE))
        """Mean distance of the nearest neighbours up to which a point is inside."""

    def distance(self, row: Mapping[str, Any]) -> float:
        """Measure how far a forecast is from the earlier transitions.

        Args:
            row: Its numbers, as `corpus.numbers` gives them.

        Returns:
            Mean distance of its nearest neighbours, in spreads.
        """
        return self._nearest(self._of(row), None)[0]

    def why_outside(self, row: Mapping[str, Any]) -> str | None:
        """Say why a forecast is not like the earlier transitions.

        Args:
            row: Its numbers, as `corpus.numbers` gives them.

        Returns:
            The reason, for people; None where it is like them.
        """
        point = self._of(row)
        distance, near = self._nearest(point, None)
        if distance <= self.radius:
            return None
        off = np.abs(point - self._points[near].mean(0))
        furthest = [self._names[k].replace("_", " ") for k in np.argsort(-off)[:2]]
        return (
            f"the nearest of {len(self._points)} earlier transitions are {distance:.2g} spreads "
            f"away, beyond the {self.radius:.2g} within which {100 * INSIDE:.0f} % of them lie, "
            f"most of all in {' and '.join(furthest)}"
        )

    def _of(self, row: Mapping[str, Any]) -> NDArray[np.float64]:
        return np.array(features(row, self._strategies)) / self._scale

    def _nearest(
        self, point: NDArray[np.float64], allowed: NDArray[np.bool_] | None
    ) -> tuple[float, NDArray[np.intp]]:
        squared = np.square(self._points - point).sum(1)
        if allowed is not None:
            squared = np.where(allowed, squared, np.inf)
        near = np.argsort(squared)[:NEIGHBOURS]
        return float(np.sqrt(squared[near]).mean()), near
