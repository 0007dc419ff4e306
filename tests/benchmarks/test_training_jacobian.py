"""The study behind `benchmarks/training_jacobian.py`, on a network that can be written out."""

from __future__ import annotations

import pytest
import torch
import training_jacobian_study
from training_jacobian_study import (
    NOISE,
    PLAIN,
    REGIONS,
    Data,
    counts,
    dense,
    measured,
    moved,
    network,
    ordered,
    overlaps,
    singular,
    trained,
    variants,
)
from training_jacobian_words import sentences, table

from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from dense import dense_jacobian

pytestmark = pytest.mark.slow

TRAINING = Training(optimizer="momentum", lr=0.1, schedule="cosine", epochs=4, batch_size=16)


def tiny(dtype: torch.dtype = torch.float32) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(90, 4, generator=generator).to(dtype)
    y = torch.randint(10, (90,), generator=generator)
    return Data(x[:80], y[:80], x[80:], y[80:])


def rotation(size: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, size, generator=generator))[0]


def test_dense_is_the_derivative_of_the_training_loop():
    model = FlatModel(network((4, 3, 10), 0).double())
    trajectory, _ = trained(model, tiny(torch.float64), TRAINING)
    assert len(trajectory) == 20
    truth = dense_jacobian(trajectory)
    torch.testing.assert_close(dense(trajectory), truth, rtol=1e-9, atol=1e-11)


def test_training_repeats_the_batches_in_order():
    data = tiny()
    trajectory, _ = trained(FlatModel(network((4, 3, 10), 0)), data, TRAINING)
    steps = list(trajectory.forwards())
    for step in (steps[1], steps[6]):
        torch.testing.assert_close(step.x, data.x[16:32])
    assert steps[0].lr == pytest.approx(0.1)
    assert steps[-1].lr < 0.001


def test_singular_takes_a_map_apart():
    j = rotation(20, 5) @ torch.diag(torch.linspace(3, 0.1, 20)) @ rotation(20, 6).T
    u, truth, vh = torch.linalg.svd(j.double())
    sigma, cosine, rows = singular(j)
    torch.testing.assert_close(sigma, truth, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(cosine, (u.T * vh).sum(-1).abs(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((rows * vh).sum(-1).abs(), torch.ones(20).double())


def test_singular_sees_what_is_turned_and_what_is_not():
    still, turned = torch.diag(torch.tensor([2.0, 1.0])), torch.tensor([[0.0, -3.0], [3.0, 0.0]])
    sigma, cosine, _ = singular(torch.block_diag(still, turned))
    torch.testing.assert_close(sigma, torch.tensor([3.0, 3.0, 2.0, 1.0]).double())
    torch.testing.assert_close(cosine, torch.tensor([0.0, 0.0, 1.0, 1.0]).double())


def test_singular_of_a_map_that_leaves_most_alone():
    j = torch.eye(60)
    j[0, 1] = 5.0
    sigma, cosine, _ = singular(j)
    assert int((sigma - 1).abs().lt(1e-6).sum()) == 58
    assert float(cosine[1:-1].min()) > 1 - 1e-6


def test_moved_counts_what_a_low_rank_map_changes():
    q = rotation(30, 2)
    scales = torch.tensor([5.0, 0.2, -0.15, 0.05])
    j = torch.eye(30) + q[:, :4] @ torch.diag(scales) @ q[:, :4].T
    assert moved(j) == 3


def test_counts_part_the_spectrum():
    sigma = [20.0, 1.2, 1.05, 1.005, 1.0, 0.95, 0.5, 1e-9]
    assert counts(sigma) == {"chaotic": 2, "bulk": 4, "stable": 2, "core": 2}


@pytest.mark.parametrize(
    ("region", "first"), [("chaotic", [0, 1]), ("bulk", [2, 1]), ("stable", [4, 3])]
)
def test_ordered_starts_inside_the_region(region, first):
    sigma = torch.tensor([3.0, 1.2, 1.01, 0.5, 0.1])
    assert ordered(sigma, region)[:2].tolist() == first


def test_overlap_of_equal_orthogonal_and_random_spaces():
    a = rotation(200, 3)
    assert overlaps(a, a, [1, 50, 200]) == pytest.approx([1, 1, 1], abs=1e-5)
    assert overlaps(a, a.flip(0), [1, 100]) == pytest.approx([0, 0], abs=1e-5)
    random = overlaps(a, rotation(200, 4), [50, 100, 200])
    assert random == pytest.approx([0.25, 0.5, 1], abs=0.02)


def test_variants_change_one_thing_each():
    data = tiny()
    made = variants(data)
    assert [seed for _, seed in made.values()] == [0, 1, 0, 0]
    shuffled = made["shuffled labels"][0]
    assert torch.equal(shuffled.x, data.x)
    assert not torch.equal(shuffled.y, data.y)
    assert torch.equal(shuffled.y.bincount(), data.y.bincount())
    noise = made[NOISE][0]
    assert torch.equal(noise.y, data.y)
    assert 0 <= float(noise.x.min()) < float(noise.x.max()) <= 1


def jacobian_of_the_loop(trajectory, columns=None):
    return dense_jacobian(trajectory)[:, :columns]


def test_the_study_runs_and_says_what_it_found(monkeypatch):
    # Six graphs would be traced for as many trainings; the derivative of the loop is sooner done.
    monkeypatch.setattr(training_jacobian_study, "dense", jacobian_of_the_loop)
    heard: list[str] = []
    findings = measured(tiny(), TRAINING, heard.append, hidden=3)
    assert len(heard) == 4
    plain = findings.outcomes[0]
    assert plain.name == PLAIN
    assert len(plain.sigma) == 55 == sum(counts(plain.sigma)[r] for r in REGIONS)
    assert findings.rounding < 1e-4
    assert findings.overlaps[NOISE]["bulk"][-1] == pytest.approx(1, abs=1e-5)
    printed = "\n".join(table(findings))
    assert f"{plain.sigma[0]:.2f}" in printed
    assert all(sentences(findings))
