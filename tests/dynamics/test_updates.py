"""Update maps against torch.optim, step by step on the same gradients."""

from __future__ import annotations

import pytest
import torch

from capacity.config import Training
from capacity.dynamics.updates import from_training

PARITY = {
    "sgd": (torch.optim.SGD, {}, {}),
    "sgd, decay": (torch.optim.SGD, {"weight_decay": 0.1}, {"weight_decay": 0.1}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}, {}),
    "nesterov": (
        torch.optim.SGD,
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
    ),
    "adam": (torch.optim.Adam, {}, {}),
    "adam, decay": (torch.optim.Adam, {"weight_decay": 0.1}, {"weight_decay": 0.1}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}, {"weight_decay": 0.1}),
    "rmsprop": (torch.optim.RMSprop, {"alpha": 0.9}, {"alpha": 0.9}),
}


@pytest.mark.parametrize("clip", [None, 1.5])
@pytest.mark.parametrize("case", PARITY)
def test_parity_with_torch_optim(case, clip, float64):
    kind, theirs, ours = PARITY[case]
    name = "momentum" if "momentum" in theirs else case.split(",")[0]
    parameter = torch.nn.Parameter(torch.randn(7))
    optimiser = kind([parameter], lr=0.1, **theirs)
    update = from_training(Training(optimizer=name, lr=0.1, clip_norm=clip, **ours))
    state = update.init(parameter.detach().clone())
    for count in range(1, 40):
        gradient = torch.randn(7)
        gradient[0] = 0.0  # a parameter that never has a gradient must not make Adam divide by 0
        parameter.grad = gradient.clone()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_([parameter], clip)
        optimiser.step()
        state = update.step(state, gradient, 0.1, count)
        torch.testing.assert_close(state[0], parameter.detach(), rtol=1e-12, atol=1e-14)


def test_clipping_is_per_replica(float64):
    update = from_training(Training(clip_norm=1.0, lr=1.0))
    gradient = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    moved = update.step((torch.zeros(2, 2),), gradient, 1.0, 1)[0]
    torch.testing.assert_close(moved.norm(dim=-1), torch.tensor([1.0, 0.5]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop"])
def test_the_jacobian_is_finite_where_a_gradient_is_zero(name, float64):
    update = from_training(Training(optimizer=name))
    state = update.init(torch.randn(5))
    _, tangent = torch.func.jvp(
        lambda g: update.step(state, g, 0.1, 1)[0], (torch.zeros(5),), (torch.ones(5),)
    )
    assert torch.isfinite(tangent).all()


def test_only_bare_sgd_is_plain():
    assert from_training(Training()).plain
    for other in (
        {"weight_decay": 0.1},
        {"clip_norm": 1.0},
        {"optimizer": "momentum"},
        {"optimizer": "rmsprop"},
    ):
        assert not from_training(Training(**other)).plain
