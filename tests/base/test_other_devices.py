"""What runs on a GPU, without one: on a device that only pretends, with the CPU's own numbers.

Fails where two devices meet, where a generator is of another device than what is drawn, and where a
step reads more on the host than it has to.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

import capacity
from capacity.jacobian import phase_tracker
from capacity.networks.flat_model import FlatModel
from capacity.tasks import as_task
from capacity.training import train as training_loop
from capacity.training.data_order import DataOrder
from pretend_device import DEVICE, TwoDevicesError, pretend

pytestmark = pytest.mark.filterwarnings("ignore:The old tasks are not converged")

PLAN = capacity.Training(lr=0.1, epochs=2, batch_size=8)
CPU = torch.device("cpu")


def network(_=0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def pair(seed):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(24, 3, generator=draw)
    return x, (x[:, seed % 3] > 0).long()


def trained(device, steps=6, **plan):
    """Train two replicas; theta at the end."""
    task = as_task(pair(1), share=0).to(device)
    model = FlatModel(network()).to(device)
    training = capacity.Training(**({"lr": 0.05, "epochs": steps // 3, "batch_size": 8} | plan))
    order = DataOrder(samples=24, batch_size=8, epochs=steps // 3, replicas=2, seed=0)
    phase = training_loop.train(
        model, torch.stack([model.initial()] * 2).to(device), task, training, order
    )
    assert phase.steps == steps
    return phase.theta.cpu().tolist()


def tracked(device, steps=4):
    """Track a loop of one's own; log-volume and spectrum."""
    model = network().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker = capacity.TransportTracker(model, "cross_entropy", optimizer, tangents=2)
    x, y = (part.to(device) for part in pair(1))
    for k in range(steps):
        rows = slice(8 * (k % 3), 8 * (k % 3) + 8)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        tracker.observe(x[rows], y[rows])
        optimizer.step()
    found = tracker.spectrum(top=2).to_dict()
    return tracker.log_volume().to_dict(), found["singular_values"]


def forecast(device, **asked):
    return capacity.forecast(
        network(), old=pair(1), new=pair(2), training=PLAN, orders=2, device=device, **asked
    ).to_dict()


def whole_run(device, folder):
    measure = capacity.Measure(level="full", forecast_budget=None, closure_points=0)
    effort = {"tangents": 2, "sweeps": 2, "capacity_probes": 2, "capacity_nodes": 2}
    made = capacity.run(
        [pair(1), pair(2)],
        model=network,
        training=PLAN.model_copy(update={"epochs": 1}),
        measure=measure.model_copy(update=effort | {"sensitivity_eps": ()}),
        replicas=2,
        out=folder / device.type,
        quiet=True,
        device=device,
    )
    return made.result


def check_close(one, other, place=""):
    """Hold two records against each other: strides may differ, and with them the last bits."""
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            check_close(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for k, pair_ in enumerate(zip(one, other, strict=True)):
            check_close(*pair_, f"{place}[{k}]")
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6), place
    else:
        assert one == other, place


CASES = {
    "sgd": trained,
    "adam": lambda device: trained(device, optimizer="adam"),
    "langevin": lambda device: trained(device, optimizer="sgld", temperature=1e-3),
    "tracker": tracked,
    "forecast, linearised": lambda device: forecast(device, budget=None),
    "forecast, compressed": lambda device: forecast(device, budget=0.5, strategies=["ewc"]),
    "verdict": lambda device: capacity.verdict(
        network(), old=pair(1), new=pair(2), training=PLAN, device=device
    ).to_dict(),
    "ensemble": lambda device: capacity.epistemic_speed_limit(
        network, pair(1), training=PLAN, replicas=3, device=device
    ).to_dict(),
}
SLOW = {"tracker", "forecast, compressed", "verdict", "ensemble"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CASES]
)
def test_another_device_gives_the_numbers_of_the_cpu(name):
    on_cpu = CASES[name](CPU)
    with pretend() as device:
        there = CASES[name](DEVICE)
    check_close(there, on_cpu)
    assert device.reads, "something was computed there, and read"


@pytest.mark.device
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("name", ["sgd", "adam"])  # what draws there, draws other numbers
def test_a_gpu_gives_the_numbers_of_the_cpu(name):
    there, on_cpu = (torch.tensor(CASES[name](where)) for where in (torch.device("cuda"), CPU))
    torch.testing.assert_close(there, on_cpu, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_whole_run_on_another_device(tmp_path, monkeypatch):
    """Replicas, J_t and its spectra, R_A, m_B, verdicts, the journal."""
    monkeypatch.setattr("capacity.runs.run.Run.report", lambda self, _=None: self.path)
    on_cpu = whole_run(CPU, tmp_path)
    with pretend():
        there = whole_run(DEVICE, tmp_path)
    check_close(there, on_cpu)


def reads_of_a_step(function):
    """Count what one further step reads on the host."""
    counts = []
    for steps in (9, 12):  # more is read at steps 1, 2, 4, 8, 16
        with pretend() as device:
            function(DEVICE, steps=steps)
        counts.append(device.reads)
    made = Counter()
    for place, n in counts[1].items():
        made[place.split(":")[0]] += (n - counts[0][place]) / 3
    return {module: n for module, n in made.items() if n}


def test_a_step_of_training_reads_whether_it_is_finite_and_nothing_else():
    assert reads_of_a_step(trained) == {"capacity.training.train": 1.0}


@pytest.mark.slow
def test_a_tracked_step_waits_for_the_device_a_few_times():
    made = reads_of_a_step(tracked)
    beside = {"capacity.jacobian.training_jacobian"}  # once per step while a spectrum is resolved
    assert {k: n for k, n in made.items() if k not in beside} == {
        "capacity.base.on_host": 5.0,  # was the step the observed one, and its log-volume
        "capacity.jacobian.batch_store": pytest.approx(1.0),  # is the batch the one before
    }


PLANTED = {
    "a gradient on the CPU": (
        training_loop, "conditioned", lambda rule, theta, x, gradient: gradient.cpu(), trained
    ),
    "data on the CPU": (
        training_loop, "_drawing",
        lambda task: lambda index: (task.train.x.cpu()[index.cpu()], task.train.y[index], index),
        trained,
    ),
    "a generator of the CPU": (
        phase_tracker, "random_signs",
        lambda count, like, _: torch.randn(
            count, like.numel(), device=like.device, generator=torch.Generator()
        ),
        tracked,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if PLANTED[n][3] is tracked else n for n in PLANTED],
)
def test_what_is_planted_is_found(name, monkeypatch):
    module, part, wrong, function = PLANTED[name]
    monkeypatch.setattr(module, part, wrong)
    with pretend(), pytest.raises(TwoDevicesError, match=r"the CPU|generator on cpu"):
        function(DEVICE)
    function(CPU)  # where nothing of it is to be seen


def test_a_planted_read_is_counted(monkeypatch):
    conditioned = training_loop.conditioned

    def reading(*given):
        made = conditioned(*given)
        assert float(made.norm()) >= 0
        return made

    monkeypatch.setattr(training_loop, "conditioned", reading)
    made = reads_of_a_step(trained)
    assert sum(made.values()) == 2.0
