"""The same importances and penalties as Avalanche's, where it has the strategy."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from capacity.networks.flat_model import FlatModel, flatten
from capacity.recipe.config import Training
from capacity.strategies.lwf import LwF
from capacity.strategies.regularisers import EWC, MAS, SI, PathIntegral
from capacity.strategies.terms import Source, of_replica
from capacity.training.train import train
from strategy_cases import network, order, three

HERE = Source(0)


@pytest.fixture
def plugins():
    """Avalanche's, imported by none but the tests that need them: it takes seconds."""
    return pytest.importorskip("avalanche.training.plugins")


def theirs(values: dict, module: nn.Module) -> torch.Tensor:
    return torch.cat([values[name].data.reshape(-1) for name, _ in module.named_parameters()])


def data(task):
    zeros = torch.zeros(len(task.train), dtype=torch.long)
    return TensorDataset(task.train.x, task.train.y, zeros)


@pytest.mark.slow
def test_ewc(plugins, float64):
    module, (a, _, _) = network(), three()
    flat = FlatModel(module)
    anchor = flat.initial()
    plugin = plugins.EWCPlugin(ewc_lambda=1.5)
    # Batches of one: theirs squares the mean gradient of a batch, not each sample's.
    found = plugin.compute_importances(
        module,
        nn.CrossEntropyLoss(),
        torch.optim.SGD(module.parameters(), lr=0.1),
        data(a),
        "cpu",
        1,
    )
    state = EWC(strength=3.0, fisher="empirical", samples=100).prepare(
        flat, anchor[None], (a,), None, HERE
    )
    torch.testing.assert_close(state.curvature[0], 3.0 * theirs(found, module))
    plugin.update_importances(found, 0)
    plugin.saved_params[0] = {
        name: SimpleNamespace(expand=lambda _, saved=saved: saved)
        for name, saved in flat.unflatten(anchor).items()
    }
    with torch.no_grad():
        for p in module.parameters():
            p += 0.1 * torch.randn_like(p)
    clock = SimpleNamespace(train_exp_counter=1)
    strategy = SimpleNamespace(clock=clock, device="cpu", model=module, loss=torch.zeros(()))
    plugin.before_backward(strategy)
    # Their penalty has no 1/2: lambda is half the strength.
    mine = state.value(flatten(module), of_replica(state.private, 0))
    expected = float(strategy.loss.detach())
    assert float(mine.detach()) == pytest.approx(expected, rel=1e-6)  # theirs is float32
    assert expected > 0.01


def test_mas(plugins, float64):
    module, (a, _, _) = network(), three()
    flat = FlatModel(module)
    strategy = SimpleNamespace(
        model=module,
        experience=SimpleNamespace(dataset=data(a)),
        train_mb_size=1,
        device="cpu",
        optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
    )
    found = plugins.MASPlugin()._get_importance(strategy)
    state = MAS(strength=1.0, samples=100).prepare(flat, flat.initial()[None], (a,), None, HERE)
    torch.testing.assert_close(state.curvature[0], theirs(found, module))


def test_lwf(float64):
    regularization = pytest.importorskip("avalanche.training.regularization")
    module, (a, b, c) = network(), three()
    flat = FlatModel(module)
    theta = flat.initial()
    lwf = LwF(strength=1.0, temperature=2.0)
    state = lwf.prepare(flat, theta[None], (a, b), None, HERE)
    part = lwf.contribution(flat, (a, b), c, Training(), state, HERE).distillation
    now, then = flat.outputs(theta + 0.3, c.train.x), flat.outputs(theta, c.train.x)
    plugin = regularization.LearningWithoutForgetting(alpha=1, temperature=2.0)
    expected = plugin._distillation_loss(now, then, {0, 1, 2})
    found = part.value(now, c.train.x, of_replica(part.private, 0))
    torch.testing.assert_close(found, expected)


def test_si(plugins, float64):
    module, (a, _, _) = network(), three()
    flat = FlatModel(module)
    training = Training(lr=0.2, epochs=2, batch_size=8)
    batches, watched = order(a, training, 1), PathIntegral(None)
    end = train(flat, flat.initial()[None], a, training, batches, observers=[watched]).theta
    plugin = plugins.SynapticIntelligencePlugin(si_lambda=1.0)
    held = (module, plugin.syn_data, set())
    optimiser = torch.optim.SGD(module.parameters(), lr=0.2)
    plugin.create_syn_data(module, plugin.ewc_data, plugin.syn_data, set())
    plugin.init_batch(module, plugin.ewc_data, plugin.syn_data, set())
    # On the CPU their "old" weights are views of the live ones, so that the path is 0; as on a
    # GPU, they are copies here.
    _own(plugin.ewc_data[0])
    by_hand = torch.zeros(flat.size)
    for epoch in batches.epoch_batches(torch.device("cpu")):
        for index in epoch:
            plugin.pre_update(*held)
            _own(plugin.syn_data["old_theta"])
            optimiser.zero_grad()
            x, y = a.train.x[index[0]], a.train.y[index[0]]
            nn.functional.cross_entropy(module(x), y).backward()
            optimiser.step()
            plugin.post_update(*held)
            # A step of SGD is -lr g: the drop to first order is lr g^2.
            by_hand += 0.2 * torch.cat([p.grad.flatten() for p in module.parameters()]).square()
    drop = -theirs(plugin.syn_data["trajectory"], module)  # theirs has the other sign
    torch.testing.assert_close(watched.drop[0], by_hand)
    torch.testing.assert_close(drop, by_hand)
    plugin.update_ewc_data(module, plugin.ewc_data, plugin.syn_data, 1e9, set(), c=1, eps=0.1)
    state = SI(strength=1.0, damping=0.1).prepare(flat, end, (a,), None, HERE, watched)
    torch.testing.assert_close(state.curvature[0], theirs(plugin.ewc_data[1], module))


def _own(values: dict) -> None:
    for held in values.values():
        held.data = held.data.clone()


def test_agem(plugins, float64):
    from capacity.strategies.projectors import without_conflict

    plugin = plugins.AGEMPlugin(patterns_per_experience=1, sample_size=1)
    module = nn.Linear(4, 3, bias=False)
    g, reference = torch.randn(12), torch.randn(12)
    reference = reference * -torch.sign(g @ reference)  # in conflict
    module.weight.grad = g.reshape(3, 4).clone()
    plugin.buffers, plugin.reference_gradients = [1], reference
    plugin.after_backward(SimpleNamespace(model=module))
    torch.testing.assert_close(module.weight.grad.flatten(), without_conflict(g, reference))
