"""The networks that a recipe can name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn

from capacity.base.checks import fits_in_memory, one_of, positive_int
from capacity.networks.pretrained import pretrained
from capacity.networks.vision_transformer import VisionTransformer
from capacity.recipe.config import Model

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
}


def build_model(model: Model, input_shape: Sequence[int], n_outputs: int, seed: int) -> nn.Module:
    """Build and initialise a network.

    `mlp` flattens its inputs and has one hidden layer per entry of `hidden`. `cnn` takes inputs
    (C, H, W) of any size: one 3 x 3 convolution of stride 2 per entry of `hidden`, each halving
    height and width (rounded up), then a linear head on what is left. `vit` is a small vision
    transformer with one block per entry of `hidden`, all of one width. None looks at its batch, so
    a training step is a function of (theta, batch) alone. `pretrained` loads a transformer, with a
    new head, and adapters where the recipe says so.

    The parameters are torch's default initialisation, drawn on the CPU from the seed alone: they
    do not depend on, nor change, the global random state.

    Args:
        model: The recipe's `model` section.
        input_shape: Shape of one input, without the batch.
        n_outputs: Width of the output.
        seed: Seed of the initialisation.

    Returns:
        The network, on the CPU, in training mode.

    Raises:
        ValueError: If the kind is `custom` or unknown, a size is no count, or a cnn meets inputs
            that are no images.
    """
    if model.kind == "custom":
        raise ValueError(
            "model.kind = 'custom' means that the model comes through the Python API: pass a "
            "torch.nn.Module as model=...; accepted in a recipe: mlp, cnn, vit, pretrained"
        )
    one_of("model.kind", model.kind, ("mlp", "cnn", "vit", "pretrained"))
    shape = tuple(positive_int("input_shape", size) for size in input_shape)
    positive_int("n_outputs", n_outputs)
    positive_int("seed", seed, minimum=0)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # torch.manual_seed would also reseed the GPUs, which the fork does not put back.
        torch.default_generator.manual_seed(seed)
        if model.kind == "pretrained":
            return pretrained(model, n_outputs)
        return _BUILDERS[model.kind](model, shape, n_outputs)


def _mlp(model: Model, shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    widths = (math.prod(shape), *model.hidden)
    weights = sum(a * b for a, b in pairwise((*widths, n_outputs)))
    fits_in_memory("model.hidden", list(model.hidden), weights)
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), ACTIVATIONS[model.activation]()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], n_outputs))


def _cnn(model: Model, shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    if len(shape) != 3:
        raise ValueError(
            f"model.kind = 'cnn' takes inputs (channels, height, width), but the tasks' inputs "
            f"have shape {shape}; use model.kind=mlp or reshape the inputs"
        )
    if not model.hidden:
        raise ValueError(
            "model.hidden = () leaves a cnn without convolutions; give at least one number of "
            "channels, as model.hidden=[16]"
        )
    channels, height, width = shape
    weights = 9 * sum(a * b for a, b in pairwise((channels, *model.hidden)))
    fits_in_memory("model.hidden", list(model.hidden), weights)
    layers: list[nn.Module] = []
    for before, after in pairwise((channels, *model.hidden)):
        layers += [
            nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1),
            ACTIVATIONS[model.activation](),
        ]
        height, width = (height + 1) // 2, (width + 1) // 2
    size = model.hidden[-1] * height * width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(size, n_outputs))


def _vit(model: Model, shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    if len(set(model.hidden)) != 1:
        raise ValueError(
            f"model.hidden = {list(model.hidden)} gives the blocks of a vit no one width; give as "
            "many equal numbers as it shall have blocks, as model.hidden=[16, 16]"
        )
    width, depth = model.hidden[0], len(model.hidden)
    fits_in_memory("model.hidden", list(model.hidden), 8 * depth * width**2)
    return VisionTransformer(shape, width, depth, n_outputs)


_BUILDERS = {"mlp": _mlp, "cnn": _cnn, "vit": _vit}
