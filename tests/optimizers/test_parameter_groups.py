"""Parameter groups and frozen layers: J_t is that of torch's own steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import capacity
from capacity.networks.flat_model import flatten
from capacity.records.estimate import Status
from optimizer_cases import TORCH

DATA = [
    (torch.randn(16, 4, generator=torch.Generator().manual_seed(k), dtype=torch.float64), k)
    for k in range(4)
]


def model_of():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 3)).double()
    made[0].bias.requires_grad_(False)
    return made


def groups_of(model):
    """As the Trainer of transformers and timm make them; frozen parameters are among them."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    return [
        {"params": matrices, "weight_decay": 0.05},
        {"params": vectors, "weight_decay": 0.0, "lr": 0.02},
    ]


def target(seed):
    return torch.randint(3, (16,), generator=torch.Generator().manual_seed(seed))


def train(name, start=None, *, tracked=False):
    """Take torch's steps from flat parameters; the schedule moves both groups' rates."""
    model = model_of()
    if start is not None:
        parts = start.split([p.numel() for p in model.parameters() if p.requires_grad])
        trained = [p for p in model.parameters() if p.requires_grad]
        for p, part in zip(trained, parts, strict=True):
            p.data = part.view_as(p).clone()
    optimiser = TORCH[name](groups_of(model))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, [lambda k: 0.9**k, lambda k: 0.5**k])
    tracker = None
    if tracked:
        tracker = capacity.TransportTracker(model, "cross_entropy", optimiser, tangents=3)
    for x, seed in DATA:
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), target(seed)).backward()
        if tracker is not None:
            tracker.observe(x, target(seed))
        optimiser.step()
        schedule.step()
    return flatten(model), tracker


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCH)
def test_products_match_differences_of_torchs_own_steps(name):
    _, tracker = train(name, tracked=True)
    found = tracker.unexplained
    assert (found.systematic, found.checked) == ("", 4)
    jacobian = tracker.jacobian()
    start = flatten(model_of())
    torch.manual_seed(1)
    v, u = torch.randn(2, 2, len(start), dtype=torch.float64)
    images = jacobian.forward(v)
    for row, image in zip(v, images, strict=True):
        ahead, behind = (train(name, start + s * 1e-6 * row)[0] for s in (1, -1))
        torch.testing.assert_close(image, (ahead - behind) / 2e-6, rtol=2e-5, atol=2e-6)
    torch.testing.assert_close((images * u).sum(), (v * jacobian.adjoint(u)).sum())


@pytest.mark.slow
def test_the_log_volume_of_groups_is_that_of_the_dense_map():
    _, tracker = train("sgd", tracked=True)
    jacobian = tracker.jacobian()
    dense = jacobian.forward(torch.eye(jacobian.size, dtype=torch.float64))
    found = tracker.log_volume()
    assert found.status is Status.OK
    truth = float(torch.linalg.slogdet(dense)[1])
    assert abs(found.value - truth) <= 4 * (found.stderr or 0) + 1e-8


@pytest.mark.slow
def test_a_frozen_layer_in_the_optimiser_is_passed_over():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker = capacity.TransportTracker(model, "cross_entropy", optimiser, tangents=2)
    x, y = torch.randn(8, 4), torch.randint(2, (8,))
    for _ in range(3):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        tracker.observe(x, y)
        optimiser.step()
    assert tracker.jacobian().size == 10
    assert not tracker.unexplained.systematic


def test_what_does_not_fit_is_refused_with_a_way_out():
    model, other = nn.Linear(3, 2), nn.Parameter(torch.zeros(2))
    optimiser = torch.optim.SGD([model.weight], lr=0.1)
    with pytest.raises(ValueError, match=r"'bias' is not in it; .*requires_grad_\(False\)"):
        capacity.TransportTracker(model, "cross_entropy", optimiser, tangents=2)
    optimiser = torch.optim.SGD([*model.parameters(), other], lr=0.1)
    with pytest.raises(ValueError, match="trains 1 that are not the model's"):
        capacity.TransportTracker(model, "cross_entropy", optimiser, tangents=2)
