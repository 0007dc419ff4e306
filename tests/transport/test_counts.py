"""The three parts of J_t's spectrum against the dense singular values."""

from __future__ import annotations

import pytest
import torch

from capacity.config import Training
from capacity.dynamics.flat import FlatModel
from capacity.estimate import Status
from capacity.transport.counts import spectral_parts
from capacity.transport.jacobian import TrainingJacobian
from dense import dense_jacobian, digits_task, network, trained


def test_parts_match_the_dense_spectrum(float64):
    training = Training(optimizer="momentum", lr=0.05, epochs=8, batch_size=100)
    trajectory = trained(FlatModel(network(64, 3, 10)), digits_task(), training)
    dense = dense_jacobian(trajectory)
    singular = torch.linalg.svdvals(dense)
    deviation = torch.linalg.svdvals(dense - torch.eye(len(dense)))
    truth = {
        "chaotic": (singular > 1.1).sum(),
        "bulk": ((singular > 0.9) & (singular <= 1.1)).sum(),
        "stable": (singular <= 0.9).sum(),
        "moved": (deviation > 0.1).sum(),
    }
    jacobian = TrainingJacobian([trajectory])
    generator = torch.Generator().manual_seed(1)
    found = spectral_parts(jacobian, steps=50, generator=generator)
    for name, exact in truth.items():
        estimate = getattr(found, name)
        low, high = estimate.interval
        # The interval is a 90 % one, and there are four: about four standard errors in all.
        spare = 2.4 * estimate.stderr
        assert low - spare <= int(exact) <= high + spare, (name, exact, estimate)
        if estimate.status is Status.OK:
            assert estimate.value == pytest.approx(int(exact), rel=0.25), name
    assert int(truth["chaotic"]) > 3
    assert found.chaotic.value + found.bulk.value + found.stable.value == pytest.approx(235)
    # Something is resolved: an estimator that always gives up would pass the rest.
    assert Status.OK in {getattr(found, name).status for name in truth}
    assert found.products_forward == found.products_adjoint == 2 * 8 * 50
    assert found.to_dict()["moved"]["status"] == str(found.moved.status)


def test_bad_thresholds(float64):
    training = Training(lr=0.1, epochs=1, batch_size=200)
    jacobian = TrainingJacobian([trained(FlatModel(network(64, 2, 10)), digits_task(), training)])
    with pytest.raises(ValueError, match="must be below chaotic_above"):
        spectral_parts(jacobian, stable_below=1.2, generator=torch.Generator())
    with pytest.raises(ValueError, match="moved_above = 0"):
        spectral_parts(jacobian, moved_above=0, generator=torch.Generator())
