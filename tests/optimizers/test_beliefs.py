"""Both geometries of a Gaussian belief against the closed forms of their flows on a quadratic."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import capacity
from capacity.optimizers.beliefs import GEOMETRIES
from capacity.optimizers.from_recipe import from_training
from capacity.thermo.belief_cost import distance_sq, entropy

A, M, TAU, TIME = 1.3, 0.4, 0.2, 1.5
START = torch.tensor([0.7, -1.1], dtype=torch.float64)  # width, mean


def energy(theta):
    width, mean = theta.tolist()
    return 0.5 * A * ((mean - M) ** 2 + width**2) - TAU * float(entropy(theta[None]))


def gradient(theta):
    return torch.stack([A * theta[0], A * (theta[1] - M)])


def followed(geometry, steps, width_rate=1.0):
    """The end of the flow, and its action in its own metric."""
    update, lr = GEOMETRIES[geometry](TAU, width_rate=width_rate), TIME / steps
    state, action = update.init(START), 0.0
    for count in range(1, steps + 1):
        after = update.step(state, gradient(state[0]), lr, count)
        pair = state[0][None], after[0][None]
        action += float(distance_sq(geometry, *pair, width_rate=width_rate)) / lr
        state = after
    return torch.cat([state[0], torch.tensor([action])])


def extrapolated(geometry):
    """The limit of small steps, by Romberg's rule from four numbers of them."""
    rows = [followed(geometry, 100 * 2**k) for k in range(4)]
    for order in range(1, 4):
        rows = [
            (2**order * fine - coarse) / (2**order - 1) for coarse, fine in itertools.pairwise(rows)
        ]
    return rows[0]


def closed_form(geometry):
    width, mean = START.tolist()
    if geometry == "transport":
        variance = TAU / A + math.exp(-2 * A * TIME) * (width**2 - TAU / A)
        return variance**0.5, M + math.exp(-A * TIME) * (mean - M)
    kept = math.exp(-TAU * TIME)
    precision = kept / width**2 + A / TAU * (1 - kept)
    return precision**-0.5, M + kept / (width**2 * precision) * (mean - M)


@pytest.mark.parametrize("width_rate", [0.1, 3.0])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_widths_at_a_rate_of_their_own_are_a_flow_in_a_metric_of_its_own(
    geometry, width_rate, float64
):
    *end, action = (
        2 * followed(geometry, 400, width_rate) - followed(geometry, 200, width_rate)
    ).tolist()
    after, plain = torch.tensor(end), followed(geometry, 400)
    drop = energy(START) - energy(after)
    assert action == pytest.approx(drop, rel=1e-3)
    assert abs(end[0] / float(plain[0]) - 1) > 0.005
    assert TIME * drop > float(
        distance_sq(geometry, START[None], after[None], width_rate=width_rate)
    )
    if geometry == "transport":  # the widths' time runs so much faster
        variance = TAU / A + math.exp(-2 * A * TIME * width_rate) * (0.7**2 - TAU / A)
        assert end[0] == pytest.approx(variance**0.5, rel=1e-4)


def test_a_distance_with_widths_of_another_rate_has_the_metric_it_says(float64):
    point, move = torch.tensor([[0.4, 0.3]]), 1e-4 * torch.tensor([[0.7, -0.4]])
    found = distance_sq("information", point - move / 2, point + move / 2, width_rate=0.25)
    ds, dm = move[0]
    assert float(found) == pytest.approx(float((dm**2 + 8 * ds**2) / 0.4**2), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_flow_is_the_closed_form_and_costs_the_drop_of_free_energy(geometry, float64):
    *end, action = extrapolated(geometry).tolist()
    assert end == pytest.approx(closed_form(geometry), rel=1e-6)
    after = torch.tensor(end)
    drop = energy(START) - energy(after)
    assert action == pytest.approx(drop, rel=1e-5)
    assert TIME * drop > float(distance_sq(geometry, START[None], after[None]))


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_widths_settle_at_the_stationary_law_for_long_steps(geometry, momentum, float64):
    update = GEOMETRIES[geometry](TAU, momentum=momentum)
    state = update.init(START)
    for count in range(1, 400):
        state = update.step(state, gradient(state[0]), 0.5, count)
    assert state[0].tolist() == pytest.approx([math.sqrt(TAU / A), M], rel=1e-9)


def test_no_width_reaches_zero_however_far_a_step_goes(float64):
    theta, steep = torch.tensor([0.1, 0.1, 0.0, 0.0]), torch.tensor([1e6, -1e6, 0.0, 0.0])
    (moved,) = GEOMETRIES["transport"](1e-4).step((theta,), steep, 1.0, 1)
    # w+ solves w+^2 - w w+ = tau lr, with w = -1e6: about tau lr / 1e6.
    assert float(moved[0]) == pytest.approx(1e-10, rel=1e-3)
    assert float(moved[1]) == pytest.approx(1e6)


def test_weight_decay_is_a_quadratic_prior(float64):
    for geometry, kind in GEOMETRIES.items():
        plan = capacity.Training(belief=geometry, temperature=0.2, weight_decay=0.3)
        (made,) = from_training(plan).step((START,), gradient(START), 0.1, 1)
        (direct,) = kind(0.2).step((START,), gradient(START) + 0.3 * START, 0.1, 1)
        torch.testing.assert_close(made, direct)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"belief": "transport"}, r"belief needs a temperature, as temperature = 1e-4"),
        ({"belief": "bures", "temperature": 0.1}, r"belief.geometry = 'bures' is not known"),
        (
            {"belief": {"geometry": "transport", "width": 0.0}, "temperature": 0.1},
            r"belief.width = 0.0",
        ),
        (
            {"belief": "transport", "temperature": 0.1, "optimizer": "adam"},
            r"belief = 'transport' has steps of its own, which optimizer = 'adam' would not",
        ),
        ({"belief": "information", "temperature": math.inf}, r"temperature = inf"),
    ],
)
def test_plans_that_move_no_belief_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        capacity.Training(**fields)
