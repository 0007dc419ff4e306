"""An Avalanche strategy with the plugin trains as without it, and says what it will forget."""

import importlib.util
import math

import pytest
import torch
from torch import nn

import streams
from capacity.integrations.avalanche_plugin import CapacityPlugin
from capacity.tasks.task import Split


def benchmark():
    """Two classes, then two others, far enough apart to be learned."""
    splits = []
    for classes in ((0, 1), (2, 3)):
        source = torch.Generator().manual_seed(classes[0])
        y = torch.tensor(classes).repeat(40)
        x = torch.randn(80, 6, generator=source) * 0.3
        x[torch.arange(80), y] += 2.0
        splits.append(Split(x, y))
    return streams.benchmark(splits, splits)


# Avalanche is imported in the tests: it takes as long as torch, for every worker that collects.
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("avalanche") is None, reason="no Avalanche here"),
    # It calls what it deprecates itself.
    pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning"),
]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 4))


def trained(stream, plugins, watched):
    from avalanche.evaluation.metrics import loss_metrics
    from avalanche.logging import BaseLogger
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.supervised import Naive

    class Silent(BaseLogger):
        pass

    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    plugin = CapacityPlugin(stream, budget=math.inf)
    strategy = Naive(
        model=model, optimizer=optimizer, criterion=nn.CrossEntropyLoss(), train_mb_size=16,
        train_epochs=5, plugins=[*plugins(), *([plugin] if watched else [])],
        evaluator=EvaluationPlugin(loss_metrics(epoch=True), loggers=[Silent()]),
    )  # fmt: skip
    torch.manual_seed(1)
    for experience in stream.train_stream:
        strategy.train(experience)
    return model, plugin, strategy


def test_the_plugin_forecasts_measures_and_disturbs_nothing():
    stream = benchmark()
    plain, _, _ = trained(stream, list, watched=False)
    model, plugin, strategy = trained(stream, list, watched=True)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])
    assert plugin.notes == []
    foreseen = plugin.forecasts[1].old[0].accuracy_drop.value
    happened = plugin.measured[1]["experience 0"].accuracy_drop.value
    assert happened > 0.5, "two classes of four, one after the other: the first are lost"
    assert foreseen == pytest.approx(happened, abs=0.3)
    published = strategy.evaluator.get_all_metrics()
    assert "capacity/forecast/experience 0/accuracy_drop" in published
    assert published["capacity/measured/experience 0/accuracy_drop"][1] == [happened]


def test_a_strategys_own_plugins_are_in_the_forecast():
    from avalanche.training.plugins import ReplayPlugin

    stream = benchmark()
    plugin = trained(stream, lambda: [ReplayPlugin(mem_size=40)], watched=True)[1]
    naive = trained(stream, list, watched=True)[1]
    drops = [one.forecasts[1].old[0].accuracy_drop.value for one in (plugin, naive)]
    assert drops[0] < drops[1] - 0.2


def test_an_unknown_plugin_is_said():
    from avalanche.training.plugins import GDumbPlugin

    stream = benchmark()
    with pytest.warns(UserWarning, match="GDumbPlugin is not known here"):
        plugin = trained(stream, lambda: [GDumbPlugin(mem_size=20)], watched=True)[1]
    assert any("without it" in note for note in plugin.notes)


def test_what_is_no_benchmark_is_refused():
    with pytest.raises(ValueError, match="benchmark is a list without train_stream"):
        CapacityPlugin([])
