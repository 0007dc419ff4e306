"""The spaces of what enters each layer, and gradients projected off them (GPM)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from capacity.networks.flat_model import FlatModel
from capacity.networks.layer_inputs import layer_inputs as entering
from capacity.strategies.terms import Private

_COLUMNS = 4096
"""Most input vectors of a layer behind its space; a convolution has one per patch."""


@dataclass(frozen=True)
class Layer:
    """Where a layer's parameters stand in theta.

    Attributes:
        name: The module's name.
        weight: First index of the weight in theta, or None where it does not train.
        bias: The same for the bias, or None.
        rows: Outputs of the layer.
        columns: Inputs of the layer, without the bias's.
        has_bias: Whether it has a bias, trained or not.
    """

    name: str
    weight: int | None
    bias: int | None
    rows: int
    columns: int
    has_bias: bool


def layers_of(model: FlatModel) -> tuple[Layer, ...]:
    """List the layers whose inputs GPM protects.

    Args:
        model: The network.

    Returns:
        All layers with trainable parameters, in order.

    Raises:
        ValueError: If a trainable parameter belongs to another kind of layer.
    """
    starts, first = {}, 0
    for name, size in model.layout:
        starts[name] = first
        first += size
    found = []
    for name, part in model.layers().items():
        prefix = f"{name}." if name else ""
        own = {key for key, _ in part.named_parameters(recurse=False)}
        if not any(prefix + key in starts for key in own):
            continue
        plain = isinstance(part, nn.Linear) or (isinstance(part, nn.Conv2d) and part.groups == 1)
        if not plain or isinstance(getattr(part, "padding", 0), str):
            raise ValueError(
                f"strategy 'gpm' knows Linear and ungrouped Conv2d layers with numeric padding, "
                f"but model layer {name or '(root)'!r} is a {type(part).__name__} with trainable "
                "parameters; freeze it, or take strategy = 'ogd', which takes any network"
            )
        weight = part.weight
        assert isinstance(weight, Tensor)
        found.append(
            Layer(
                name,
                starts.get(prefix + "weight"),
                starts.get(prefix + "bias"),
                weight.shape[0],
                weight[0].numel(),
                part.bias is not None,
            )
        )
    return tuple(found)


@torch.no_grad()
def layer_inputs(
    model: FlatModel, theta: Tensor, layers: tuple[Layer, ...], x: Tensor
) -> list[Tensor]:
    """Run one replica and collect what its layers get to see.

    Args:
        model: The network.
        theta: Parameters (P,).
        layers: The layers.
        x: Inputs (n, ...).

    Returns:
        Per layer its inputs, patches or vectors (columns [+ 1 for a bias], N).

    Raises:
        ValueError: If a layer is never called.
    """
    parts, seen = model.layers(), entering(model, theta, x)
    found = []
    for layer in layers:
        if layer.name not in seen:
            raise ValueError(
                f"strategy 'gpm' protects what enters each trainable layer, but the model does not "
                f"call its layer {layer.name!r} on a batch; freeze it, or take strategy = 'ogd'"
            )
        part, value = parts[layer.name], seen[layer.name]
        if isinstance(part, nn.Conv2d):
            assert not isinstance(part.padding, str)
            patches = unfold(
                value,
                part.kernel_size,
                dilation=part.dilation,
                padding=part.padding,
                stride=part.stride,
            )
            value = patches.transpose(1, 2)
        columns = value.reshape(-1, value.shape[-1]).T
        if columns.shape[1] > _COLUMNS:
            spread = torch.linspace(
                0, columns.shape[1] - 1, _COLUMNS, device=x.device, dtype=torch.float32
            )
            columns = columns[:, spread.round().long()]
        if layer.has_bias:
            columns = torch.cat([columns, torch.ones_like(columns[:1])])
        found.append(columns)
    return found


def grown(basis: Tensor, columns: Tensor, threshold: float) -> Tensor:
    """Extend a basis until it holds a share of the energy of some vectors.

    Args:
        basis: Orthonormal columns (d, k); k may be 0.
        columns: The vectors (d, N).
        threshold: The share.

    Returns:
        Orthonormal columns (d, k'), k' >= k.
    """
    energy = columns.double().square().sum()
    rest = columns - basis @ (basis.T @ columns)
    rest = rest - basis @ (basis.T @ rest)
    directions, values, _ = torch.linalg.svd(rest.double(), full_matrices=False)
    held = energy - values.square().sum() + values.square().cumsum(0)
    needed = int((held < threshold * energy * (1 - 1e-12)).sum()) + 1
    if float(energy - values.square().sum()) >= threshold * float(energy):
        needed = 0
    needed = min(needed, int((values > 1e-6 * energy.sqrt()).sum()))
    return torch.cat([basis, directions[:, :needed].to(basis)], dim=1)


@dataclass(frozen=True, kw_only=True)
class OffInputs:
    """Per layer [W b] -> [W b] (1 - M M'), M (d, k) an orthonormal basis of its old inputs.

    Attributes:
        layers: The layers.
        bases: Bases per layer (R, d, k), padded with columns of zeros.
    """

    layers: tuple[Layer, ...]
    bases: tuple[Tensor, ...]

    @property
    def private(self) -> Private:
        """The bases by layer."""
        return {layer.name: basis for layer, basis in zip(self.layers, self.bases, strict=True)}

    def apply(self, gradient: Tensor, private: Private) -> Tensor:
        """Project the gradient of one replica.

        Args:
            gradient: The gradient (P,).
            private: The replica's bases.

        Returns:
            The part that leaves the old inputs' images alone (P,).
        """
        pieces: list[tuple[int, Tensor]] = []
        for layer in self.layers:
            table = self._table(layer, gradient)
            basis = private[layer.name]
            off = (table @ basis) @ basis.T
            if layer.weight is not None:
                pieces.append((layer.weight, off[:, : layer.columns].reshape(-1)))
            if layer.bias is not None:
                pieces.append((layer.bias, off[:, -1]))
        pieces.sort(key=lambda piece: piece[0])
        taken = torch.cat([piece for _, piece in pieces])
        return gradient - taken

    @staticmethod
    def _table(layer: Layer, gradient: Tensor) -> Tensor:
        """Read [W b]'s gradient out of theta's; what does not train has none."""
        size = layer.rows * layer.columns
        if layer.weight is None:
            weight = gradient.new_zeros(layer.rows, layer.columns)
        else:
            weight = gradient[layer.weight : layer.weight + size].reshape(layer.rows, -1)
        if not layer.has_bias:
            return weight
        if layer.bias is None:
            bias = gradient.new_zeros(layer.rows)
        else:
            bias = gradient[layer.bias : layer.bias + layer.rows]
        return torch.cat([weight, bias[:, None]], dim=1)
