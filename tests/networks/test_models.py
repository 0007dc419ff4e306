"""The networks of the recipes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from capacity.networks.models import build_model
from capacity.recipe.config import Model


def theta(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_mlp_flattens_and_has_the_layers_asked_for():
    model = build_model(Model(hidden=(5, 7)), (1, 4, 3), 6, 0)
    shapes = [tuple(p.shape) for p in model.parameters()]
    assert shapes == [(5, 12), (5,), (7, 5), (7,), (6, 7), (6,)]
    assert model(torch.zeros(2, 1, 4, 3)).shape == (2, 6)


def test_mlp_without_hidden_layers_is_linear():
    model = build_model(Model(hidden=()), (4,), 3, 0)
    x = torch.randn(5, 4)
    torch.testing.assert_close(model(2 * x) - model(x), model(x) - model(0 * x))
    assert theta(model).numel() == 4 * 3 + 3


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 32, 32), (2, 5, 9), (1, 28, 28)])
def test_cnn_takes_images_of_any_size(shape):
    model = build_model(Model(kind="cnn", hidden=(4, 6)), shape, 7, 0)
    assert model(torch.randn(3, *shape)).shape == (3, 7)
    assert [m.stride for m in model if isinstance(m, nn.Conv2d)] == [(2, 2), (2, 2)]


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
@pytest.mark.parametrize(
    ("activation", "layer"), [("relu", nn.ReLU), ("tanh", nn.Tanh), ("gelu", nn.GELU)]
)
def test_activation_follows_every_hidden_layer(kind, activation, layer):
    model = build_model(Model(kind=kind, hidden=(3, 4), activation=activation), (1, 8, 8), 2, 0)
    assert sum(isinstance(part, layer) for part in model) == 2


@pytest.mark.parametrize("shape", [(64,), (1, 8, 8), (3, 17, 30), (1, 3, 3)])
def test_vit_takes_images_of_any_size(shape):
    model = build_model(Model(kind="vit", hidden=(8, 8)), shape, 7, 0)
    assert model(torch.randn(3, *shape)).shape == (3, 7)
    assert len(model.blocks) == 2


def test_vit_sees_patches_and_where_they_are():
    """A token is a patch of 2 x 2: which pixels move it, and that their places tell apart."""
    model = build_model(Model(kind="vit", hidden=(8,)), (1, 8, 8), 3, 0).double()
    tokens = []
    model.embed.register_forward_hook(lambda *call: tokens.append(call[-1]))
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    moved = x.clone()
    moved[0, 0, 2:4, 6:8] += 1  # the second row of patches, the last of four
    first, second = model(x), model(moved)
    changed = (tokens[0] != tokens[1]).any(-1)[0].nonzero().flatten().tolist()
    assert changed == [7]
    assert not torch.allclose(first, second)
    assert not torch.allclose(first, model(x.flip(3)))


@pytest.mark.parametrize(
    ("hidden", "shape", "said"),
    [
        ((8, 12), (64,), r"give as many equal numbers"),
        ((6,), (64,), r"6 is no multiple of 4.*model\.hidden=\[8\]"),
        ((8,), (63,), r"takes inputs \(channels, height, width\)"),
    ],
)
def test_what_is_no_vit_is_refused(hidden, shape, said):
    with pytest.raises(ValueError, match=said):
        build_model(Model(kind="vit", hidden=hidden), shape, 2, 0)


@pytest.mark.parametrize("kind", ["mlp", "cnn", "vit"])
def test_parameters_depend_on_the_seed_alone(kind):
    torch.manual_seed(1)
    model = Model(kind=kind, hidden=(4,))
    one = theta(build_model(model, (1, 8, 8), 3, 5))
    torch.manual_seed(2)
    assert torch.equal(one, theta(build_model(model, (1, 8, 8), 3, 5)))
    assert not torch.equal(one, theta(build_model(model, (1, 8, 8), 3, 6)))


def test_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    build_model(Model(), (8,), 3, 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_parameters_are_drawn_on_the_cpu_whatever_the_default_device():
    with torch.device("meta"):
        model = build_model(Model(), (8,), 3, 5)
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert torch.equal(theta(model), theta(build_model(Model(), (8,), 3, 5)))


@pytest.mark.parametrize(
    ("model", "shape", "n_outputs", "seed", "message"),
    [
        (Model(kind="custom"), (8,), 3, 0, "model.kind = 'custom'.*Python API"),
        (Model(kind="cnn"), (64,), 3, 0, r"cnn.*\(channels, height, width\).*\(64,\).*mlp"),
        (Model(kind="cnn", hidden=()), (1, 8, 8), 3, 0, r"hidden = \(\).*model.hidden="),
        (Model(), (8,), 0, 0, "n_outputs = 0"),
        (Model(), (0,), 3, 0, "input_shape = 0"),
        (Model(), (8,), 3, -1, "seed = -1"),
    ],
)
def test_bad_inputs(model, shape, n_outputs, seed, message):
    with pytest.raises(ValueError, match=message):
        build_model(model, shape, n_outputs, seed)
