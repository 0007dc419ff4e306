"""Capacity, dimension and forgetting where all of them are known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from capacity.criterion.compatible_capacity import literal_capacity
from capacity.criterion.preserving import Preserving, preserving_projector
from capacity.criterion.task_dimension import literal_dimension
from capacity.criterion.transition import literal_verdict
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.networks.flat_model import FlatModel
from capacity.products.curvature_operators import ggn, hessian
from capacity.recipe.config import Training
from capacity.tasks.task import Split, Task
from dense import MatrixMap, trained
from quadratics import linear, quadratic

CURVATURES = torch.tensor([3.0, 1.5, 0.8, 0.3, 0.05, 0.0, 0.0, 0.0]).double()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def orthogonal(size, seed=0):
    return torch.linalg.qr(torch.randn(size, size, generator=generator(seed)).double())[0]


def removing(basis):
    return Preserving(
        removed_basis=basis,
        curvatures=torch.ones(len(basis)),
        tolerance=1.0,
        displacement=1.0,
    )


def directions(jacobian, preserving, like, eps):
    made = literal_capacity(
        jacobian,
        preserving,
        like=like,
        eps=(eps,),
        probes=4,
        nodes=40,
        generator=generator(),
    )[0]
    return made.directions.value, made.nats.value


@pytest.mark.parametrize("eps", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("kept", [1, 7, 20])
def test_an_isometry_onto_k_directions_counts_k(float64, eps, kept):
    # J rotates: every preserving direction is reached at its full length.
    q = orthogonal(20)
    found, nats = directions(
        MatrixMap(orthogonal(20, seed=1)), removing(q[kept:]), torch.zeros(20), eps
    )
    assert found == pytest.approx(kept, rel=1e-6)
    assert nats == pytest.approx(kept / 2 * math.log1p(eps**-2), rel=1e-6)


def test_limits_of_eps(float64):
    # A partial isometry times sizes: eps -> 0 counts the rank, eps -> infinity |P J|_F^2.
    sizes = torch.tensor([2.0, 1.0, 0.5, 0.25] + [0.0] * 8)
    jacobian = MatrixMap(orthogonal(12) * sizes @ orthogonal(12, seed=1))
    preserving = removing(orthogonal(12, seed=2)[:3])
    pj = jacobian.matrix - preserving.removed_basis.T @ (preserving.removed_basis @ jacobian.matrix)
    whole = removing(torch.zeros(0, 12))
    # Logarithmically slow: 4 + sum log s^2 / log eps^-2.
    for eps in (1e-3, 1e-6):
        near = 4 + float(sizes[:4].square().log().sum()) / math.log(eps**-2)
        assert directions(jacobian, whole, torch.zeros(12), eps)[0] == pytest.approx(near, rel=1e-5)
    far = directions(jacobian, preserving, torch.zeros(12), 1e4)[0]
    assert far == pytest.approx(float(pj.square().sum()), rel=1e-6)


@pytest.mark.parametrize(("tolerance", "removed"), [(1e-9, 5), (0.1, 4), (0.5, 2), (1e3, 0)])
def test_limits_of_the_tolerance(float64, tolerance, removed):
    made = quadratic("A", CURVATURES, seed=3)
    model = FlatModel(linear(8))
    found = preserving_projector(
        ggn(model, made.task, model.initial(), made.task.train),
        model.initial(),
        tolerance=tolerance,
        displacement=1.0,
        generator=generator(),
    )
    assert found.removed == removed == int((2 * tolerance < CURVATURES).sum())
    soft = CURVATURES / (CURVATURES + 2 * tolerance)
    assert found.soft_removed.value == pytest.approx(float(soft.sum()), rel=1e-6)


@pytest.mark.slow
def test_capacity_of_a_trained_quadratic(float64):
    # J = (1 - lr H_A)^t: what training on A contracted is no longer accessible.
    made, lr, epochs = quadratic("A", CURVATURES, seed=3), 0.4, 7
    model = FlatModel(linear(8))
    training = Training(lr=lr, epochs=epochs, batch_size=24)
    trajectory = trained(model, made.task, training)
    jacobian = TrainingJacobian([trajectory])
    j = torch.linalg.matrix_power(torch.eye(8) - lr * made.hessian, epochs)
    torch.testing.assert_close(jacobian.forward(torch.eye(8)), j, rtol=1e-6, atol=1e-9)
    preserving = preserving_projector(
        ggn(model, made.task, trajectory.like, made.task.train),
        trajectory.like,
        tolerance=0.3,
        displacement=1.0,
        generator=generator(),
    )
    # P_A and J share the eigenvectors of H_A.
    kept = CURVATURES[CURVATURES <= 0.6]
    for eps in (0.01, 0.1, 1.0):
        exact = 0.5 * torch.log1p((1 - lr * kept) ** (2 * epochs) / eps**2).sum()
        nats = directions(jacobian, preserving, trajectory.like, eps)[1]
        assert nats == pytest.approx(float(exact), rel=1e-6)


@pytest.mark.slow
def test_dimension_of_a_quadratic(float64):
    old, new = quadratic("A", CURVATURES, seed=3), quadratic("B", CURVATURES.flip(0), seed=4)
    model = FlatModel(linear(8))
    preserving = preserving_projector(
        ggn(model, old.task, model.initial(), old.task.train),
        model.initial(),
        tolerance=0.3,
        displacement=1.0,
        generator=generator(),
    )
    found = literal_dimension(
        hessian(model, new.task, model.initial(), new.task.train),
        preserving,
        like=model.initial(),
        generator=generator(),
    )
    p = torch.eye(8) - preserving.removed_basis.T @ preserving.removed_basis
    values = torch.linalg.eigvalsh(p @ new.hessian @ p)
    top = float(values.max())
    assert found.top_curvature.value == pytest.approx(top, rel=1e-6)
    assert found.stable_rank.value == pytest.approx(float(values.square().sum()) / top**2, rel=1e-6)
    assert found.intrinsic.value == pytest.approx(float(values.sum()) / top, rel=1e-6)
    assert found.negative_share.value == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
def test_forgetting_of_a_quadratic_stands_while_capacity_does_not_see_the_angle(float64):
    # Forgetting = 1/2 (b - theta_A)' Q H_A Q (b - theta_A), Q = 1 - (1 - lr H_B)^t. Turning B into
    # A's null space takes it to 0, while m_B and R_A do not move: why the literal form fails.
    old, lr, epochs = quadratic("A", CURVATURES, seed=3), 0.3, 12
    _, basis = torch.linalg.eigh(old.hessian)
    nothing, steep = basis[:, :2], basis[:, -2:]
    model = FlatModel(linear(8))
    preserving = preserving_projector(
        ggn(model, old.task, model.initial(), old.task.train),
        model.initial(),
        tolerance=0.3,
        displacement=1.0,
        generator=generator(),
    )
    found = []
    for angle in (0.0, math.pi / 4, math.pi / 2):
        rows = (math.cos(angle) * nothing + math.sin(angle) * steep).T
        target = rows @ old.minimum + 1.0
        split = Split(rows, target[:, None])
        new = Task(name="B", train=split, test=split, loss="mse")
        start = linear(8)
        with torch.no_grad():
            start.weight.copy_(old.minimum[None])
        at = FlatModel(start)
        trajectory = trained(at, new, Training(lr=lr, epochs=epochs, batch_size=2))
        *_, last = trajectory.forwards()
        slope = torch.func.grad(trajectory.loss)(last.state[0], last.x, last.y)
        rise = float(old.loss(last.state[0] - lr * slope))
        h = rows.T @ rows / 2
        q = torch.eye(8) - torch.linalg.matrix_power(torch.eye(8) - lr * h, epochs)
        moved = q @ (torch.linalg.pinv(rows) @ target - rows.T @ rows @ old.minimum)
        assert rise == pytest.approx(float(0.5 * moved @ old.hessian @ moved), abs=1e-6)
        theta = at.initial()
        demand = literal_dimension(
            hessian(at, new, theta, split), preserving, like=theta, generator=generator()
        )
        found.append((rise, demand))
    rises = [rise for rise, _ in found]
    assert rises[0] == pytest.approx(0, abs=1e-10)
    assert rises[0] < rises[1] < rises[2]
    # Where it turns into the null space wholly, or half: the same stable rank, two.
    ranks = [demand.stable_rank.value for _, demand in found[:2]]
    assert ranks == pytest.approx([2.0, 2.0], rel=1e-6)
    # B inside what A needs: nothing is left to need, a case of its own.
    assert found[2][1].no_demand


def linear_network(inputs, hidden, outputs):
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False), nn.Linear(hidden, outputs, bias=False)
    )


def realised(model, count=40, inputs=6):
    x = torch.randn(count, inputs)
    with torch.no_grad():
        split = Split(x, model(x))
    return Task(name="A", train=split, test=split, loss="mse")


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [1, 2, 3])
def test_linear_network_preserves_its_symmetry_and_nothing_else(float64, hidden):
    # f = W_2 W_1 x: the tangent space of rank-r matrices has r (d + C - r) dimensions, and what is
    # left of the r (d + C) parameters is the symmetry W_1 -> M W_1, W_2 -> W_2 M^-1: r^2.
    module = linear_network(6, hidden, 4)
    model, task = FlatModel(module), realised(module)
    theta = model.initial()
    preserving = preserving_projector(
        ggn(model, task, theta, task.train),
        theta,
        tolerance=1e-9,
        displacement=1.0,
        generator=generator(),
    )
    assert preserving.removed == hidden * (6 + 4 - hidden)
    assert directions(None, preserving, theta, 0.1)[0] == pytest.approx(hidden**2, rel=1e-9)
    # B = A, learned: its Hessian is A's GGN, so it asks nothing of the space that preserves A.
    demand = literal_dimension(
        hessian(model, task, theta, task.train), preserving, like=theta, generator=generator()
    )
    assert demand.no_demand
    assert demand.stable_rank.value is None


def test_a_projector_that_keeps_nothing(float64):
    preserving = removing(torch.eye(6))
    jacobian = MatrixMap(orthogonal(6))
    for made in (None, jacobian):
        found = literal_capacity(
            made,
            preserving,
            like=torch.zeros(6),
            eps=(0.1,),
            probes=4,
            nodes=4,
            generator=generator(),
        )[0]
        assert found.directions.value == found.nats.value == 0.0
        assert "keeps nothing" in found.nats.note
    demand = literal_dimension(lambda v: v, preserving, like=torch.zeros(6), generator=generator())
    assert not demand.no_demand
    assert "keeps nothing" in demand.stable_rank.note
    said = literal_verdict(found, demand)
    assert (said.verdict, said.margin) == ("undecided", None)
    assert "keeps nothing" in said.note
