"""The front door: networks, tasks and sequences of them, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import capacity
from capacity.closed_forms import gaussian_entropy
from capacity.optimizers.sgd import SGD
from capacity.optimizers.sgld import Langevin
from capacity.records.estimate import Status
from capacity.thermo.ensemble import Ensemble
from capacity.thermo.speed_limit_verdicts import Verdict
from capacity.thermo.task_sequence import judge_sequence
from ensembles import bowl, gaussian_start


def task(seed=0, feature=0, samples=48):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 4, generator=generator)
    return x, (x[:, feature] > 0).long()


def net(width=6):
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2))


SHORT = capacity.Training(lr=0.1, epochs=8, batch_size=48)


@pytest.mark.slow
def test_a_sequence_is_judged_task_by_task_and_as_a_whole():
    model = net(60)
    held = [p.detach().clone() for p in model.parameters()]
    made = capacity.epistemic_speed_limit(
        model,
        [task(), task(1, 2)],
        training=SHORT,
        replicas=8,
        keeping=True,
        log_volume=1,
        device="cpu",
    )
    for before, now in zip(held, model.parameters(), strict=True):
        assert torch.equal(before, now)
    assert [t.verdict for t in made.tasks] == [Verdict.IDENTITY] * 2
    assert made.tasks[0].start == "cold"
    assert made.tasks[0].headline == "per_replica"
    assert made.tasks[1].start == "warm"
    total = made.total
    assert total.learning_time == pytest.approx(sum(t.learning_time for t in made.tasks))
    assert total.sigma.value == pytest.approx(sum(t.sigma.value for t in made.tasks))
    assert total.dissipation.loss_drop.value == pytest.approx(
        sum(t.dissipation.loss_drop.value for t in made.tasks)
    )
    first, last = made.records[0].theta_start, made.records[1].theta[-1]
    assert total.w2_squared.upper.value == pytest.approx(
        float((last - first).square().sum(-1).mean()), rel=1e-5
    )
    assert total.free_energy.entropy_change.value == pytest.approx(
        sum(t.free_energy.entropy_change.value for t in made.tasks)
    )
    (bill,) = made.old
    assert (bill.old, bill.new) == ("task 0", "task 1")
    assert bill.lost_share.value == pytest.approx(bill.forgetting.value / made.tasks[0].sigma.value)
    assert bill.keeping.transport_cost.value >= 1
    assert json.loads(json.dumps(made.to_dict()))["old"][0]["transport_cost"]["value"] >= 1


@pytest.mark.slow
def test_replicas_differ_in_their_initialisation_and_only_there_by_seed():
    settings = {"training": SHORT, "replicas": 3, "device": "cpu"}
    model = net()
    one, two = (capacity.epistemic_speed_limit(model, task(), **settings) for _ in range(2))
    start = one.records[0].theta_start
    assert torch.equal(start, two.records[0].theta_start)
    assert not torch.equal(start[0], start[1])
    warm = capacity.epistemic_speed_limit(model, task(), start="warm", **settings)
    assert torch.equal(warm.records[0].theta_start[0], warm.records[0].theta_start[2])
    assert warm.tasks[0].start == "delta"
    listed = capacity.epistemic_speed_limit(
        [net() for _ in range(3)], task(), start="warm", **settings
    )
    assert listed.tasks[0].start == "warm"


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        ("sgd", {"weight_decay": 0.01}),
        ("momentum", {}),
        ("adam", {}),
        ("sgld", {"temperature": 1e-3}),
        ("sgd", {"clip_norm": 1.0}),
    ],
)
def test_every_optimiser_gets_a_record(optimizer, settings):
    training = capacity.Training(optimizer=optimizer, lr=0.01, epochs=4, batch_size=16, **settings)
    made = capacity.epistemic_speed_limit(
        net(), task(), training=training, replicas=6, device="cpu"
    ).tasks[0]
    assert made.verdict is not Verdict.VIOLATED
    defined = optimizer != "adam" and "clip_norm" not in settings
    assert (made.sigma.status is not Status.NOT_DEFINED) is defined
    if optimizer == "sgd" and defined:
        assert made.dissipation.noise is not None
        assert "Minibatch noise" in made.sigma.note
        drop = made.free_energy.energy_start.value - made.free_energy.energy_end.value
        assert made.dissipation.loss_drop.value == pytest.approx(drop)


@pytest.mark.parametrize("replicas", [1, 2])
def test_too_few_replicas_are_told_what_can_be_said(replicas):
    made = capacity.epistemic_speed_limit(
        net(), [task(), task(1)], training=SHORT, replicas=replicas, device="cpu"
    )
    assert made.tasks[0].per_replica.value >= 1
    assert made.tasks[0].w2_squared.lower.status is Status.NOT_RESOLVED
    assert made.total.verdict is Verdict.IDENTITY
    json.dumps(made.to_dict())


def test_what_cannot_be_used_is_named():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 2))

        def forward(self, x):
            return x @ self.weight

    settings = {"training": SHORT, "device": "cpu"}
    for call, message in (
        (lambda: capacity.epistemic_speed_limit(net(), [], **settings), "tasks is empty"),
        (lambda: capacity.epistemic_speed_limit(net(), task(), replicas=0, **settings), "replicas"),
        (
            lambda: capacity.epistemic_speed_limit(net(), task(), start="hot", **settings),
            "start = 'hot'",
        ),
        (lambda: capacity.epistemic_speed_limit(Odd(), task(), **settings), "reset_parameters"),
        (
            lambda: capacity.epistemic_speed_limit([net()], task(), replicas=2, **settings),
            "list of 1 networks",
        ),
        (
            lambda: capacity.epistemic_speed_limit(
                net(),
                task(),
                training=capacity.Training(strategy={"name": "ewc"}),
                device="cpu",
            ),
            "strategy = 'ewc'",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.slow
def test_langevin_over_two_legs_needs_the_entropy_of_the_start_only():
    tau = 0.3
    _, ensemble = gaussian_start(300)
    records = [
        ensemble.learn(bowl(), Langevin(tau, seed=1, path=(leg,)), [0.01] * 40) for leg in range(2)
    ]
    total = judge_sequence(records)
    assert total.sigma.status is Status.OK
    whole = Ensemble(
        records[0].theta_start, entropy_start=3 * float(gaussian_entropy(variance=1.0))
    )
    assert total.learning_time == pytest.approx(0.8)
    straight = judge_sequence([whole.learn(bowl(), Langevin(tau, seed=2), [0.01] * 80)])
    gap = abs(total.sigma.value - straight.sigma.value)
    assert gap < 4 * (total.sigma.stderr + straight.sigma.stderr)


def test_there_and_back_costs_much_and_leads_nowhere():
    _, ensemble = gaussian_start(10)
    there, back = torch.full((3,), 4.0).double(), torch.zeros(3).double()
    ones = torch.ones(3).double()
    records = [ensemble.learn(bowl(ones, target), SGD(), [0.05] * 100) for target in (there, back)]
    total = judge_sequence(records)
    assert total.inefficiency.lower.value > 10
    assert total.signatures[3].present
    with pytest.raises(ValueError, match="records is empty"):
        judge_sequence([])
    mixed = [*records, ensemble.learn(bowl(), Langevin(0.1), [0.01])]
    with pytest.raises(ValueError, match="one kind of dynamics"):
        judge_sequence(mixed)
