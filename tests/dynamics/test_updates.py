"""Update maps against torch.optim, step by step on the same gradients."""

from __future__ import annotations

import pytest
import torch

from capacity.config import Training
from capacity.dynamics.updates import from_training

OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_parity_with_torch_optim(name, float64):
    parameter = torch.nn.Parameter(torch.randn(7))
    optimiser = OPTIMISERS[name]([parameter])
    update = from_training(Training(optimizer=name, lr=0.1))
    state = update.init(parameter.detach().clone())
    for count in range(1, 40):
        gradient = torch.randn(7)
        gradient[0] = 0.0  # a parameter that never has a gradient must not make Adam divide by 0
        parameter.grad = gradient.clone()
        optimiser.step()
        state = update.step(state, gradient, 0.1, count)
        torch.testing.assert_close(state[0], parameter.detach(), rtol=1e-12, atol=1e-14)


def test_adam_has_a_finite_jacobian_where_a_gradient_is_zero(float64):
    update = from_training(Training(optimizer="adam"))
    state = update.init(torch.randn(5))
    _, tangent = torch.func.jvp(
        lambda g: update.step(state, g, 0.1, 1)[0], (torch.zeros(5),), (torch.ones(5),)
    )
    assert torch.isfinite(tangent).all()
