"""Ensembles against closed forms, and against themselves cut otherwise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from capacity.closed_forms import kernel_flow
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.adam import Adam
from capacity.optimizers.langevin import ExactLangevin, UnderdampedLangevin
from capacity.optimizers.momentum import Momentum
from capacity.optimizers.sgd import SGD
from capacity.optimizers.sgld import Langevin
from capacity.recipe.config import Training
from capacity.tasks.task import Split, Task
from capacity.thermo.chunk_memory import chunk_size
from capacity.thermo.ensemble import Ensemble
from capacity.thermo.ensemble_record import Dynamics, Start
from capacity.thermo.landscape import Potential, TaskLandscape
from capacity.training.data_order import DataOrder
from capacity.training.train import train
from ensembles import RATE, TARGET, bowl, gaussian_start, relaxation


def small_task(samples=24):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(samples, 4, generator=generator)
    split = Split(x, (x[:, 0] > 0).long())
    return Task(name="signs", train=split, test=split)


def small_net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


def networks(count, **settings):
    model = FlatModel(small_net(0))
    theta = torch.stack([FlatModel(small_net(r)).initial() for r in range(count)])
    return model, Ensemble(theta, **settings)


def test_sums_of_gradient_descent_are_the_closed_forms():
    theta, ensemble = gaussian_start(5)
    lr, steps = 0.1, 40
    record = ensemble.learn(bowl(), SGD(), [lr] * steps)
    delta = theta - TARGET
    q = 1 - lr * RATE
    lost = RATE * delta.square() * (1 - q ** (2 * steps))
    series = record.series
    assert record.dynamics is Dynamics.GRADIENT
    assert record.learning_time == pytest.approx(lr * steps)
    torch.testing.assert_close(
        series.action[-1], (lost / (2 - lr * RATE)).sum(-1), rtol=1e-5, atol=0
    )
    drop = record.energy_start - record.end.energy
    torch.testing.assert_close(drop, 0.5 * lost.sum(-1), rtol=1e-5, atol=0)
    torch.testing.assert_close(series.trapezoid[-1], drop, rtol=1e-5, atol=0)
    length = sum((lr * RATE * delta * q**k).square().sum(-1).sqrt() for k in range(steps))
    torch.testing.assert_close(series.length[-1], length, rtol=1e-5, atol=0)
    torch.testing.assert_close(ensemble.theta, TARGET + q**steps * delta, rtol=1e-5, atol=0)
    assert series.velocity[0] == pytest.approx(float((RATE * delta).square().sum(-1).mean()))


@pytest.mark.slow
def test_small_steps_follow_the_kernel_flow():
    time, found = 0.04, []
    for steps in (400, 800):
        theta, ensemble = gaussian_start(3)
        record = ensemble.learn(bowl(), SGD(), [time / steps] * steps)
        squared = record.end.grams.moved.diagonal(dim1=-2, dim2=-1).sum(0)
        found.append(torch.stack([squared, record.series.length[-1], record.series.trapezoid[-1]]))
    limit = 2 * found[1] - found[0]  # of small steps: what is left is of their second order
    for i in range(3):
        flow = kernel_flow(
            eigenvalues=RATE.numpy(),
            residues=(RATE.sqrt() * (theta - TARGET)[i]).numpy(),
            time=time,
        )
        expected = (flow.displacement_squared, flow.length, flow.loss_drop)
        for value, exact in zip(limit[:, i].tolist(), expected, strict=True):
            assert value == pytest.approx(float(exact), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "Euler-Maruyama"])
def test_langevin_relaxes_as_the_closed_form_says(exact):
    count, tau, time, steps = 1000, 0.3, 0.6, 3 if exact else 60
    _, ensemble = gaussian_start(count)
    update = ExactLangevin(tau, RATE, TARGET, seed=1) if exact else Langevin(tau, seed=1)
    record = ensemble.learn(bowl(), update, [time / steps] * steps)
    truth = relaxation(temperature=tau, time=time)
    error = 3 / math.sqrt(count)
    mean, variance = ensemble.theta.mean(0), ensemble.theta.var(0)
    for p in range(3):
        spread = float(truth.variance[p]) ** 0.5
        assert abs(float(mean[p] - truth.mean[p])) < error * spread
        assert abs(float(variance[p] / truth.variance[p]) - 1) < error * math.sqrt(2)
    moved = record.end.grams.moved.diagonal(dim1=-2, dim2=-1).sum(0)
    assert abs(float(moved.mean()) - truth.displacement_squared.sum()) < error * float(moved.std())


@pytest.mark.slow
def test_underdamped_langevin_settles_at_the_gibbs_law():
    count, tau = 1000, 0.4
    _, ensemble = gaussian_start(count)
    record = ensemble.learn(bowl(), UnderdampedLangevin(tau, friction=1.5, seed=2), [0.1] * 120)
    error = 3 * math.sqrt(2 / count)
    for p in range(3):
        assert abs(float(ensemble.theta.var(0)[p] * RATE[p] / tau) - 1) < error + 0.01
        assert (
            abs(float(ensemble.theta.mean(0)[p] - TARGET[p]))
            < 3 * math.sqrt(tau / float(RATE[p]) / count) + 1e-3
        )
    assert record.learning_time == pytest.approx(12 / 1.5)
    for kinetic in (record.first_kinetic, record.last_kinetic):
        # p^2/2 of three thermal momenta: mean 3 tau/2, standard deviation sqrt(3/2) tau.
        assert abs(float(kinetic.mean()) - 1.5 * tau) < 3 * math.sqrt(1.5 / count) * tau


UPDATES = {
    "GD": SGD(),
    "momentum": Momentum(0.8),
    "adam": Adam(),
    "langevin": Langevin(1e-3, seed=4),
    "underdamped": UnderdampedLangevin(1e-3, seed=4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", UPDATES)
def test_neither_chunks_nor_disk_change_what_is_measured(name, tmp_path):
    found = []
    for chunk, memory in ((7, 1 << 30), (3, 1 << 30), (1, 1)):
        model, ensemble = networks(7, memory=memory, folder=tmp_path)
        landscape = TaskLandscape(model=model, task=small_task(), batch_size=10, seed=3)
        record = ensemble.learn(landscape, UPDATES[name], [0.05] * 12, chunk=chunk)
        found.append((ensemble.theta.clone(), record))
    assert not any(tmp_path.iterdir())
    for theta, record in found[1:]:
        torch.testing.assert_close(theta, found[0][0], rtol=1e-5, atol=1e-6)
        for part in ("action", "length", "trapezoid", "noise_free", "loss"):
            torch.testing.assert_close(
                getattr(record.series, part),
                getattr(found[0][1].series, part),
                rtol=1e-4,
                atol=1e-6,
            )
        torch.testing.assert_close(
            record.end.grams.moved, found[0][1].end.grams.moved, rtol=1e-4, atol=1e-7
        )


def test_replicas_go_where_training_takes_them():
    model, ensemble = networks(3)
    start = ensemble.theta.clone()
    task = small_task()
    landscape = TaskLandscape(model=model, task=task, batch_size=10, seed=3)
    ensemble.learn(landscape, SGD(), [0.1] * 6)
    training = Training(lr=0.1, epochs=2, batch_size=10)
    order = DataOrder(samples=24, batch_size=10, epochs=2, replicas=3, seed=3)
    phase = train(model, start, task, training, order)
    torch.testing.assert_close(ensemble.theta, phase.theta, rtol=1e-5, atol=1e-6)


def test_the_memory_budget_counts_what_a_step_keeps():
    model, ensemble = networks(2)
    theta = ensemble.theta[:1]
    task = small_task()
    small, large = (
        TaskLandscape(model=model, task=task, batch_size=size) for size in (1, len(task.train))
    )
    budget = 1 << 20
    fits = chunk_size(large, SGD(), theta, budget)
    assert 1 < fits < chunk_size(small, SGD(), theta, budget)
    assert chunk_size(large, Adam(), theta, budget) < fits
    assert chunk_size(large, SGD(), theta, 1) == 1
    vectors = 8 * theta.numel() * 4
    assert fits * vectors < budget


def test_log_volume_of_a_quadratic_is_exact():
    _, ensemble = gaussian_start(4)
    lr, steps = 0.1, 20
    for products, tolerance in ((3, 1e-9), (1, 5e-2)):
        record = ensemble.learn(bowl(), SGD(), [lr] * steps, log_volume=products)
        truth = steps * float((1 - lr * RATE).log().sum())
        torch.testing.assert_close(
            record.series.log_det[-1],
            torch.full((4,), truth, dtype=torch.float64),
            rtol=tolerance,
            atol=0,
        )
        assert int(record.folds.sum()) == 0
    record = ensemble.learn(bowl(), SGD(), [0.7], log_volume=3)
    assert bool((record.folds == 1).all())


@pytest.mark.slow
def test_work_of_a_moving_potential_is_in_the_heat():
    """Drag a bowl: the heat is the friction, whatever the energy at the ends."""
    speed = 0.7
    moving = Potential(
        energy=lambda theta, time: 0.5 * (theta - speed * time).square().sum(-1),
        moving=True,
        batched=True,
    )
    ensemble = Ensemble(torch.full((1, 1), -speed, dtype=torch.float64), start=Start.DELTA)
    record = ensemble.learn(moving, SGD(), [1e-3] * 4000)
    # It trails by speed at all times, so it goes straight at that speed.
    assert float(record.series.heat[-1, 0]) == pytest.approx(speed**2 * 4, rel=1e-3)
    assert float(record.series.action[-1, 0]) == pytest.approx(speed**2 * 4, rel=1e-3)


def test_diverged_replicas_are_named_and_left_out():
    theta = torch.tensor([[0.1], [0.2], [3.0], [0.1], [-0.3]], dtype=torch.float64)
    steep = Potential(energy=lambda row, time: row.pow(4).sum())
    ensemble = Ensemble(theta)
    record = ensemble.learn(steep, SGD(), [0.1] * 30)
    assert record.replicas == (0, 1, 3, 4)
    assert [e.replica for e in record.excluded] == [2]
    assert record.excluded_note.startswith("1 of 5 replicas diverged and are left out: 2 (step ")
    assert bool(torch.isfinite(record.series.action).all())
    assert record.end.grams.count == 4
    again = ensemble.learn(steep, SGD(), [0.1] * 3)
    assert again.replicas == (0, 1, 3, 4)
    with pytest.raises(ValueError, match="all 2 replicas diverged"):
        Ensemble(torch.full((2, 1), 3.0)).learn(steep, SGD(), [0.1] * 30)


def test_what_cannot_be_measured_is_refused_by_name():
    _, ensemble = gaussian_start(3)
    for call, message in (
        (lambda: ensemble.learn(bowl(), Langevin(0.0), [0.1]), "temperature = 0"),
        (lambda: ensemble.learn(bowl(), SGD(weight_decay=0.1), [0.1]), "weight_decay = 0.1"),
        (lambda: ensemble.learn(bowl(), Adam(), [0.1], log_volume=1), "log_volume = 1"),
        (lambda: ensemble.learn(bowl(), SGD(), []), "rates is empty"),
        (lambda: ensemble.learn(bowl(), SGD(), [0.1], checkpoints=[2]), "checkpoints has step 2"),
        (lambda: Ensemble(lambda r: torch.zeros(2)), "replicas is None"),
        (lambda: Ensemble(torch.zeros(3)), "initial has shape"),
        (lambda: Ensemble(torch.full((2, 2), torch.nan)), "initial holds NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
