"""Laws of one's own for the start of an ensemble: what is drawn, its entropy, what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import capacity
from capacity.closed_forms import gaussian_entropy

OWN = torch.linspace(-1, 1, 6, dtype=torch.float64)
X = torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
TASK = X, (X[:, 0] > 0).long()
SHORT = capacity.Training(lr=0.1, epochs=3, batch_size=32)


def drawn(law, count=4000):
    return torch.stack([law.draw(OWN, 0, i) for i in range(count)])


def test_a_gaussian_has_its_mean_its_widths_and_its_entropy():
    std = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], dtype=torch.float64)
    found = drawn(capacity.InitialLaw(std=std))
    assert bool(((found.mean(0) - OWN).abs() < 4 * std / len(found) ** 0.5).all())
    assert found.std(0).tolist() == pytest.approx(std.tolist(), rel=0.05)
    law = capacity.InitialLaw(std=std, mean=torch.zeros(6))
    assert drawn(law, 2000).mean(0).abs().max() < 0.06
    exact = float(gaussian_entropy(variance=(std**2).numpy()).sum())
    assert law.entropy(6) == pytest.approx(exact, rel=1e-12)
    assert capacity.InitialLaw(std=0.3).entropy(6) == pytest.approx(
        6 * float(gaussian_entropy(variance=0.09)), rel=1e-12
    )


def test_a_subspace_is_never_left():
    basis = torch.tensor([[1.0, 0], [1, 1], [0, 0], [0, 1], [0, 0], [0, 0]])
    law = capacity.InitialLaw(basis=basis, scale=torch.tensor([0.5, 2.0]))
    moved = drawn(law, 3000) - OWN
    assert torch.linalg.matrix_rank(moved, rtol=1e-9) == 2
    assert float(moved[:, [2, 4, 5]].abs().max()) == 0
    # Columns of length sqrt(2) are brought to 1, so that the scale is the deviation along them.
    assert float(moved[:, 0].std()) == pytest.approx(0.5 / 2**0.5, rel=0.05)
    assert float(moved[:, 3].std()) == pytest.approx(2 / 2**0.5, rel=0.05)
    assert law.entropy(6) == -math.inf


@pytest.mark.parametrize("size", [1e-30, 1e38])
def test_a_direction_s_length_does_not_matter(size):
    basis = capacity.InitialLaw(basis=torch.full((6, 1), size)).basis
    torch.testing.assert_close(basis, torch.full((6, 1), 6**-0.5, dtype=torch.float64))


def test_a_basis_of_all_parameters_is_a_gaussian_of_known_entropy():
    angle = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    law = capacity.InitialLaw(basis=angle, scale=torch.tensor([0.3, 2.0], dtype=torch.float64))
    unit = angle / angle.norm(dim=0)
    covariance = unit @ torch.diag(law.scale**2) @ unit.T
    normal = torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariance)
    assert law.entropy(2) == pytest.approx(float(normal.entropy()), rel=1e-12)


def test_a_mean_that_is_trained_elsewhere_brings_no_graph():
    law = capacity.InitialLaw(std=torch.full((6,), 0.1), mean=nn.Parameter(torch.zeros(6)))
    assert not law.draw(OWN, 0, 0).requires_grad


def test_a_replica_s_start_depends_on_its_number_alone():
    law = capacity.InitialLaw(std=0.1)
    assert torch.equal(law.draw(OWN, 3, 5), law.draw(OWN, 3, 5))
    assert not torch.equal(law.draw(OWN, 3, 5), law.draw(OWN, 4, 5))
    assert law.draw(OWN.float(), 3, 5).dtype is torch.float32


@pytest.mark.parametrize("law", [{"std": 0.2}, {"basis": torch.eye(6)[:, :2], "scale": 0.2}])
def test_an_ensemble_starts_from_it(law):
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    own = torch.cat([p.detach().flatten() for p in model.parameters()])
    made = capacity.epistemic_speed_limit(
        model, TASK, training=SHORT, replicas=12, start=capacity.InitialLaw(**law), device="cpu"
    )
    start = made.records[0].theta_start
    assert float((start - own).norm(dim=-1).min()) > 0
    assert torch.linalg.matrix_rank(start - own, rtol=1e-5) == (6 if "std" in law else 2)
    assert made.total.per_replica.value >= 1
    assert torch.equal(own, torch.cat([p.detach().flatten() for p in model.parameters()]))


def test_langevin_has_a_sigma_from_a_gaussian():
    noisy = capacity.Training(optimizer="sgld", lr=0.05, temperature=0.01, epochs=20, batch_size=32)
    made = capacity.epistemic_speed_limit(
        nn.Linear(2, 2),
        TASK,
        training=noisy,
        replicas=12,
        start=capacity.InitialLaw(std=0.2),
        device="cpu",
    )
    record = made.records[0]
    assert record.entropy_start == pytest.approx(6 * float(gaussian_entropy(variance=0.04)))
    assert made.total.sigma.value is not None


def test_langevin_has_none_from_a_subspace_however_it_lies():
    noisy = capacity.Training(optimizer="sgld", lr=0.05, temperature=0.01, epochs=3, batch_size=32)
    tilted = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    made = capacity.epistemic_speed_limit(
        nn.Linear(2, 2),
        TASK,
        training=noisy,
        replicas=12,
        start=capacity.InitialLaw(basis=tilted),
        device="cpu",
    )
    cost = made.tasks[0]
    assert made.records[0].entropy_start == -math.inf
    for found in (cost.sigma, cost.free_energy.entropy_start, cost.free_energy.free_energy_start):
        assert found.value is None
        assert "no density" in found.note
    assert cost.irreversibility is None


def test_a_start_of_another_kind_is_told_of_laws():
    with pytest.raises(ValueError, match=r"accepted: cold, warm, or a law of your own"):
        capacity.epistemic_speed_limit(nn.Linear(2, 2), TASK, start={"std": 0.1})


@pytest.mark.parametrize(
    ("law", "said"),
    [
        ({}, "both None"),
        ({"std": 1.0, "basis": torch.eye(3)}, "both given"),
        ({"std": 0.0}, "std = 0.0"),
        ({"std": -1.0}, "above 0"),
        ({"std": float("nan")}, "std = nan"),
        ({"std": "wide"}, "std = 'wide'"),
        ({"std": torch.tensor([0.1, 0.0])}, "std holds 0"),
        ({"std": torch.tensor([0.1, float("inf")])}, "NaN or infinity"),
        ({"std": torch.ones(2, 2)}, r"std has shape \(2, 2\)"),
        ({"std": 1.0, "scale": 2.0}, "scale goes with basis"),
        ({"basis": torch.eye(3), "scale": torch.ones(2)}, "scale has 2 numbers for 3"),
        ({"basis": torch.ones(3, 2)}, "depend on each other"),
        ({"basis": torch.ones(2, 3)}, "depend on each other"),
        ({"basis": torch.ones(3)}, r"basis has shape \(3,\)"),
        ({"basis": [[1.0]]}, "basis is a list"),
        ({"std": 1.0, "mean": torch.ones(2, dtype=torch.long)}, "mean has shape"),
    ],
)
def test_what_is_no_law_is_refused_by_name(law, said):
    with pytest.raises(ValueError, match=said):
        capacity.InitialLaw(**law)


def test_a_law_that_does_not_fit_the_model_is_refused():
    def started(model, **law):
        capacity.epistemic_speed_limit(
            model, TASK, training=SHORT, replicas=2, start=capacity.InitialLaw(**law)
        )

    with pytest.raises(ValueError, match=r"start\.std is for 4 parameters; the network has 6"):
        started(nn.Linear(2, 2), std=torch.ones(4))
    with pytest.raises(ValueError, match=r"start\.mean is for 5"):
        started(nn.Linear(2, 2), std=1.0, mean=torch.ones(5))
    with pytest.raises(ValueError, match=r"start\.basis is for 3"):
        started(nn.Linear(2, 2), basis=torch.eye(3))
    with pytest.raises(ValueError, match="draws replicas of one network"):
        started([nn.Linear(2, 2), nn.Linear(2, 2)], std=1.0)
