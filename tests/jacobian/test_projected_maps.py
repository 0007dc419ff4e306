"""J_t through projectors and by layer, against the dense blocks."""

from __future__ import annotations

import pytest
import torch

import capacity
from capacity.jacobian.layer_blocks import layer_projectors
from capacity.jacobian.projected_maps import Coordinates
from capacity.jacobian.spectrum import spectrum
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from dense import MatrixMap, dense_jacobian, digits_task, network, trained

TRAINING = Training(optimizer="momentum", lr=0.05, epochs=4, batch_size=100)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def made(float64):
    model = FlatModel(network(64, 3, 10))
    trajectory = trained(model, digits_task(), TRAINING)
    dense = dense_jacobian(trajectory)
    return model, TrainingJacobian([trajectory]), dense


def removing(count, size):
    """P = 1 - U'U with `count` random orthonormal rows U, and a basis of what it keeps."""
    full = torch.linalg.qr(torch.randn(size, size, generator=generator(5)).double())[0].T
    rows = full[:count]
    return (lambda v: v - (v @ rows.T) @ rows), full[count:]


class Ranked:
    def __init__(self, projector, rank):
        self._projector, self.rank = projector, rank

    def __call__(self, rows):
        return self._projector(rows)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["krylov", "dense"])
@pytest.mark.parametrize("ranked", [True, False])
def test_restricted_spectrum(made, method, ranked):
    _, _, dense = made
    projector, basis = removing(40, len(dense))
    block = basis @ dense @ basis.T
    truth = torch.linalg.svdvals(block)
    found = spectrum(
        MatrixMap(dense),
        top=8,
        sweeps=12,
        generator=generator(),
        projector=Ranked(projector, len(basis)) if ranked else projector,
        method=method,
        vectors=True,
    )
    values = torch.tensor([s.value for s in found.singular_values])
    torch.testing.assert_close(values, truth[:8], rtol=1e-3, atol=0)
    assert found.top_resolved == 8
    for rows in (found.vectors.left, found.vectors.right):
        torch.testing.assert_close(projector(rows), rows, rtol=0, atol=1e-8)
    for name, exact in {
        "chaotic": (truth > 1.1).sum(),
        "bulk": ((truth > 0.9) & (truth <= 1.1)).sum(),
        "stable": (truth <= 0.9).sum(),
    }.items():
        estimate = getattr(found.counts, name)
        assert abs(estimate.value - int(exact)) <= 1e-9 + 4 * (estimate.stderr or 0.0), name
    # Nothing of what was projected away is counted as a singular value of 0.
    if ranked or method == "dense":
        assert found.dimension == len(basis)
    else:
        assert found.dimension == pytest.approx(len(basis), rel=0.05)


@pytest.mark.slow
def test_wrong_projectors_are_refused(made):
    _, _, dense = made
    operator, size = MatrixMap(dense), len(dense)
    rows = torch.linalg.qr(torch.randn(size, 3, generator=generator()).double())[0].T
    slanted = rows + torch.randn(3, size, generator=generator(1)).double() / size**0.5
    inverse = torch.linalg.inv(slanted @ rows.T)
    for projector, said in (
        (lambda v: v @ torch.zeros(7, 7, dtype=v.dtype), f"projector .*length P = {size}"),
        (lambda v: v[:, :5], r"projector maps rows \(2, 235\) to \(2, 5\)"),
        (lambda v: 0.5 * v, "projector is not idempotent"),
        (lambda v: ((v @ slanted.T) @ inverse.T) @ rows, "projector is not symmetric"),
        (torch.zeros_like, "nothing is left"),
    ):
        with pytest.raises(ValueError, match=said):
            spectrum(operator, top=1, sweeps=1, generator=generator(), projector=projector)
    with pytest.raises(ValueError, match="top = 9 exceeds the 4 parameters"):
        spectrum(operator, top=9, sweeps=1, generator=generator(), projector=Coordinates(3, 4))
    assert operator.products == {"forward": 0, "adjoint": 0}, "refused before any product"


def test_parameters_of_the_network_itself_are_layers_too():
    found = layer_projectors(["scale", "a.weight", "a.bias", "b.w", "a.late"], [1, 6, 2, 3, 4])
    assert found == {
        "scale": Coordinates(0, 1),
        "a": Coordinates(1, 8),
        "b": Coordinates(9, 3),
        "a.late": Coordinates(12, 4),
    }


@pytest.mark.slow
def test_the_tracker_takes_layers_and_projectors(float64):
    model = network(5, 6, 3)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.3)
    tracker = capacity.TransportTracker(model, "cross_entropy", optimiser, tangents=4)
    x, y = torch.randn(16, 5), torch.randint(3, (16,))
    for _ in range(8):
        tracker.observe(x, y)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    dense = dense_jacobian(tracker.jacobian().trajectories[0])
    found = tracker.spectrum(layer="2", method="krylov")
    truth = torch.linalg.svdvals(dense[36:, 36:])
    values = torch.tensor([s.value for s in found.singular_values])
    torch.testing.assert_close(values, truth[:10])
    part = Coordinates(36, 21)
    assert tracker.spectrum(projector=part).frobenius_sq.value == pytest.approx(
        float(truth.square().sum())
    )
    with pytest.raises(ValueError, match="layer = '1' is not known; accepted: 0, 2"):
        tracker.spectrum(layer="1")
    with pytest.raises(ValueError, match="layer and projector"):
        tracker.spectrum(layer="2", projector=part)


@pytest.mark.slow
def test_composed_over_tasks(float64):
    model = FlatModel(network(64, 3, 10))
    phases = [trained(model, digits_task(labels), TRAINING) for labels in ((0, 1, 2), (3, 4, 5))]
    first, second = (dense_jacobian(phase) for phase in phases)
    found = spectrum(TrainingJacobian(phases), top=5, sweeps=10, generator=generator())
    values = torch.tensor([s.value for s in found.singular_values])
    torch.testing.assert_close(values, torch.linalg.svdvals(second @ first)[:5])
