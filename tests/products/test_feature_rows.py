"""Kernel blocks against dense Jacobians and closed forms; sketches and what they cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from capacity.networks.flat_model import FlatModel
from capacity.products import feature_rows
from capacity.products.feature_rows import features, projected
from capacity.products.output_sketches import (
    every_output,
    lift,
    one_output,
    projected_outputs,
    sketch_error,
    summed_outputs,
    times_identity,
)
from capacity.products.output_space import (
    loss_on_outputs,
    metric,
    metric_root,
    residual,
    task_outputs,
)
from capacity.products.row_sets import LayerFeatures, RowFeatures, Stacked
from capacity.tasks.task import Split, Task
from dense import digits_task, network


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def dense_rows(model: FlatModel, theta: Tensor, task: Task, x: Tensor, w: Tensor) -> Tensor:
    """Phi by differentiating all outputs."""
    jacobian = torch.func.jacrev(lambda t: task.select(model.outputs(t, x)))(theta)
    return torch.einsum("nqc,ncp->nqp", w, jacobian).flatten(0, 1)


class Tied(nn.Module):
    """A weight used by a layer and, unseen by hooks on layers, once more."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).tanh() @ self.inner.weight


class Partly(nn.Module):
    """Layers without bias, with frozen parts, and with nothing trained."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5, bias=False), nn.GELU(),
            nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3),
        )  # fmt: skip
        self.layers[0].weight.requires_grad_(False)
        self.layers[4].requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


NETWORKS = {
    "mlp": (lambda: network(6, 5, 3), LayerFeatures),
    "partly": (Partly, LayerFeatures),
    "linear": (lambda: nn.Linear(6, 3), LayerFeatures),
    "norm": (lambda: nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 3)), RowFeatures),
    "tied": (Tied, RowFeatures),
    "conv": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(4, 3)
        ),
        RowFeatures,
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kept", [1, 2])
def test_rows_against_autograd(float64, name, kept):
    module, kind = NETWORKS[name]
    torch.manual_seed(1)
    model = FlatModel(module())
    theta = model.initial()
    x, other = torch.randn(4, 6), torch.randn(3, 6)
    outputs = model.outputs(theta, x).shape[1]
    split = Split(x, torch.zeros(4, dtype=torch.int64))
    task = Task(name="A", train=split, test=split)
    w, v = torch.randn(4, kept, outputs), torch.randn(3, 2, outputs)
    made, its = features(model, theta, task, x, w), features(model, theta, task, other, v)
    assert isinstance(made, kind)
    assert made.count == 4 * kept
    rows = dense_rows(model, theta, task, x, w)
    its_rows = dense_rows(model, theta, task, other, v)

    torch.testing.assert_close(made.gram(its), rows @ its_rows.T)
    vectors, weights = torch.randn(2, model.size), torch.randn(2, made.count)
    torch.testing.assert_close(made.apply(vectors), vectors @ rows.T)
    torch.testing.assert_close(made.adjoint(weights), weights @ rows)

    both, whole = Stacked([made, its]), torch.cat([rows, its_rows])
    torch.testing.assert_close(both.gram(both), whole @ whole.T)
    torch.testing.assert_close(both.gram(made), whole @ rows.T)
    torch.testing.assert_close(made.gram(both), rows @ whole.T)
    weights = torch.randn(2, both.count)
    torch.testing.assert_close(both.adjoint(weights), weights @ whole)
    torch.testing.assert_close(both.apply(vectors), vectors @ whole.T)


def test_a_small_budget_changes_no_number(float64, monkeypatch):
    model = FlatModel(network(6, 5, 3))
    theta, x = model.initial(), torch.randn(5, 6)
    split = Split(x, torch.zeros(5, dtype=torch.int64))
    task = Task(name="A", train=split, test=split)
    w = every_output(5, 3, theta)
    whole = features(model, theta, task, x, w, method="rows")
    monkeypatch.setattr(feature_rows, "BUDGET", 4 * model.size * 8)
    pieces = features(model, theta, task, x, w, method="rows")
    assert len(pieces.chunks()) == 4
    torch.testing.assert_close(pieces.gram(pieces), whole.gram(whole))
    factored = features(model, theta, task, x, w)
    torch.testing.assert_close(pieces.gram(factored), whole.gram(whole))
    torch.testing.assert_close(factored.gram(pieces), whole.gram(whole))
    weights = torch.randn(2, 15)
    torch.testing.assert_close(pieces.adjoint(weights), whole.adjoint(weights))


def test_deep_linear_network(float64):
    # f = W2 W1 x has K(x, x') = <x, x'> W2 W2' + <W1 x, W1 x'> 1.
    module = nn.Sequential(nn.Linear(6, 4, bias=False), nn.Linear(4, 3, bias=False))
    model, x = FlatModel(module), torch.randn(5, 6)
    split = Split(x, torch.zeros(5, dtype=torch.int64))
    task = Task(name="A", train=split, test=split)
    rows = features(model, model.initial(), task, x, every_output(5, 3, x))
    w1, w2 = module[0].weight.detach(), module[1].weight.detach()
    h = x @ w1.T
    expected = torch.kron(x @ x.T, w2 @ w2.T) + torch.kron(h @ h.T, torch.eye(3))
    torch.testing.assert_close(rows.gram(rows), expected)


def test_a_head_of_its_own(float64):
    model, x = FlatModel(network(6, 5, 4)), torch.randn(3, 6)
    split = Split(x, torch.tensor([0, 1, 1]))
    task = Task(name="B", train=split, test=split, outputs=(1, 3))
    theta = model.initial()
    f = task_outputs(model, theta, task, x)
    assert f.shape == (3, 2)
    w = every_output(3, 2, theta)
    made = features(model, theta, task, x, w)
    rows = dense_rows(model, theta, task, x, w)
    torch.testing.assert_close(made.gram(made), rows @ rows.T)
    # Phi' r / n is minus the gradient of the mean loss.
    descent = made.adjoint(residual(task, f, split.y).view(1, -1))[0] / 3
    torch.testing.assert_close(descent, -torch.func.grad(model.loss(task))(theta, x, split.y))


def test_residual_and_metric(float64):
    f, y = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    split = Split(torch.zeros(4, 2), y)
    task = Task(name="A", train=split, test=split)
    p = f.softmax(-1)
    torch.testing.assert_close(residual(task, f, y), nn.functional.one_hot(y, 3) - p)
    expected = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    torch.testing.assert_close(metric(task, f, y), expected)
    root = metric_root(task, f, y)
    torch.testing.assert_close(root @ root.mT, expected)
    by_hand = replace(task, loss=lambda f, y: nn.functional.cross_entropy(f, y))
    torch.testing.assert_close(residual(by_hand, f, y), residual(task, f, y))
    torch.testing.assert_close(metric(by_hand, f, y), metric(task, f, y))

    targets = torch.randn(4, 3)
    split = Split(torch.zeros(4, 2), targets)
    squared = Task(name="A", train=split, test=split, loss="mse")
    torch.testing.assert_close(residual(squared, f, targets), targets - f)
    torch.testing.assert_close(metric(squared, f, targets), torch.eye(3).expand(4, 3, 3))
    own = Task(name="A", train=split, test=split, loss=lambda f, y: (f - y).abs().pow(3).mean())
    torch.testing.assert_close(residual(own, f, targets), -(f - targets).abs() * (f - targets))
    assert loss_on_outputs(own)(f, targets) == own.loss_of(f, targets)


@pytest.mark.slow
def test_sketches_on_digits():
    task = digits_task(count=30)
    model = FlatModel(network(64, 24, 10))
    theta, x = model.initial(), task.train.x
    exact_rows = features(model, theta, task, x, every_output(30, 10, theta))
    exact = exact_rows.gram(exact_rows)

    def error(w, put_back):
        rows = features(model, theta, task, x, w)
        return sketch_error(exact, put_back(rows.gram(rows), w), samples=30)

    rotated = error(projected_outputs(30, 10, theta, generator(), kept=20), lift)
    assert rotated.frobenius.value < 1e-6
    half = error(projected_outputs(30, 10, theta, generator(), kept=5), lift)
    single = error(one_output(30, 10, theta, generator()), lift)
    pseudo = error(summed_outputs(30, 10, theta), lambda k, _: times_identity(k, 10))
    assert 0 < pseudo.frobenius.value < half.frobenius.value < single.frobenius.value
    assert pseudo.alignment.value > 0.9

    errors = []
    for kept in (256, 4096):
        rows = projected(exact_rows, theta, kept, generator())
        errors.append(sketch_error(exact, rows.gram(rows), samples=30).frobenius.value)
    # Random projections of parameters: the error falls like 1/sqrt(k).
    assert 2.5 < errors[0] / errors[1] < 6
    assert half.to_dict()["samples"] == 30


def test_one_output_per_sample_keeps_entries_of_the_exact_kernel(float64):
    task = digits_task(count=8)
    model = FlatModel(network(64, 4, 10))
    theta, x = model.initial(), task.train.x
    w = one_output(8, 10, theta, generator())
    rows, whole = (features(model, theta, task, x, v) for v in (w, every_output(8, 10, theta)))
    index = 10 * torch.arange(8) + w[:, 0].argmax(-1)
    torch.testing.assert_close(rows.gram(rows), 10 * whole.gram(whole)[index][:, index])


def test_bad_method(float64):
    model, x = FlatModel(Tied()), torch.randn(2, 6)
    split = Split(x, torch.zeros(2, dtype=torch.int64))
    task = Task(name="A", train=split, test=split)
    w = every_output(2, 6, x)
    with pytest.raises(ValueError, match="method = 'layers' needs every trained parameter"):
        features(model, model.initial(), task, x, w, method="layers")
    with pytest.raises(ValueError, match="method = 'dense' is not known; accepted: auto"):
        features(model, model.initial(), task, x, w, method="dense")
    with pytest.raises(ValueError, match="kept = 0 must be a whole number of at least 1"):
        projected_outputs(2, 6, x, generator(), kept=0)
