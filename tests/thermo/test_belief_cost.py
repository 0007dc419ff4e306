"""What a belief paid: closed forms of entropy, distance and energy, and the limit's verdict."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import capacity
from capacity.networks.door import fit
from capacity.networks.flat_model import FlatModel
from capacity.tasks.tensors import as_task
from capacity.thermo.belief_cost import (
    belief_cost,
    distance_sq,
    entropy,
    expected_losses,
    gibbs_bound,
)
from capacity.training.data_order import DataOrder
from capacity.training.train import train

X = torch.randn(24, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TASK = as_task((X, X @ torch.tensor([[1.0], [-0.5], [0.2]]).double()), share=0, loss="mse")


def belief():
    torch.manual_seed(0)
    module = capacity.Belief(nn.Linear(3, 1, bias=False).double(), width=0.3, probabilities=False)
    flat = FlatModel(module)
    (task,) = fit(flat, flat.initial(), [TASK], two_modes=True)
    return flat, task


def exact(task, theta, tau):
    """F of a linear regression: half the mean square, and half the trace of H S."""
    widths, means = theta.chunk(2)
    gap = task.train.x @ means[:, None] - task.train.y
    energy = 0.5 * gap.square().mean() + 0.5 * (X.square().mean(0) * widths.square()).sum()
    return float(energy - tau * entropy(theta[None])[0])


def test_entropy_and_distances_are_those_of_gaussians(float64):
    before, after = torch.rand(2, 3, 8) + 0.5
    law = torch.distributions.Normal(before[:, 4:], before[:, :4])
    torch.testing.assert_close(entropy(before), law.entropy().sum(-1))
    torch.testing.assert_close(
        distance_sq("transport", before, after), (after - before).square().sum(-1)
    )
    s0, m0, s1, m1 = (x[0, k] for x in (before, after) for k in (slice(0, 4), slice(4, 8)))
    each = 1 + ((m0 - m1) ** 2 / 2 + (s0 - s1) ** 2) / (2 * s0 * s1)
    found = distance_sq("information", before, after)[0]
    torch.testing.assert_close(found, (2 * torch.arccosh(each) ** 2).sum())


@pytest.mark.parametrize("geometry", ["transport", "information"])
def test_no_flow_on_a_quadratic_is_faster_than_its_limit_in_two_hundred_cases(geometry, float64):
    source = torch.Generator().manual_seed(4)
    a, tau, time, s0 = torch.randn(4, 200, generator=source).mul(1.5).exp()
    mu0 = 2 * torch.randn(200, generator=source)
    if geometry == "transport":
        mu = torch.exp(-a * time) * mu0
        s = (tau / a + torch.exp(-2 * a * time) * (s0**2 - tau / a)).sqrt()
    else:
        kept = torch.exp(-tau * time)
        precision = kept / s0**2 + a / tau * (1 - kept)
        mu, s = kept / (s0**2 * precision) * mu0, precision**-0.5

    def free(mean, width):
        return 0.5 * a * (mean**2 + width**2) - tau * width.log()

    squared = distance_sq(geometry, torch.stack([s0, mu0], 1), torch.stack([s, mu], 1))
    ratio = time * (free(mu0, s0) - free(mu, s)) / squared
    assert bool((ratio > 1 - 1e-9).all())
    assert float(ratio.min()) < 1.2  # some are nearly geodesics


def test_expected_losses_are_unbiased():
    flat, task = belief()
    theta = flat.initial()
    made = expected_losses(flat, theta, task, task.train, seed=3, pairs=400)
    truth = exact(task, theta, 0.0)
    assert abs(float(made.mean()) - truth) < 4 * float(made.std()) / 20
    again = expected_losses(flat, theta, task, task.train, seed=3, pairs=2)
    assert again.tolist() == made[:2].tolist()


@pytest.mark.slow
@pytest.mark.parametrize(("geometry", "lr"), [("transport", 0.02), ("information", 1.0)])
def test_a_training_obeys_the_limit_of_its_population(geometry, lr):
    flat, task = belief()
    plan = capacity.Training(
        belief=geometry, temperature=0.01, lr=lr, epochs=60, batch_size=24, weight_decay=0.0
    )
    theta, order = flat.initial()[None], DataOrder.planned
    phase = train(flat, theta, task, plan, order(plan, 24, replicas=1, seed=0))
    cost = belief_cost(flat, theta, phase.theta, task, plan, time=phase.learning_time, seed=1)
    assert cost.verdict == "consistent"
    assert cost.inefficiency.value > 1
    for found, point in ((cost.free_energy_before, theta), (cost.free_energy_after, phase.theta)):
        assert abs(found.value - exact(task, point[0], 0.01)) < 4 * found.stderr
    spent = exact(task, theta[0], 0.01) - exact(task, phase.theta[0], 0.01)
    assert abs(cost.dissipation.value - spent) < 4 * cost.dissipation.stderr
    gained = float(entropy(phase.theta) - entropy(theta))
    assert cost.entropy_gain.value == pytest.approx(gained)
    # dE >= d^2/T + tau (H_0 - H_T)
    assert cost.commitment.value == pytest.approx(-0.01 * gained)
    assert cost.transport.value == pytest.approx(cost.distance_sq.value / phase.learning_time)
    assert cost.excess.value > 0
    parts = cost.transport.value + cost.commitment.value + cost.excess.value
    assert cost.energy_drop.value == pytest.approx(parts)


def gaussian_gibbs(task, tau, decay):
    """Mean and precision of e^{-V/tau}/Z of the linear regression."""
    size = len(task.train)
    precision = (task.train.x.T @ task.train.x / size + decay * torch.eye(3).double()) / tau
    mean = torch.linalg.solve(precision, task.train.x.T @ task.train.y[:, 0] / size / tau)
    return torch.distributions.MultivariateNormal(mean, precision_matrix=precision)


def test_the_divergence_from_the_gibbs_law_is_bounded_from_below_and_falls_by_what_was_spent():
    flat, task = belief()
    plan = capacity.Training(belief="transport", temperature=0.4, weight_decay=0.3)
    gibbs = gaussian_gibbs(task, 0.4, 0.3)
    near = torch.cat([gibbs.precision_matrix.diagonal().rsqrt(), gibbs.mean])[None]
    far = near + torch.tensor([0.1, 0, 0, 0.7, 0, 0]).double()
    made = belief_cost(flat, far, near, task, plan, time=1.0, seed=3)

    def truth(theta):
        law = torch.distributions.MultivariateNormal(theta[0, 3:], torch.diag(theta[0, :3] ** 2))
        return float(torch.distributions.kl_divergence(law, gibbs))

    fell = truth(far) - truth(near)
    assert abs(made.gibbs_fall.value - fell) < 4 * made.gibbs_fall.stderr
    assert made.gibbs_after.status is capacity.Status.OK
    assert abs(made.gibbs_after.value - truth(near)) < 4 * made.gibbs_after.stderr + 0.02
    assert made.gibbs_before.value < truth(far) + 4 * made.gibbs_before.stderr
    assert made.gibbs_before.value > made.gibbs_after.value
    # Where one draw carries all the weight it is still a lower bound, and says so: the larger one
    # of the draws at that end, and of those at the other with the fall.
    cold = capacity.Training(belief="transport", temperature=1e-3, weight_decay=0.3)
    gibbs = gaussian_gibbs(task, 1e-3, 0.3)
    deep = belief_cost(flat, far, near, task, cold, time=1.0, seed=3)
    assert deep.gibbs_after.status is capacity.Status.UNCALIBRATED
    assert "of 32 draws" in deep.gibbs_after.note
    assert deep.gibbs_before.value >= deep.gibbs_fall.value + deep.gibbs_after.value - 1e-6
    for bound, theta in ((deep.gibbs_before, far), (deep.gibbs_after, near)):
        assert bound.value < truth(theta) + 4 * bound.stderr
    back = belief_cost(flat, near, far, task, cold, time=1.0, seed=3)
    assert back.gibbs_after.value == pytest.approx(deep.gibbs_before.value)


def test_weights_that_are_even_leave_no_divergence():
    assert gibbs_bound(torch.full((2, 16, 2), -3.0)).value == pytest.approx(0, abs=1e-12)
    spread = torch.randn(1, 4000, 2, generator=torch.Generator().manual_seed(0)).double() * 0.5
    # Of Gaussian log weights it is half their variance.
    made = gibbs_bound(spread[:, :1000])
    assert abs(made.value - 0.125) < 4 * made.stderr


def test_a_detour_that_is_no_flow_violates_the_limit_and_a_strategy_has_no_verdict():
    flat, task = belief()
    plan = capacity.Training(belief="transport", temperature=0.01)
    before = flat.initial()[None]
    after = before + torch.tensor([0, 0, 0, 3.0, 0, 0])
    far = belief_cost(flat, before, after, task, plan, time=0.1, seed=1)
    assert far.verdict == "violated"
    held = belief_cost(flat, before, after, task, plan, time=0.1, seed=1, alone=False)
    assert held.verdict == "not defined"
    still = belief_cost(flat, before, before, task, plan, time=0.1, seed=1)
    assert still.inefficiency.value is None
    assert still.verdict == "inconclusive"


@pytest.mark.parametrize("width", [0.0, -0.1, math.inf])
def test_widths_without_an_entropy_are_refused(width):
    flat, task = belief()
    plan = capacity.Training(belief="transport", temperature=0.01)
    bad = flat.initial()[None].clone()
    bad[0, 1] = width
    with pytest.raises(ValueError, match=r"belief has a width that is 0, negative or not finite"):
        belief_cost(flat, flat.initial()[None], bad, task, plan, time=1.0, seed=0)
