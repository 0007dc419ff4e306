"""The reachable ball against quadratic tasks, whose cheapest solutions are geometry."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from capacity.criterion.preserving import Preserving
from capacity.networks.flat_model import FlatModel
from capacity.records.estimate import Estimate, Status, not_defined
from capacity.tasks.task import Split, Task
from capacity.thermo.reachable import Verdict, reachable_set, reachable_task
from quadratics import linear


def keep(basis: torch.Tensor) -> Preserving:
    return Preserving(
        removed_basis=basis, curvatures=torch.ones(len(basis)), tolerance=1.0, displacement=1.0
    )


def rows_task(x: torch.Tensor, y: torch.Tensor, loss: str = "mse") -> Task:
    return Task(name="B", train=Split(x, y), test=Split(x, y), loss=loss)


def rank_one(angle: float, duration: float, **settings):
    """A sees e_1, B a unit vector at an angle to it; both of one sample; theta = 0, y = 1."""
    x = torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    model = FlatModel(linear(2))
    theta = torch.zeros(1, 2, dtype=torch.float64)
    e1 = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    return reachable_task(
        model,
        theta,
        rows_task(x, torch.ones(1, 1, dtype=torch.float64)),
        keep(e1),
        duration=duration,
        residue_left=0.0,
        **settings,
    )


@pytest.mark.parametrize("angle", [0.2, 0.7, 1.3, math.pi / 2])
def test_the_ratio_of_two_rank_one_tasks_is_one_over_sine_squared(angle):
    found = rank_one(angle, duration=4.0)
    assert found.free.distance_squared.value == pytest.approx(1.0)
    assert found.preserving.distance_squared.value == pytest.approx(math.sin(angle) ** -2)
    assert found.transport_cost.value == pytest.approx(math.sin(angle) ** -2)
    extra = (math.sin(angle) ** -2 - 1) / 4
    assert found.extra_dissipation.value == pytest.approx(extra, abs=1e-12)
    assert found.preserving.least_dissipation.value == pytest.approx(math.sin(angle) ** -2 / 4)


def test_the_ball_turns_at_the_speed_limit():
    # The loss falls from 1/2 to 0: the free solution, W2 = 1, needs T >= 2.
    assert rank_one(0.5, duration=2.0).budget.value == pytest.approx(0.5)
    assert rank_one(0.5, duration=2.0).radius.value == pytest.approx(1.0)
    assert rank_one(0.5, duration=2.0).free.verdict is Verdict.IN
    assert rank_one(0.5, duration=1.999).free.verdict is Verdict.OUT
    rim = 2 / math.sin(0.5) ** 2
    assert rank_one(0.5, duration=rim * 1.001).preserving.verdict is Verdict.IN
    below = rank_one(0.5, duration=rim * 0.999)
    assert (below.free.verdict, below.preserving.verdict) == (Verdict.IN, Verdict.OUT)
    assert (below.free.inside, below.preserving.inside) == (1.0, 0.0)


def test_parallel_tasks_leave_no_preserving_solution():
    found = rank_one(0.0, duration=1e3)
    assert found.free.verdict is Verdict.IN
    assert found.preserving.verdict is Verdict.OUT
    assert found.preserving.distance.status is Status.NOT_DEFINED
    assert found.preserving.residue_left.value == pytest.approx(1.0)
    assert found.transport_cost.status is Status.NOT_DEFINED


def test_solutions_of_many_rows_are_least_squares():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(6, 20, generator=generator, dtype=torch.float64)
    y = torch.randn(6, 1, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(20, 4, generator=generator, dtype=torch.float64))[0].T
    model = FlatModel(linear(20))
    theta = torch.randn(1, 20, generator=generator, dtype=torch.float64)
    found = reachable_task(
        model, theta, rows_task(x, y), keep(basis), duration=1.0, residue_left=0.0
    )
    r = y[:, 0] - x @ theta[0]
    p = torch.eye(20, dtype=torch.float64) - basis.T @ basis
    for way, phi in ((found.free, x), (found.preserving, x @ p)):
        shortest = torch.linalg.pinv(phi) @ r
        assert way.distance.value == pytest.approx(float(shortest.norm()), rel=1e-9)


def test_leaving_a_share_of_the_residue_is_cheaper_by_the_closed_form():
    # One mode: |d|^2 = (1 - sqrt(share))^2 r^2 / lambda.
    found = reachable_set(
        torch.tensor([3.0]),
        torch.tensor([[2.0]]),
        torch.tensor([[0.5]]),
        duration=1.0,
        budget=1.0,
        residue_left=0.25,
    )
    assert found.free.distance_squared.value == pytest.approx(0.25 * 9 / 2)
    assert found.preserving.distance_squared.value == pytest.approx(0.25 * 9 / 0.5)


def test_leaving_a_share_is_the_constrained_minimum():
    values = torch.tensor([4.0, 1.0, 0.1]).double()
    r = torch.tensor([1.0, -2.0, 0.5]).double()
    found = reachable_set(
        r, values.diag(), values.diag(), duration=1.0, budget=1.0, residue_left=0.1
    )
    # Brute force over the multiplier.
    mu = torch.logspace(-6, 6, 200_001).double()[:, None]
    left = (r * mu / (values + mu)).square().sum(-1) / r.square().sum()
    at = int((left - 0.1).abs().argmin())
    brute = (values * (r / (values + mu[at])).square()).sum()
    assert found.free.distance_squared.value == pytest.approx(float(brute), rel=1e-3)


def test_replicas_on_both_sides_are_undecided():
    r = torch.tensor([[0.5], [1.0], [2.0], [0.4]]).double()
    one = torch.ones(4, 1, 1).double()
    found = reachable_set(r, one, one, duration=1.0, budget=1.2)
    assert found.free.verdict is Verdict.UNDECIDED
    assert found.free.inside == 0.75
    assert found.free.distance_squared.n == 4


def test_an_uncertain_budget_widens_the_rim():
    r, one = torch.tensor([1.0]), torch.ones(1, 1)
    sure = reachable_set(r, one, one, duration=1.0, budget=1.1)
    assert sure.free.verdict is Verdict.IN
    vague = Estimate(value=1.1, interval=(0.9, 1.3))
    assert reachable_set(r, one, one, duration=1.0, budget=vague).free.verdict is Verdict.UNDECIDED
    short = Estimate(value=0.9, interval=(0.7, 1.1))
    assert reachable_set(r, one, one, duration=1.0, budget=short).free.verdict is Verdict.UNDECIDED
    little = Estimate(value=0.5, interval=(0.3, 0.7))
    assert reachable_set(r, one, one, duration=1.0, budget=little).free.verdict is Verdict.OUT


def test_a_kernel_that_rounding_empties_is_out_only_beyond_its_floor():
    # The second mode's eigenvalue is below the floor 1e-6: the distance is at least 1e6.
    k = torch.diag(torch.tensor([1.0, 1e-9])).double()
    r = torch.tensor([0.0, 1.0]).double()
    assert reachable_set(r, k, k, duration=1.0, budget=9e5).free.verdict is Verdict.OUT
    open_ = reachable_set(r, k, k, duration=1.0, budget=2e6)
    assert open_.free.verdict is Verdict.UNDECIDED
    assert open_.free.distance.value is None


def test_a_task_that_is_learned_already_costs_nothing():
    found = reachable_set(
        torch.zeros(2), torch.eye(2), torch.eye(2), duration=1.0, budget=0.0, residue_left=0.0
    )
    assert found.free.distance.value == 0
    assert found.free.verdict is Verdict.IN
    assert found.transport_cost.status is Status.NOT_DEFINED


def test_cross_entropy_asks_for_its_residual():
    torch.manual_seed(1)
    model = FlatModel(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double())
    x, y = torch.randn(5, 4).double(), torch.tensor([0, 1, 2, 0, 1])
    basis = torch.zeros(0, model.size).double()
    theta = model.initial()[None]
    found = reachable_task(
        model, theta, rows_task(x, y, "cross_entropy"), keep(basis), duration=1.0, residue_left=0.0
    )
    jacobian = torch.func.jacrev(lambda t: model.outputs(t, x).reshape(-1))(theta[0])
    f = model.outputs(theta[0], x)
    r = (nn.functional.one_hot(y, 3) - f.softmax(-1)).reshape(-1)
    expected = r @ torch.linalg.pinv(jacobian @ jacobian.T) @ r
    assert found.free.distance_squared.value == pytest.approx(float(expected), rel=1e-6)
    # Nothing is forbidden, so both solutions are the same.
    assert found.transport_cost.value == pytest.approx(1.0)
    fall = nn.functional.cross_entropy(f, y) - nn.functional.cross_entropy(f + r.view_as(f), y)
    assert found.budget.value == pytest.approx(float(fall))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"duration": 0.0}, "duration"),
        ({"residue_left": 1.0}, "residue_left"),
        ({"budget": math.nan}, "budget"),
        ({"budget": torch.ones(3)}, "one per replica"),
        ({"budget": not_defined("no entropy")}, "no entropy"),
        ({"kernel": torch.ones(3, 3)}, "kernel has shape"),
        ({"demand": torch.tensor([math.nan, 1.0])}, "demand"),
        ({"rank_tolerance": -1.0}, "rank_tolerance"),
    ],
)
def test_bad_input_is_refused(changed, said):
    given = {
        "demand": torch.ones(2),
        "kernel": torch.eye(2),
        "preserving_kernel": torch.eye(2),
        "duration": 1.0,
        "budget": 1.0,
    } | changed
    demand, kernel, preserving = (given.pop(n) for n in ("demand", "kernel", "preserving_kernel"))
    with pytest.raises(ValueError, match=said):
        reachable_set(demand, kernel, preserving, **given)


def test_every_replica_needs_its_projector():
    model = FlatModel(linear(2))
    task = rows_task(torch.ones(1, 2).double(), torch.ones(1, 1).double())
    with pytest.raises(ValueError, match="1 projectors for 3 replicas"):
        reachable_task(
            model, torch.zeros(3, 2).double(), task, keep(torch.eye(2)[:1]), duration=1.0
        )
