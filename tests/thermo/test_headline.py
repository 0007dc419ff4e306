"""The headline never below 1, whatever the steps; and verdicts that say what could have failed."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

import capacity
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.langevin import ExactLangevin
from capacity.optimizers.sgd import SGD
from capacity.optimizers.sgld import Langevin
from capacity.records.estimate import Estimate, Status
from capacity.tasks.task import Split, Task
from capacity.thermo.action import ActionMeter, path_ratio
from capacity.thermo.ensemble import Ensemble
from capacity.thermo.ensemble_record import Start
from capacity.thermo.path import PathObserver
from capacity.thermo.regime import agrees
from capacity.thermo.speed_limit import judge
from capacity.thermo.speed_limit_verdicts import Verdict
from capacity.thermo.task_sequence import judge_sequence
from capacity.training.data_order import DataOrder
from capacity.training.train import train
from ensembles import bowl, gaussian_start

RATES = tuple(10.0**k for k in range(-8, 2))


def network(seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    size, width, classes = (int(torch.randint(2, 9, (), generator=generator)) for _ in range(3))
    torch.manual_seed(seed)
    act = (nn.Tanh(), nn.ReLU(), nn.SiLU())[seed % 3]
    model = nn.Sequential(nn.Linear(size, width), act, nn.Linear(width, classes)).to(dtype)
    x = torch.randn(30, size, generator=generator).to(dtype)
    return model, x, torch.randint(classes, (30,), generator=generator)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_no_training_is_below_its_speed_limit(optimizer, dtype):
    seen = set()
    for seed, lr in enumerate(RATES):
        model, x, y = network(seed, dtype)
        training = capacity.Training(
            optimizer=optimizer, lr=lr, epochs=6, batch_size=30 if seed % 2 else 12
        )
        made = capacity.epistemic_speed_limit(
            model, (x, y), training=training, replicas=3, seed=seed, device="cpu"
        ).total
        found = made.per_replica
        if found.status is Status.NOT_DEFINED:
            assert "No replica moved" in found.note
            continue
        assert found.status is Status.OK
        assert found.value >= 1, (lr, found)
        assert found.interval[0] >= 1
        assert made.length_over_chord.value >= 1
        if optimizer != "adam":
            assert made.inefficiency.lower.value >= 1 - 1e-6
        assert made.verdict in {Verdict.IDENTITY, Verdict.LOSS_ROSE, Verdict.DIVERGED}
        if made.loss_drop_ratio.status is Status.OK:
            assert made.loss_drop_ratio.value == pytest.approx(found.value, rel=0.1)
        seen.add(made.loss_drop_ratio.status)
    assert seen <= {Status.OK, Status.OUT_OF_REGIME, Status.NOT_DEFINED}
    assert optimizer != "sgd" or {Status.OK, Status.OUT_OF_REGIME} <= seen


@pytest.mark.parametrize("lr", [1e-8, 1e-6, 1e-3, 0.1, 30.0])
def test_both_books_of_one_training_say_the_same(lr):
    """The run's observer and the ensemble's meter see the same steps: they share one sum."""
    model, x, y = network(4, torch.float32)
    task = Task(name="random", train=Split(x, y), test=Split(x, y))
    flat = FlatModel(model)
    theta = flat.initial().expand(2, -1) * torch.tensor([[1.0], [1.5]])
    training = capacity.Training(lr=lr, epochs=8, batch_size=30)
    observer = PathObserver()
    order = DataOrder(samples=30, batch_size=30, epochs=8, replicas=2, seed=0)
    end = train(flat, theta, task, training, order, observers=[observer]).theta
    losses = [evaluate(flat, t, task, task.train).loss for t in (theta, end)]
    cost = observer.cost(*losses, plain=True, full=True)
    assert cost.inefficiency_path.value >= 1
    made = capacity.epistemic_speed_limit(
        [_with(flat, model, row) for row in theta],
        (x, y),
        training=training,
        replicas=2,
        start="warm",
        device="cpu",
    ).total
    assert made.per_replica.value == pytest.approx(cost.inefficiency_path.value, rel=1e-4)
    if lr >= 1e-3:  # below, rounding is most of a loss drop in float32
        assert made.loss_drop_ratio.value == pytest.approx(cost.loss_drop_ratio.value, rel=1e-3)
        assert made.loss_drop_ratio.status is cost.loss_drop_ratio.status


def _with(flat, model, row):
    made = type(model)(*model)
    copied = nn.Sequential(*[_copy(part) for part in made])
    nn.utils.vector_to_parameters(row, copied.parameters())
    assert torch.equal(FlatModel(copied).initial(), row)
    return copied


def _copy(part):
    if not isinstance(part, nn.Linear):
        return part
    return nn.Linear(part.in_features, part.out_features)


def test_the_meter_reads_the_steps_that_rounding_left():
    """At 1 the spacing of float32 is 1.2e-7: a step of 1e-8 is none, one of 1e-7 is 1.2e-7."""
    meter, ones = ActionMeter(), torch.ones(2, 3)
    for step in (1e-8, 1e-7):
        meter.add(0.5, ones, ones + step)
    spacing = torch.finfo(torch.float32).eps
    assert meter.action.tolist() == pytest.approx([3 * spacing**2 / 0.5] * 2, rel=1e-12)
    # Squares that float32 cannot hold are no zeros.
    tiny = ActionMeter()
    tiny.add(1.0, torch.zeros(1, 1), torch.full((1, 1), 1e-30))
    assert float(tiny.action) == pytest.approx(1e-60, rel=1e-6)
    half = ActionMeter()
    half.add(1.0, torch.ones(1, 1).half(), torch.full((1, 1), 1.5).half())
    assert float(half.action) == 0.25


def test_a_ratio_is_one_where_rounding_alone_is_below():
    squared = torch.tensor([1.0, 1.0, 0.0, math.inf])
    action = torch.tensor([1 - 1e-8, 0.9, 1.0, 1.0], dtype=torch.float64)
    assert path_ratio(1.0, action, squared).tolist() == pytest.approx([1.0, 0.9], rel=1e-12)


def test_steps_below_rounding_have_no_inefficiency():
    model, x, y = network(1, torch.float32)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(10.0)
    made = capacity.epistemic_speed_limit(
        model,
        (x, y),
        training=capacity.Training(lr=1e-12, epochs=4, batch_size=30),
        replicas=3,
        start="warm",
        device="cpu",
    ).total
    assert made.verdict is Verdict.INCONCLUSIVE
    assert "below the rounding" in made.reason
    for found in (
        made.per_replica,
        made.loss_drop_ratio,
        made.length_over_chord,
        made.inefficiency.lower,
        made.inefficiency.upper,
        made.speed_limit.upper,
    ):
        assert (found.value, found.status) == (None, Status.NOT_DEFINED)


@pytest.mark.slow
def test_every_replica_that_obeys_is_an_identity_however_few():
    model, x, y = network(2, torch.float32)
    for replicas in (1, 4):
        made = capacity.epistemic_speed_limit(
            model,
            (x, y),
            training=capacity.Training(lr=0.01, epochs=20, batch_size=30),
            replicas=replicas,
            device="cpu",
        ).total
        assert made.verdict is Verdict.IDENTITY
        assert "Cauchy-Schwarz" in made.reason
    assert json.loads(json.dumps(made.to_dict()))["loss_drop_verdict"] == made.loss_drop_verdict


def test_an_exploded_training_says_so():
    model, x, y = network(0, torch.float32)
    made = capacity.epistemic_speed_limit(
        model,
        (x, y),
        training=capacity.Training(lr=300.0, epochs=10, batch_size=30),
        replicas=4,
        device="cpu",
    ).total
    assert made.verdict is Verdict.LOSS_ROSE
    assert made.reason.startswith("E[L] rose by")
    assert made.per_replica.value > 1
    assert made.loss_drop_ratio.value < 0
    assert made.loss_drop_ratio.status is Status.OUT_OF_REGIME
    assert made.loss_drop_verdict is Verdict.INCONCLUSIVE
    for route in ("loss_drop", "trapezoid", "free_energy"):
        assert not getattr(made.dissipation, route).resolved


def test_diverged_replicas_leave_no_law_to_judge():
    theta = torch.tensor([[0.1], [0.2], [3.0], [0.1], [-0.3]], dtype=torch.float64)
    steep = bowl(torch.tensor([1.0]).double(), torch.zeros(1).double())
    quartic = type(steep)(energy=lambda row, time: row.pow(4).sum())
    made = judge(Ensemble(theta).learn(quartic, SGD(), [0.1] * 30))
    assert made.verdict is Verdict.DIVERGED
    assert made.reason.startswith("1 of 5 replicas diverged and are left out: 2 (step ")
    assert made.per_replica.value >= 1


def test_the_loss_drop_can_fail_where_it_is_judged():
    ensemble = Ensemble(torch.zeros(8, 3, dtype=torch.float64), start=Start.DELTA)
    record = ensemble.learn(bowl(), SGD(), [0.01] * 100)
    assert judge(record).loss_drop_verdict is Verdict.CONSISTENT
    # Half of the time that was taken: neither the meter nor the loss drop can be right.
    halved = judge(record, learning_time=0.5)
    assert halved.loss_drop_ratio.status is Status.OK
    assert halved.loss_drop_ratio.value < 1
    assert halved.loss_drop_verdict is Verdict.VIOLATED
    assert halved.verdict is Verdict.VIOLATED
    assert "learning time, or the meter" in halved.reason


def test_agreement_is_within_errors_but_never_far():
    path = torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64)
    assert agrees(path, 1.005 * path)  # a hundredth needs no errors
    assert agrees(path, 1.09 * path)  # 9 % lie within the spread
    assert not agrees(path, 1.5 * path)  # half does not, and no spread would excuse it
    assert not agrees(path[:1], 1.05 * path[:1])  # a single one has no error
    assert not agrees(path, path * math.nan)
    # Replicas that miss by a lot in both directions do not agree on average.
    assert not agrees(path, path + torch.tensor([-2.0, 0.0, 2.0]))


@pytest.mark.parametrize("lr", [0.1, 1.6])
def test_steps_of_langevin_dynamics_that_fold_are_no_langevin_dynamics(lr):
    """RATE is at most 1: at 1.6 the explicit step overshoots, and no free energy bounds W2."""
    ones = torch.ones(3, dtype=torch.float64)
    _, ensemble = gaussian_start(60)
    records = [ensemble.learn(bowl(ones, 0 * ones), Langevin(0.3, seed=1), [lr] * 6)]
    made = judge(records[0])
    folded = lr > 1
    assert records[0].folded is folded
    assert (made.sigma.status is Status.UNCALIBRATED) is folded
    assert ("no Langevin dynamics in continuous time" in made.note) is folded
    if folded:
        assert made.verdict is Verdict.INCONCLUSIVE
        # Even a claim that would otherwise be a violation is not one that these steps could prove.
        assert judge(records[0], learning_time=1e-3).verdict is Verdict.INCONCLUSIVE
        records.append(ensemble.learn(bowl(ones, 0 * ones), Langevin(0.3, seed=2), [0.1] * 6))
        assert judge_sequence(records).sigma.status is Status.UNCALIBRATED
    # The exact transition is the same process at every step length: it does not fold.
    _, exact = gaussian_start(60)
    assert exact.learn(bowl(ones, 0 * ones), ExactLangevin(0.3, ones, 0.0), [lr]).folds is None


def test_an_estimate_out_of_regime_comes_back_as_one():
    kept = Estimate(value=-2.1, stderr=0.1, status=Status.OUT_OF_REGIME, note="Steps too long.")
    assert Estimate.from_dict(json.loads(json.dumps(kept.to_dict()))) == kept
    assert not kept.resolved
    assert "out of regime" in kept._repr_html_()
