"""Sigma, W2 bounds, verdicts and signatures against Gaussians whose truth is known."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from capacity.closed_forms import gaussian_entropy, gaussian_w2_squared
from capacity.optimizers.adam import Adam
from capacity.optimizers.langevin import ExactLangevin, UnderdampedLangevin
from capacity.optimizers.momentum import Momentum
from capacity.optimizers.sgd import SGD
from capacity.optimizers.sgld import Langevin
from capacity.records.estimate import Status
from capacity.records.jackknife import Statistic
from capacity.thermo.ensemble import Ensemble
from capacity.thermo.ensemble_record import Start
from capacity.thermo.entropy import gaussian_bound, initial_entropy
from capacity.thermo.gram_matrices import LayerGrams, layer_grams, squared_distance
from capacity.thermo.landscape import Potential
from capacity.thermo.speed_limit import judge
from capacity.thermo.speed_limit_verdicts import Verdict
from capacity.thermo.wasserstein import assignment, distance, trace_bound
from ensembles import RATE, TARGET, bowl, gaussian_start, protocol, relaxation


def within(estimate, truth, *, errors=3.0):
    """Agree within some standard errors, and know one."""
    assert estimate.stderr is not None
    assert abs(estimate.value - truth) <= errors * estimate.stderr, (estimate, truth)


def drawn(count, size, *, seed=0, shift=0.3, spread=1.5):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(count, size, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, size, generator=generator, dtype=torch.float64)
    return start, 0.5 * start + (spread**2 - 0.25) ** 0.5 * noise + shift


def test_grams_are_products_of_displacements_whatever_the_blocks():
    start, end = drawn(6, 40)
    for block in (1 << 20, 16 * 6 * 7):
        made = layer_grams(start, end, {"a": 30, "b": 10}, block_bytes=block)
        a, d = start - start.mean(0), end - start
        for k, span in enumerate((slice(0, 30), slice(30, 40))):
            torch.testing.assert_close(made.start[k], a[:, span] @ a[:, span].T)
            torch.testing.assert_close(made.cross[k], a[:, span] @ d[:, span].T)
            torch.testing.assert_close(made.moved[k], d[:, span] @ d[:, span].T)
    rows = torch.tensor([0, 2, 5])
    torch.testing.assert_close(
        layer_grams(start, end, {"all": 40}, rows=rows).moved,
        layer_grams(start[rows], end[rows], {"all": 40}).moved,
    )
    torch.testing.assert_close(
        squared_distance(start, end, rows=rows), (end - start)[rows].square().sum(-1)
    )


def test_displacements_keep_the_digits_that_raw_weights_lose():
    # Weights around 300 that move by 1e-3: in float32 the raw products cannot see it.
    generator = torch.Generator().manual_seed(1)
    start = 300 + torch.randn(8, 500, generator=generator)
    end = start + 1e-3 * torch.randn(8, 500, generator=generator)
    exact = (end.double() - start.double()).square().sum(-1)
    made = layer_grams(start, end, {"all": 500}).moved[0].diagonal()
    torch.testing.assert_close(made, exact, rtol=1e-12, atol=0)
    raw = start.square().sum(-1) + end.square().sum(-1) - 2 * (start * end).sum(-1)
    assert float((raw.double() - exact).abs().max() / exact.max()) > 1


def naive_trace_bound(start, end, sizes):
    total = 0.0
    n = len(start)
    for a, b in zip(start.split(sizes, 1), end.split(sizes, 1), strict=True):
        d = b - a
        pairs = sum(float(d[i] @ d[j]) for i in range(n) for j in range(n) if i != j)
        roots = [math.sqrt(float(torch.cov(x.T).trace())) for x in (a, b)]
        total += pairs / (n * (n - 1)) + (roots[1] - roots[0]) ** 2
    return total


def test_trace_bound_and_its_jackknife_are_those_of_a_loop():
    start, end = drawn(7, 12)
    sizes = [5, 7]
    made = trace_bound(layer_grams(start, end, {"a": 5, "b": 7}))
    assert made.value == pytest.approx(naive_trace_bound(start, end, sizes), rel=1e-12)
    for i in range(7):
        keep = torch.arange(7) != i
        expected = naive_trace_bound(start[keep], end[keep], sizes)
        assert float(made.without[i]) == pytest.approx(expected, rel=1e-10)


def test_statistics_know_what_they_share():
    values, other = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2.0, 4.0, 8.0])
    ratio = (Statistic.mean(values) / Statistic.mean(other)).estimate()
    assert ratio.value == pytest.approx(0.5)
    assert ratio.stderr == pytest.approx(0.0, abs=1e-12)
    # The jackknife of a mean is its usual standard error.
    mean = Statistic.mean(values).estimate()
    assert mean.stderr == pytest.approx(float(values.std()) / math.sqrt(3))
    # The plug-in variance is biased by -1/N; the jackknife knows.
    plug = Statistic(
        float(values.double().var(correction=0)),
        torch.stack([values[torch.arange(3) != i].double().var(correction=0) for i in range(3)]),
    )
    assert plug.unbiased().value == pytest.approx(float(values.double().var()))


@pytest.mark.slow
def test_the_gaussian_bound_is_unbiased_and_an_upper_bound():
    generator = torch.Generator().manual_seed(3)
    spread = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    truth = float(gaussian_entropy(variance=spread.square().numpy()).sum())
    found = [
        gaussian_bound(spread * torch.randn(5, 3, generator=generator, dtype=torch.float64)).value
        for _ in range(2000)
    ]
    assert abs(np.mean(found) - truth) < 3 * np.std(found) / math.sqrt(2000)
    # Without one replica is the bound of the rest.
    theta = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    made = gaussian_bound(theta)
    for i in range(6):
        rest = gaussian_bound(theta, rows=torch.arange(6)[torch.arange(6) != i])
        assert float(made.without[i]) == pytest.approx(rest.value, rel=1e-10)
    # A uniform law has less entropy than the bound says: ln 2 against 1/2 ln(2 pi e/3).
    uniform = 2 * torch.rand(4000, 1, generator=generator, dtype=torch.float64) - 1
    assert gaussian_bound(uniform).value > math.log(2) + 0.1
    assert gaussian_bound(theta[:3]) is None


def test_entropy_of_the_default_initialisation():
    net = nn.Sequential(nn.Linear(16, 3), nn.Conv2d(2, 5, 3, bias=False))
    expected = 51 * math.log(2 / 4) + 90 * math.log(2 / math.sqrt(18))
    assert initial_entropy(net) == pytest.approx(expected)
    assert initial_entropy(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))) is None


def test_w2_lies_in_its_bracket_and_assignment_does_not_bound_it():
    start, end = drawn(60, 2000, shift=0.05)
    truth = 2000 * float(
        gaussian_w2_squared(mean_start=0, variance_start=1, mean_end=0.05, variance_end=2.25)
    )
    made = distance(layer_grams(start, end, {"all": 2000}))
    low, high = made.bracket().interval
    assert low <= truth <= high
    within(made.bracket().lower, truth)  # isotropic, one block: the trace bound is exact
    within(made.bracket().upper, 2000 * (0.05**2 + 0.25 + 2.0))
    other, _ = drawn(60, 2000, seed=9)
    crossed = assignment(layer_grams(other, end, {"all": 2000}))
    assert crossed.value > 3 * truth
    assert crossed.status is Status.UNCALIBRATED


@pytest.mark.slow
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "Euler-Maruyama"])
def test_langevin_pays_what_the_closed_form_says(exact):
    tau, time, steps = 0.3, 0.8, 2 if exact else 80
    _, ensemble = gaussian_start(400, seed=4)
    update = ExactLangevin(tau, RATE, TARGET, seed=2) if exact else Langevin(tau, seed=2)
    made = judge(ensemble.learn(bowl(), update, [time / steps] * steps))
    truth = relaxation(temperature=tau, time=time)
    within(made.sigma, truth.dissipation.sum())
    assert made.sigma.status is Status.OK
    assert made.route == "free energy"
    within(made.free_energy.free_energy_end, truth.free_energy.sum())
    within(made.free_energy.entropy_end, truth.entropy.sum())
    low, high = made.w2_squared.interval
    assert low <= truth.w2_squared.sum() <= high
    within(made.w2_squared.upper, truth.displacement_squared.sum())
    inefficiency = time * truth.dissipation.sum() / truth.w2_squared.sum()
    low, high = made.inefficiency.interval
    assert low <= inefficiency <= high
    assert made.verdict is not Verdict.VIOLATED
    for none in (made.dissipation.action, made.dissipation.trapezoid, made.length_over_chord):
        assert none.status is Status.NOT_DEFINED


@pytest.mark.slow
def test_underdamped_langevin_pays_at_least_for_its_marginal():
    tau, friction, steps = 0.3, 2.0, 60
    _, ensemble = gaussian_start(300, seed=4)
    record = ensemble.learn(bowl(), UnderdampedLangevin(tau, friction, seed=3), [0.05] * steps)
    made = judge(record)
    assert made.learning_time == pytest.approx(0.05 * steps / friction)
    assert made.sigma.status is Status.OK
    assert made.inefficiency.lower.value > 0
    low, _ = made.w2_squared.interval
    assert made.learning_time * made.sigma.interval[1] > low


def geodesic_ensemble(count, *, seed=0, duration=2.0, steps=50):
    """Langevin dynamics along the geodesic: T Sigma = W2^2."""
    tau, size = 0.2, 20
    _, ensemble = gaussian_start(count, size=size, seed=seed)
    moving = protocol(mean_end=1.0, variance_end=0.6, duration=duration, temperature=tau)
    record = ensemble.learn(moving, Langevin(tau, seed=seed), [duration / steps] * steps)
    truth = size * float(
        gaussian_w2_squared(mean_start=0, variance_start=1, mean_end=1, variance_end=0.6)
    )
    return record, truth


@pytest.mark.slow
def test_a_geodesic_is_not_violated_and_half_its_time_is():
    record, truth = geodesic_ensemble(200)
    made = judge(record)
    within(made.w2_squared.lower, truth)
    within(made.sigma, truth / 2.0, errors=4)
    assert made.verdict is Verdict.INCONCLUSIVE
    assert not made.signatures[0].present
    halved = judge(record, learning_time=1.0)
    assert halved.verdict is Verdict.VIOLATED
    assert halved.signatures[0].name == "bound violated"
    assert halved.signatures[0].present
    assert "learning time" in halved.signatures[0].explanation
    with pytest.raises(ValueError, match="learning_time = -1"):
        judge(record, learning_time=-1)


@pytest.mark.parametrize("update", [SGD(), Momentum(0.9)], ids=["GD", "momentum"])
def test_deterministic_descent_obeys_an_identity(update):
    _, ensemble = gaussian_start(30)
    made = judge(ensemble.learn(bowl(), update, [0.02] * 200))
    assert made.verdict is Verdict.IDENTITY
    assert "no training could have failed it" in made.reason
    assert made.inefficiency.lower.interval[0] >= 1
    assert made.headline == "per_replica"
    assert made.per_replica.value >= 1
    if isinstance(update, Momentum):
        assert made.learning_time == pytest.approx(0.02 * 200 / 0.1)
        # Energy balance and action agree in the continuous limit.
        assert made.dissipation.loss_drop.value == pytest.approx(
            made.dissipation.action.value, rel=0.15
        )
    else:
        assert made.dissipation.trapezoid.value == pytest.approx(
            made.dissipation.loss_drop.value, rel=1e-6
        )
        assert made.dissipation.loss_drop.value < made.dissipation.action.value


def test_one_point_of_departure_makes_w2_exact():
    ensemble = Ensemble(torch.zeros(6, 3, dtype=torch.float64), start=Start.DELTA)
    record = ensemble.learn(bowl(), SGD(), [0.01] * 100)
    made = judge(record)
    assert made.verdict is Verdict.IDENTITY
    assert made.loss_drop_verdict is Verdict.CONSISTENT
    assert made.w2_squared.lower.value == made.w2_squared.upper.value
    assert made.headline == "inefficiency"
    assert judge(record, learning_time=0.5).verdict is Verdict.VIOLATED


def test_an_optimiser_without_sigma_is_named():
    _, ensemble = gaussian_start(5)
    made = judge(ensemble.learn(bowl(), Adam(), [0.05] * 30))
    assert made.verdict is Verdict.IDENTITY
    assert made.sigma.status is Status.NOT_DEFINED
    assert "adam" in made.sigma.note
    assert "Sigma is not defined for this optimiser" in made.reason
    assert made.loss_drop_ratio.status is Status.NOT_DEFINED
    assert made.dissipation.action.status is Status.UNCALIBRATED
    assert made.per_replica.value >= 1
    assert made.inefficiency.lower.status is Status.NOT_DEFINED


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_replicas_say_what_they_can(count):
    _, ensemble = gaussian_start(count)
    made = judge(ensemble.learn(bowl(), SGD(), [0.05] * 30))
    assert made.w2_squared.lower.status is Status.NOT_RESOLVED
    assert made.per_replica.value >= 1
    assert made.verdict is Verdict.IDENTITY
    assert (made.per_replica.interval is None) is (count == 1)
    assert made.free_energy.entropy_end.status is Status.NOT_RESOLVED
    _, ensemble = gaussian_start(count)
    cold = judge(ensemble.learn(bowl(), Langevin(0.1), [0.05] * 30))
    assert cold.sigma.status is Status.NOT_RESOLVED
    assert cold.verdict is Verdict.INCONCLUSIVE


def test_langevin_without_a_known_start_is_uncalibrated():
    theta, _ = gaussian_start(50)
    made = judge(Ensemble(theta).learn(bowl(), Langevin(0.2), [0.02] * 20))
    assert made.sigma.status is Status.UNCALIBRATED
    assert "entropy_start" in made.sigma.note
    assert made.verdict is Verdict.INCONCLUSIVE


@pytest.mark.slow
def test_coarse_checkpoints_are_warned_about_with_what_they_miss():
    _, ensemble = gaussian_start(8)
    rocking = Potential(
        energy=lambda x, time: 0.5 * (x - math.sin(9 * time)).square().sum(-1),
        moving=True,
        batched=True,
    )
    record = ensemble.learn(rocking, SGD(), [0.01] * 300, checkpoints=[100, 200])
    with pytest.warns(UserWarning, match="too coarse for an action: 3 of them miss"):
        made = judge(record)
    missed = 1 - made.dissipation.checkpoints.value / made.dissipation.action.value
    assert f"{missed:.1%} below" in made.dissipation.checkpoints.note
    _, fine = gaussian_start(8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        judge(fine.learn(bowl(), SGD(), [0.01] * 60, checkpoints=range(5, 60, 5)))


def test_negative_entropy_production_is_a_signature():
    """H_0 overstated: the ensemble seems to lose more entropy than it can."""
    theta, _ = gaussian_start(100)
    ensemble = Ensemble(theta, entropy_start=60.0)
    made = judge(ensemble.learn(bowl(), Langevin(0.5), [0.01] * 20))
    negative = made.signatures[1]
    assert negative.name == "negative entropy production"
    assert negative.present
    assert "H_0" in negative.explanation


def test_random_walks_do_not_resolve_w2_and_a_long_wait_is_a_gap():
    _, ensemble = gaussian_start(40, size=50)
    generator = torch.Generator().manual_seed(8)
    ways = torch.randn(40, 50, generator=generator, dtype=torch.float64)
    each_its_own = Potential(energy=lambda x, time: (x * ways).sum(-1), batched=True)
    made = judge(ensemble.learn(each_its_own, SGD(), [1e-3] * 10))
    assert made.signatures[2].name == "W2 not resolved"
    assert made.signatures[2].present
    assert made.inefficiency.upper.status is Status.NOT_RESOLVED
    _, ensemble = gaussian_start(40)
    waited = judge(ensemble.learn(bowl(), SGD(), [0.5] * 200))
    gap = waited.signatures[3]
    assert gap.name == "extreme gap"
    assert gap.present
    assert waited.to_dict()["signatures"][3]["present"]


def test_minibatch_noise_has_a_name():
    """Quadratics with a noisy minimum: sum lr |noise|^2 is the noise part of the action."""
    count, size, lr, steps, spread = 400, 3, 0.05, 40, 2.0

    class Noisy:
        full, moving = False, False

        def layout(self, size):
            return (("theta", size),)

        def steps(self, replicas, rates):
            streams = [torch.Generator().manual_seed(r) for r in replicas]
            for _ in rates:
                push = spread * torch.stack([
                    torch.randn(size, generator=g, dtype=torch.float64) for g in streams
                ])
                yield lambda x, push=push: (0.5 * x.square() + push * x).sum(-1)

        def energies(self, theta, time):
            return 0.5 * theta.square().sum(-1)

    _, ensemble = gaussian_start(count, variance=9.0)
    made = judge(ensemble.learn(Noisy(), SGD(), [lr] * steps))
    noise = made.dissipation.noise
    assert noise.value == pytest.approx(steps * lr * size * spread**2, rel=0.1)
    assert "not the thermodynamic Sigma" in made.sigma.note
    assert isinstance(made.dissipation.to_dict()["noise"], dict)


def test_layer_grams_add_up():
    start, end = drawn(5, 20)
    parts = layer_grams(start, end, {"a": 8, "b": 12}).total()
    whole = layer_grams(start, end, {"all": 20})
    assert isinstance(parts, LayerGrams)
    torch.testing.assert_close(parts.moved, whole.moved)
