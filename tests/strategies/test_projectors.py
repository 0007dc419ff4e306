"""Projected gradients: what they leave alone, and what they let through."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import jacrev

from capacity.jacobian.projected_maps import check_projector
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Strategy, Training
from capacity.strategies.gpm import GPM
from capacity.strategies.input_spaces import grown, layer_inputs, layers_of
from capacity.strategies.mitigation import Mitigation
from capacity.strategies.ogd import OGD
from capacity.strategies.projectors import extended, without_conflict
from capacity.strategies.step import StrategyStep
from capacity.strategies.terms import Source, of_replica
from capacity.tasks.task import Split, Task
from strategy_cases import learn, starts, three

HERE = Source(0)


def images(generator: torch.Generator, n: int = 12) -> Task:
    x = torch.randn(n, 2, 6, 6, generator=generator, dtype=torch.float64)
    split = Split(x, torch.arange(n) % 3)
    return Task(name="images", train=split, test=split)


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(27, 3, False)
    )


def test_without_conflict():
    g = torch.tensor([1.0, 2.0])
    assert torch.equal(without_conflict(g, torch.tensor([0.0, 1.0])), g)
    assert torch.equal(without_conflict(g, torch.tensor([0.0, -2.0])), torch.tensor([1.0, 0.0]))
    assert torch.equal(without_conflict(g, torch.zeros(2)), g), "no memory gradient, no division"


def test_bases_are_orthonormal_and_of_the_right_rank(float64):
    one, two = torch.randn(2, 1, 20), torch.randn(2, 3, 20)
    two[0, 2] = two[0, 0] + one[0, 0]  # nothing new in replica 0
    rows = extended(extended(None, one), two)
    assert rows.shape == (2, 4, 20)
    for r, rank in ((0, 3), (1, 4)):
        gram = rows[r] @ rows[r].T
        assert torch.linalg.matrix_rank(rows[r]) == rank
        kept = gram.diagonal() > 0.5
        torch.testing.assert_close(gram[kept][:, kept], torch.eye(rank), rtol=0, atol=1e-12)
        for vector in (one[r], two[r]):
            torch.testing.assert_close(vector @ rows[r].T @ rows[r], vector, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("heads", [False, True])
def test_ogd_leaves_old_outputs_alone_to_first_order(float64, heads):
    flat, theta = starts(2)
    a, b, c = three(heads)
    ogd = OGD(samples=2)
    state = ogd.prepare(flat, theta, (a,), None, HERE)
    state = ogd.prepare(flat, theta, (a, b), state, HERE)
    plan = ogd.contribution(flat, (a, b), c, Training(), state, HERE)
    private = plan.projector.private
    gradient = torch.randn(flat.size)
    for r in range(2):
        step = plan.projector.apply(gradient, of_replica(private, r))
        assert 0.1 < float(step.norm() / gradient.norm()) < 1
        for task in (a, b):
            x = task.train.first(2).x
            slope = jacrev(lambda t, x=x, task=task: task.select(flat.outputs(t, x)))(theta[r])
            assert float((slope @ step).abs().max()) < 1e-12
            assert float((slope @ gradient).abs().max()) > 1e-2
            moved = [
                (task.select(flat.outputs(theta[r] - h * step, x) - flat.outputs(theta[r], x)))
                .abs()
                .max()
                for h in (1e-2, 5e-3)
            ]
            assert float(moved[0] / moved[1]) == pytest.approx(4, rel=0.2), "second order"
        check_projector(
            lambda rows, r=r: torch.stack([
                plan.projector.apply(v, of_replica(private, r)) for v in rows
            ]),
            gradient,
            torch.Generator().manual_seed(0),
        )


def test_layers_and_their_inputs(float64):
    flat = FlatModel(convolutional().double())
    theta, task = flat.initial(), images(torch.Generator().manual_seed(1))
    layers = layers_of(flat)
    assert [(k.name, k.rows, k.columns, k.has_bias) for k in layers] == [
        ("0", 3, 18, True),
        ("3", 3, 27, False),
    ]
    patches, vectors = layer_inputs(flat, theta, layers, task.train.x)
    assert patches.shape == (19, 12 * 9)
    assert vectors.shape == (27, 12)
    module = convolutional().double()
    named = flat.unflatten(theta)
    kernel = torch.cat([named["0.weight"].reshape(3, 18), named["0.bias"][:, None]], dim=1)
    made = (kernel @ patches).reshape(3, 12, 9).transpose(0, 1).reshape(12, 3, 3, 3)
    module.load_state_dict(named)
    torch.testing.assert_close(made, module[0](task.train.x))


def test_a_grown_basis_holds_its_share(float64):
    columns = torch.randn(10, 40) * torch.linspace(0.1, 3, 10)[:, None]
    energy = columns.square().sum()
    first = grown(columns.new_zeros(10, 0), columns, 0.8)

    def held(basis):
        return float((basis.T @ columns).square().sum() / energy)

    assert held(first) >= 0.8 > held(first[:, :-1])
    more = torch.randn(10, 40)
    second = grown(first, more, 0.95)
    torch.testing.assert_close(second.T @ second, torch.eye(second.shape[1]), rtol=0, atol=1e-12)
    assert torch.equal(second[:, : first.shape[1]], first)
    share = float((second.T @ more).square().sum() / more.square().sum())
    assert share >= 0.95
    assert torch.equal(grown(second, second[:, :1], 0.9), second), "nothing new, nothing added"


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_gpm_leaves_old_samples_exactly_alone(float64, kind):
    generator = torch.Generator().manual_seed(2)
    if kind == "cnn":
        flat, old, few = FlatModel(convolutional().double()), images(generator), 1
        theta = flat.initial() + 0.1 * torch.randn(2, flat.size)
    else:
        (flat, theta), (old, _, _), few = starts(2), three(), 3
    gpm = GPM(samples=few, threshold=1.0)
    state = gpm.prepare(flat, theta, (old,), None, HERE)
    plan = gpm.contribution(flat, (old,), old, Training(), state, HERE)
    private, gradient = plan.projector.private, torch.randn(flat.size)
    for r in range(2):
        step = plan.projector.apply(gradient, of_replica(private, r))
        x = old.train.first(few).x
        before, after = (flat.outputs(t, x) for t in (theta[r], theta[r] - 0.5 * step))
        # Every layer sees its old inputs, so a step of any length changes nothing.
        torch.testing.assert_close(after, before, rtol=0, atol=1e-10)
        assert float((flat.outputs(theta[r] - 0.5 * gradient, x) - before).abs().max()) > 0.1
        for layer, basis in zip(plan.projector.layers, plan.projector.bases, strict=True):
            table = plan.projector._table(layer, step)
            assert float((table @ basis[r]).abs().max()) < 1e-12
        check_projector(
            lambda rows, r=r: torch.stack([
                plan.projector.apply(v, of_replica(private, r)) for v in rows
            ]),
            gradient,
            torch.Generator().manual_seed(0),
        )


def test_gpm_with_frozen_weights(float64):
    module = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))
    module[0].weight.requires_grad_(False)
    flat = FlatModel(module)
    old = three()[0]
    theta = flat.initial()[None]
    gpm = GPM(samples=2, threshold=1.0)
    state = gpm.prepare(flat, theta, (old,), None, HERE)
    plan = gpm.contribution(flat, (old,), old, Training(), state, HERE)
    step = plan.projector.apply(torch.randn(flat.size), of_replica(plan.projector.private, 0))
    assert step.shape == (flat.size,)
    assert layers_of(flat)[0].weight is None


def test_momentum_stays_in_the_protected_space(float64):
    a, b, _ = three()
    flat, theta = starts(2)
    made = Mitigation(Strategy(name="ogd", samples=2), flat, HERE)
    training = Training(optimizer="momentum", lr=0.02, epochs=2, batch_size=8)
    theta = learn(made, flat, theta, a, training)[0].theta
    rows = made.plan(b, training).projector.rows
    end, step = learn(made, flat, theta, b, training, 1)
    assert isinstance(step, StrategyStep)
    moved = end.theta - theta
    along = torch.einsum("rkp,rp->rk", rows, moved)
    assert float(along.abs().max() / moved.norm()) < 1e-12


class Twice(nn.Module):
    """One layer called twice, and perhaps one that is never called."""

    def __init__(self, idle: bool = False) -> None:
        super().__init__()
        self.shared, self.head = nn.Linear(5, 5), nn.Linear(5, 4)
        if idle:
            self.idle = nn.Linear(2, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.shared(torch.tanh(self.shared(x)))))


def test_gpm_protects_what_a_layer_sees_at_every_call(float64):
    flat, old = FlatModel(Twice()), three()[0]
    theta = flat.initial()[None]
    gpm = GPM(samples=1, threshold=1.0)
    state = gpm.prepare(flat, theta, (old,), None, HERE)
    assert [basis.shape[1] for basis in state[0]] == [2, 1]
    plan = gpm.contribution(flat, (old,), old, Training(), state, HERE)
    gradient = torch.randn(flat.size)
    step = plan.projector.apply(gradient, of_replica(plan.projector.private, 0))
    x = old.train.first(1).x
    before = flat.outputs(theta[0], x)
    torch.testing.assert_close(flat.outputs(theta[0] - step, x), before, rtol=0, atol=1e-10)
    assert float((flat.outputs(theta[0] - gradient, x) - before).abs().max()) > 0.1


def test_gpm_needs_every_layer_to_be_called():
    flat = FlatModel(Twice(idle=True))
    with pytest.raises(ValueError, match="does not call its layer 'idle'"):
        GPM(samples=1).prepare(flat, flat.initial()[None], (three()[0],), None, HERE)
