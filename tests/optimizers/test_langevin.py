"""Langevin dynamics with inertia and in its exact form, against their stationary laws."""

from __future__ import annotations

import math

import pytest
import torch

from capacity.optimizers.langevin import ExactLangevin, UnderdampedLangevin


@pytest.mark.slow
def test_the_exact_step_does_not_depend_on_how_time_is_cut(float64):
    rate, target = torch.tensor([0.0, 0.5, 3.0]), torch.tensor([0.3, -1.0, 2.0])
    theta = torch.zeros(4000, 3)
    for cuts in (1, 5):
        update = ExactLangevin(0.4, rate, target, seed=cuts)
        state = update.init(theta)
        for count in range(1, cuts + 1):
            state = update.step(state, theta, 1.5 / cuts, count)
        kept = torch.exp(-1.5 * rate)
        variance = torch.tensor([2 * 0.4 * 1.5, *(0.4 / rate[1:] * (1 - kept[1:] ** 2))])
        mean = target * (1 - kept)
        error = 3 / math.sqrt(len(theta))
        assert bool(((state[0].mean(0) - mean).abs() < error * variance.sqrt()).all())
        assert bool(((state[0].var(0) / variance - 1).abs() < error * math.sqrt(2)).all())


def test_without_noise_the_exact_step_is_the_exponential(float64):
    update = ExactLangevin(0.0, 2.0, 1.0)
    (theta,) = update.step((torch.zeros(2, 3),), torch.zeros(2, 3), 0.7, 1)
    torch.testing.assert_close(theta, torch.full((2, 3), 1 - math.exp(-1.4)))


def test_replicas_have_their_own_noise_wherever_they_stand():
    update = UnderdampedLangevin(0.5, seed=3)
    together = update.init(torch.zeros(4, 6))[1]
    later = UnderdampedLangevin(0.5, seed=3, first=2).init(torch.zeros(2, 6))[1]
    assert torch.equal(together[2:], later)
    assert not torch.equal(together[0], together[1])


@pytest.mark.slow
def test_a_ballistic_start_and_a_fluctuation_dissipation_end(float64):
    # Without force and friction theta moves at the speed of its momentum.
    update = UnderdampedLangevin(0.5, friction=1e-12, seed=1)
    state = update.init(torch.zeros(3, 5))
    moved = update.step(state, torch.zeros(3, 5), 0.2, 1)
    torch.testing.assert_close(moved[0], 0.2 * state[1], rtol=1e-4, atol=1e-5)
    # With both, momenta keep the temperature.
    update = UnderdampedLangevin(0.5, friction=2.0, seed=1)
    state = update.init(torch.zeros(800, 5))
    for count in range(1, 40):
        state = update.step(state, torch.zeros(800, 5), 0.1, count)
    assert float(state[1].var()) == pytest.approx(0.5, rel=3 * math.sqrt(2 / 4000))


def test_friction_must_be_there():
    with pytest.raises(ValueError, match="friction = 0"):
        UnderdampedLangevin(0.5, friction=0)
