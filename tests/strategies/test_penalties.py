"""Penalties and importances against closed forms and slower definitions."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import grad

from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.products.curvature_operators import ggn
from capacity.products.row_sets import LayerFeatures
from capacity.recipe.config import Training
from capacity.strategies import importance
from capacity.strategies.importance import (
    empirical_fisher,
    output_sensitivity,
    true_fisher,
)
from capacity.strategies.mitigation import Mitigation
from capacity.strategies.regularisers import EWC, L2, MAS, SI, PathIntegral
from capacity.strategies.step import StrategyStep
from capacity.strategies.terms import Source, of_replica
from capacity.training.train import train
from quadratics import linear, quadratic
from strategy_cases import learn, options, order, starts, three

HERE = Source(0)


def value(penalty, theta, replica=0):
    return penalty.value(theta, of_replica(penalty.private, replica))


@pytest.mark.slow
@pytest.mark.parametrize("heads", [False, True])
def test_the_true_fisher_is_the_diagonal_of_the_gauss_newton_matrix(float64, heads):
    flat, theta = starts(2)
    task = three(heads)[1]
    found = true_fisher(flat, theta, task, task.train)
    for r in range(2):
        dense = ggn(flat, task, theta[r], task.train)(torch.eye(flat.size))
        torch.testing.assert_close(found[r], dense.diagonal(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("chunk", [4, 4096])
def test_the_fisher_of_linear_layers_is_that_of_written_out_rows(float64, monkeypatch, chunk):
    flat, theta = starts(2)
    monkeypatch.setattr(importance, "_ROWS", chunk)
    task = three(heads=True)[1]
    quick = true_fisher(flat, theta, task, task.train)
    rows = LayerFeatures.squares
    monkeypatch.setattr(LayerFeatures, "squares", lambda self: pytest.fail("by layers"))
    with pytest.raises(pytest.fail.Exception, match="by layers"):
        true_fisher(flat, theta, task, task.train)
    monkeypatch.setattr(LayerFeatures, "squares", rows)
    monkeypatch.setattr(importance, "_fisher_of_layers", lambda *_: None)
    written = true_fisher(flat, theta, task, task.train)
    torch.testing.assert_close(quick, written, rtol=1e-10, atol=1e-14)


class Scaled(nn.Module):
    """A parameter of no linear layer."""

    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.Linear(5, 4), nn.Parameter(torch.ones(4))

    def forward(self, x):
        return torch.tanh(self.layer(x)) * self.scale


def test_the_true_fisher_of_other_networks_writes_rows_out(float64):
    torch.manual_seed(0)
    flat, task = FlatModel(Scaled()), three()[1]
    theta = flat.initial()[None]
    found = true_fisher(flat, theta, task, task.train)[0]
    dense = ggn(flat, task, theta[0], task.train)(torch.eye(flat.size))
    torch.testing.assert_close(found, dense.diagonal(), rtol=1e-10, atol=1e-14)


def test_the_true_fisher_is_an_expectation_over_the_networks_own_labels(float64):
    flat, theta = starts(1)
    task = three()[0]
    loss, expected = flat.loss(task), torch.zeros(flat.size)
    for x in task.train.x:
        p = flat.outputs(theta[0], x[None]).softmax(-1)[0]
        for c in range(4):
            slope = grad(loss)(theta[0], x[None], torch.tensor([c]))
            expected += p[c] * slope.square() / len(task.train)
    found = true_fisher(flat, theta, task, task.train)[0]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


def test_the_empirical_fisher_is_the_mean_squared_gradient(float64):
    flat, theta = starts(2)
    task = three(heads=True)[1]
    found = empirical_fisher(flat, theta, task, task.train)
    rows = [
        grad(flat.loss(task))(theta[1], x[None], y[None]).square()
        for x, y in zip(task.train.x, task.train.y, strict=True)
    ]
    torch.testing.assert_close(found[1], torch.stack(rows).mean(0), rtol=1e-10, atol=1e-14)


def test_mas_on_a_linear_network(float64):
    task = three(heads=True)[1]
    flat = FlatModel(nn.Linear(5, 4, bias=False))
    theta = flat.initial()[None]
    weight = theta.reshape(4, 5)
    expected = torch.zeros(4, 5)
    for x in task.train.x:  # d |f|^2 / dW = 2 f x', f the outputs that the task reads
        expected[[2, 3]] += (2 * torch.outer(weight[[2, 3]] @ x, x)).abs() / len(task.train)
    found = output_sensitivity(flat, theta, task, task.train)
    torch.testing.assert_close(found.reshape(4, 5), expected, rtol=1e-10, atol=1e-14)


def test_ewc_on_quadratic_tasks(float64):
    a = quadratic("A", torch.tensor([0.5, 1.0, 2.0]), seed=1)
    b = quadratic("B", torch.tensor([0.2, 1.0, 3.0]), seed=2)
    flat, there = FlatModel(linear(3)), torch.randn(3)
    for fisher, strength in (("true", 3.0), ("ggn", 0.4)):
        ewc = EWC(strength=strength, fisher=fisher)
        once = ewc.prepare(flat, a.minimum[None], (a.task,), None, HERE)
        twice = ewc.prepare(flat, b.minimum[None], (a.task, b.task), once, HERE)
        forms = []
        for task in (a, b):
            exact = task.hessian if fisher == "ggn" else task.hessian.diagonal().diag()
            moved = there - task.minimum
            forms.append(0.5 * strength * moved @ exact @ moved)
        assert float(value(once, there)) == pytest.approx(float(forms[0]), rel=1e-10)
        assert float(value(twice, there)) == pytest.approx(float(sum(forms)), rel=1e-10)
        if fisher == "ggn":  # at its minimum a quadratic task rises by exactly that
            assert float(forms[0]) == pytest.approx(strength * float(a.loss(there)))


@pytest.mark.slow
def test_training_under_the_whole_gauss_newton_matrix_ends_between_the_tasks(float64):
    a = quadratic("A", torch.tensor([0.5, 1.0, 2.0]), seed=1)
    b = quadratic("B", torch.tensor([0.2, 1.0, 3.0]), seed=2)
    flat, strength = FlatModel(linear(3)), 0.7
    training = Training(lr=0.2, epochs=600, batch_size=1000)
    ewc = EWC(strength=strength, fisher="ggn")
    state = ewc.prepare(flat, a.minimum[None], (a.task,), None, HERE)
    plan = ewc.contribution(flat, (a.task,), b.task, training, state, HERE)
    step = StrategyStep(flat, b.task, plan, 1)
    batches = order(b.task, training, 1)
    end = train(flat, a.minimum[None], b.task, training, batches, strategy=step).theta[0]
    pull = b.hessian @ b.minimum + strength * a.hessian @ a.minimum
    expected = torch.linalg.solve(b.hessian + strength * a.hessian, pull)
    torch.testing.assert_close(end, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
def test_the_gauss_newton_penalty_is_the_operators_form(float64):
    flat, theta = starts(2)
    a, b, _ = three(heads=True)
    ewc = EWC(strength=2.0, fisher="ggn", samples=100)
    state = ewc.prepare(flat, theta, (a,), None, HERE)
    state = ewc.prepare(flat, theta + 0.1, (a, b), state, HERE)
    there = theta[1] + torch.randn(flat.size)
    expected = 0.0
    for task, anchor in ((a, theta[1]), (b, theta[1] + 0.1)):
        moved = (there - anchor)[None]
        expected += float(moved @ ggn(flat, task, anchor, task.train)(moved).T)
    assert float(value(state, there, 1)) == pytest.approx(expected, rel=1e-10)


def test_penalties_keep_their_digits_in_single_precision():
    old, between = torch.full((1, 1000), 300.0), torch.full((1, 1000), 300.5)
    ewc = L2(strength=1.0).prepare(None, old, (), None, HERE)
    added = ewc.plus(L2(strength=1.0).prepare(None, between, (), None, HERE))
    # 2 x 1/2 x 1000 x 0.25^2: halfway between the two anchors.
    assert float(value(added, torch.full((1000,), 300.25))) == pytest.approx(62.5, rel=1e-5)


def test_the_gradient_of_a_quadratic(float64):
    flat, theta = starts(2)
    made = Mitigation(options("ewc"), flat, HERE)
    for i, task in enumerate(three()[:2]):
        theta = learn(made, flat, theta, task, Training(epochs=2, batch_size=8), i)[0].theta
    penalty = made.plan(three()[2], Training()).penalty
    there = theta + torch.randn_like(theta)
    for r in range(2):
        slope = grad(penalty.value)(there[r], of_replica(penalty.private, r))
        torch.testing.assert_close(slope, penalty.gradient(there)[r], rtol=1e-12, atol=1e-14)
    assert not torch.equal(penalty.slope, torch.zeros_like(theta)), "two minima, so a slope"


@pytest.mark.slow
def test_the_path_integral_is_the_drop_of_the_loss(float64):
    task = three()[0]
    flat, theta = starts(2)
    errors = []
    for epochs in (100, 200):
        training = Training(lr=4.0 / epochs, epochs=epochs, batch_size=1000)
        path = PathIntegral(None)
        batches = order(task, training, 2)
        end = train(flat, theta, task, training, batches, observers=[path]).theta
        drop = evaluate(flat, theta, task, task.train).loss
        drop = drop - evaluate(flat, end, task, task.train).loss
        errors.append(float(((path.drop.sum(1) - drop) / drop).abs().max()))
    assert errors[1] < 0.02
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.1), "of first order in the step"


def test_si_leaves_out_what_the_penalty_adds(float64):
    a, b, _ = three()
    flat, theta = starts(1)
    si, training = SI(strength=5.0, damping=0.1), Training(lr=0.05, epochs=2, batch_size=1000)
    first = si.watch(None)
    theta = train(flat, theta, a, training, order(a, training, 1), observers=[first]).theta
    state = si.prepare(flat, theta, (a,), None, HERE, first)
    moved = theta - starts(1)[1]
    expected = 5.0 * first.drop.clamp(min=0) / (moved.square() + 0.1)
    torch.testing.assert_close(state.curvature, expected, rtol=1e-12, atol=0)
    plan = si.contribution(flat, (a,), b, training, state, HERE)
    second, steps = si.watch(state), []

    class Keep:
        def observe(self, step):
            steps.append(step)

    step = StrategyStep(flat, b, plan, 1)
    batches = order(b, training, 1)
    train(flat, theta, b, training, batches, observers=[second, Keep()], strategy=step)
    by_hand = torch.zeros(flat.size)
    for s in steps:
        own = grad(flat.loss(b))(s.before[0][0], b.train.x, b.train.y)
        by_hand -= own * (s.after[0] - s.before[0])[0]
    torch.testing.assert_close(second.drop[0], by_hand, rtol=1e-10, atol=1e-15)
    assert not torch.allclose(steps[1].gradient[0], grad(flat.loss(b))(
        steps[1].before[0][0], b.train.x, b.train.y
    )), "the penalty must pull, or nothing is shown"  # fmt: skip


def test_mas_and_l2_sit_at_the_last_weights(float64):
    a, b, _ = three()
    flat, theta = starts(1)
    later = theta + 0.3
    for strategy in (MAS(strength=0.5, samples=100), L2(strength=2.0)):
        state = strategy.prepare(flat, theta, (a,), None, HERE)
        state = strategy.prepare(flat, later, (a, b), state, HERE)
        assert torch.equal(state.anchor, later)
        assert float(value(state, later[0])) == 0.0
    mas = MAS(strength=0.5, samples=100)
    state = mas.prepare(flat, later, (a, b), mas.prepare(flat, theta, (a,), None, HERE), HERE)
    expected = output_sensitivity(flat, theta, a, a.train)
    expected = 0.5 * (expected + output_sensitivity(flat, later, b, b.train))
    torch.testing.assert_close(state.curvature, expected)
