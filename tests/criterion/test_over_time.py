"""R_A(t) over the steps of one training: when it cannot increase, and when it may.

R_A(t) = 1/2 log det(1 + eps^-2 J_t' P J_t) at a fixed P (its curvature re-evaluated at theta_t is
another P, for which nothing holds over time). A step is theta -> M theta to first order, and
J_(t+1) = M J_t, so R_A does not increase

- if M' P M <= P: the step contracts the preserving directions and turns none of those that P
  removes into them, as where M is a contraction that commutes with P;
- if P = 1 and |M| <= 1, singular value by singular value, whatever the steps' directions.

A contraction that does not commute with P may turn what was reached outside of the preserving space
into it, and a step along negative curvature stretches: both raise R_A, rightly. What holds for all
contractions is that R_A(t) is at most what is reached with nothing removed, and at most rank P.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import capacity
from capacity.criterion.compatible_capacity import literal_capacity
from capacity.criterion.preserving import Preserving

SIZE, EPS = 12, 0.1


class Composed:
    """J_t as a matrix."""

    def __init__(self, matrix):
        self.matrix, self.size = matrix, len(matrix)
        self.products = {"forward": 0, "adjoint": 0}
        self.like = matrix[0]

    def forward(self, tangents):
        self.products["forward"] += len(tangents)
        return tangents @ self.matrix.T

    def adjoint(self, cotangents):
        self.products["adjoint"] += len(cotangents)
        return cotangents @ self.matrix


def draw(seed):
    return torch.Generator().manual_seed(seed)


def basis_of(seed, size=SIZE):
    random = torch.randn(size, size, generator=draw(seed), dtype=torch.float64)
    return torch.linalg.qr(random)[0]


def removing(rows):
    return Preserving(
        removed_basis=rows, curvatures=torch.ones(len(rows)), tolerance=1.0, displacement=1.0
    )


def room(jacobian, preserving, like):
    """R_A in directions, as it is reported; the probes span the space, so that it is exact."""
    (made,) = literal_capacity(
        jacobian, preserving, like=like, eps=(EPS,), probes=len(like), nodes=20, generator=draw(0)
    )
    assert made.directions.status == "ok"
    return made.directions.value


def exactly(matrix, preserving):
    inner = preserving.project(matrix.T) @ matrix  # J' P J
    gram = torch.eye(len(matrix)).to(matrix) + inner / EPS**2
    return float(torch.linalg.slogdet(gram)[1]) / math.log1p(EPS**-2)


def steps(seed, *, commuting):
    """Contractions I - lr H, of curvature in [0, 2 / lr], and the rows that P removes."""
    own, count = basis_of(seed), 3
    made = []
    for k in range(8):
        curvature = torch.rand(SIZE, generator=draw(100 * seed + k), dtype=torch.float64)
        axes = own if commuting else basis_of(1000 * seed + k)
        if commuting:
            # Any turn within the preserving directions, and within the others.
            turn = torch.block_diag(basis_of(k, count), basis_of(k + 50, SIZE - count))
            axes = own @ turn
        made.append(axes @ torch.diag(1 - 2 * curvature) @ axes.T)
    return made, removing(own[:, :count].T.contiguous())


@pytest.mark.parametrize("seed", range(6))
def test_contractions_that_mix_nothing_in_never_increase_it(seed):
    found, preserving = steps(seed, commuting=True)
    jacobian = torch.eye(SIZE).double()
    before = room(None, preserving, jacobian[0])
    assert before == pytest.approx(SIZE - 3)
    for step in found:
        jacobian = step @ jacobian
        now = room(Composed(jacobian), preserving, jacobian[0])
        assert now == pytest.approx(exactly(jacobian, preserving), rel=1e-6)
        assert now <= before + 1e-9
        before = now
    assert before < SIZE - 4, "it falls, too"


@pytest.mark.parametrize("seed", range(6))
def test_any_contractions_never_increase_what_is_reached_at_all(seed):
    found, preserving = steps(seed, commuting=False)
    everything = removing(torch.zeros(0, SIZE).double())
    jacobian = torch.eye(SIZE).double()
    before = float(SIZE)
    for step in found:
        jacobian = step @ jacobian
        whole = room(Composed(jacobian), everything, jacobian[0])
        kept = room(Composed(jacobian), preserving, jacobian[0])
        assert kept == pytest.approx(exactly(jacobian, preserving), rel=1e-6)
        assert whole <= before + 1e-9
        assert kept <= min(whole, SIZE - 3) + 1e-9
        before = whole


def test_it_rises_where_a_step_turns_or_stretches():
    removed = torch.eye(3).double()[:1]
    preserving = removing(removed)
    # The second direction was lost; then the first, which is removed, turns into its place.
    lost = torch.diag(torch.tensor([1.0, 0.0, 1.0]).double())
    turn = torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 1]]).double()
    rooms = [room(Composed(j), preserving, j[0]) for j in (lost, turn @ lost)]
    assert rooms == pytest.approx([1, 2])
    (made,) = literal_capacity(
        Composed(2 * torch.eye(3).double()), preserving,
        like=lost[0], eps=(EPS,), probes=3, nodes=20, generator=draw(0),
    )  # fmt: skip
    assert made.directions.value == pytest.approx(2 * math.log1p(400) / math.log1p(100))
    assert made.directions.value > 2
    (made,) = literal_capacity(
        Composed(3 * torch.eye(3).double()), preserving,
        like=lost[0], eps=(EPS,), probes=3, nodes=20, generator=draw(0),
    )  # fmt: skip
    assert "stretches some" in made.directions.note


@pytest.mark.slow
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_over_a_tracked_training_of_a_convex_loss(decay):
    """A linear network's loss is convex: below 2 over its curvature every step is a contraction."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2).double()
    x = torch.randn(60, 4).double()
    y = (x[:, 0] > 0).long()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, weight_decay=decay)
    tracker = capacity.TransportTracker(model, "cross_entropy", optimizer, tangents=10)
    like = torch.zeros(10).double()
    removed = basis_of(4, 10)[:2].contiguous()
    everything, preserving = removing(removed[:0]), removing(removed)
    before = 10.0
    for _ in range(5):
        for rows in torch.randperm(60, generator=draw(1)).split(15):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            tracker.observe(x[rows], y[rows])
            optimizer.step()
        jacobian = tracker.jacobian()
        matrix = jacobian.forward(torch.eye(10).double()).T
        whole = room(jacobian, everything, like)
        kept = room(jacobian, preserving, like)
        for found, kind in ((whole, everything), (kept, preserving)):
            assert found == pytest.approx(exactly(matrix, kind), rel=1e-5)
        assert float(torch.linalg.matrix_norm(matrix, 2)) <= 1 + 1e-9
        assert whole < before
        assert kept <= min(whole, 8) + 1e-9
        before = whole
