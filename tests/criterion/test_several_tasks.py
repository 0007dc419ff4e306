"""Each old task keeps its own allowance: what is compatible with more tasks is never more."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import capacity
from capacity.criterion.criterion import assess_transition
from capacity.criterion.preserving_union import (
    SAME,
    independent,
    orthonormal_union,
    shared_projectors,
)
from capacity.criterion.transition_kernels import TransitionKernels
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from dense import digits_task, network

SIZE = 12


def curvature(seed: int, rank: int) -> torch.Tensor:
    """A random GGN whose eigenvalues fall over three decades."""
    g = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=g, dtype=torch.float64))[0][:, :rank]
    return q @ torch.diag(10.0 ** torch.linspace(1, -2, rank, dtype=torch.float64)) @ q.T


def projectors(matrices, tolerances, allowances=()):
    return shared_projectors(
        [lambda rows, m=m: rows @ m for m in matrices],
        torch.zeros(SIZE, dtype=torch.float64),
        tolerances=tolerances,
        allowances=allowances,
        displacement=1.0,
        generator=torch.Generator().manual_seed(0),
    )


@pytest.mark.parametrize("seed", range(12))
def test_compatible_directions_cannot_increase(seed):
    """Over tasks and over tolerances, hard and soft, whatever the tasks and their allowances."""
    source = np.random.default_rng(seed)
    # Few kinds, so that some tasks come twice.
    kinds = [(int(k), int(r)) for k, r in source.integers([0, 1], [6, 5], (5, 2))]
    allowed = source.uniform(0.2, 5.0, 5)
    matrices = [curvature(*kind) for kind in kinds]
    tolerances = [0.1, 0.01, 1.0]
    before = None
    for count in range(1, len(matrices) + 1):
        own = [0.1 * a for a in allowed[:count]]
        mean = sum(own) / count
        made = projectors(matrices[:count], [mean * t / 0.1 for t in tolerances], own)
        usual, strict, lax = made
        assert lax.removed <= usual.removed <= strict.removed
        assert lax.soft_removed.value <= usual.soft_removed.value <= strict.soft_removed.value
        # Every task's own top directions are gone.
        for matrix, a in zip(matrices[:count], own, strict=True):
            values, vectors = torch.linalg.eigh(matrix)
            top = vectors[:, values > 2 * a * 1.001].T
            assert float(usual.project(top).norm()) < 1e-2
        gram = usual.removed_basis @ usual.removed_basis.T
        torch.testing.assert_close(gram, torch.eye(usual.removed).to(gram))
        low, high = usual.removed_range
        assert low <= usual.removed <= high
        # Nested: what a larger tolerance removes, a smaller one does.
        assert float(strict.project(usual.removed_basis).norm()) < 1e-6
        again = usual.at(lax.tolerance)
        assert again.removed == lax.removed
        assert float(lax.project(again.removed_basis).norm()) < 1e-6
        if before is not None:
            for now, was in zip(made, before, strict=True):
                assert now.removed >= was.removed
                assert now.soft_removed.value >= was.soft_removed.value - 1e-9
                assert float(now.project(was.removed_basis).norm()) < 1e-2
        before = made


def test_the_same_task_again_and_another_order_change_nothing():
    one, two = curvature(0, 3), curvature(1, 3)
    alone = projectors([one], [0.1])[0]
    twice = projectors([one, one, one], [0.1])[0]
    assert twice.removed == alone.removed
    assert twice.soft_removed.value > alone.soft_removed.value, "three allowances are spent"
    forth, back = projectors([one, two], [0.1])[0], projectors([two, one], [0.1])[0]
    assert (
        forth.removed
        == back.removed
        == int((torch.linalg.eigvalsh(one) > 0.2).sum() + (torch.linalg.eigvalsh(two) > 0.2).sum())
    )
    assert float(forth.project(back.removed_basis).norm()) < 1e-6


def test_the_soft_projector_of_several_tasks_sums_what_each_allows():
    one, two = curvature(0, 4), curvature(1, 4)
    made = projectors([one, two], [0.15], [0.1, 0.2])[0]
    stiff = one / 0.2 + two / 0.4
    values = torch.linalg.eigvalsh(stiff).clamp(min=0)
    assert made.soft_removed.value == pytest.approx(float((values / (1 + values)).sum()), rel=1e-6)
    assert made.allowances == (0.1, 0.2)
    assert made.tolerance == pytest.approx(0.15)


def test_rows_in_a_span_are_left_out_and_the_rest_stays():
    g = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(8, 8, generator=g, dtype=torch.float64))[0]
    nearly = (q[0] + 0.3 * SAME * q[5]) / (1 + (0.3 * SAME) ** 2) ** 0.5
    apart = (q[0] + 30 * SAME * q[6]) / (1 + (30 * SAME) ** 2) ** 0.5
    rows = torch.stack([q[0], q[1], nearly, (q[0] + q[1]) / 2**0.5, q[2], apart])
    chosen, lower = independent(rows @ rows.T)
    assert chosen == [0, 1, 4, 5]
    torch.testing.assert_close(lower @ lower.T, (rows @ rows.T)[chosen][:, chosen])
    basis, places, least = orthonormal_union([rows[:3], rows[3:]], torch.arange(6))
    assert places.tolist() == chosen
    torch.testing.assert_close(basis @ basis.T, torch.eye(4).double(), rtol=0, atol=1e-9)
    assert least == pytest.approx(30 * SAME / 2**0.5, rel=0.01)


@pytest.mark.slow
def test_ten_old_tasks_remove_ten_directions_at_the_front_door():
    model = torch.nn.Linear(10, 2, bias=False)
    torch.nn.init.zeros_(model.weight)
    y = torch.arange(64) % 2
    tasks = [(torch.eye(10)[k].expand(64, 10).clone(), y) for k in range(10)]
    left = []
    for count in (1, 2, 3, 10):
        made = capacity.compatible_capacity(
            model, old=tasks[:count], tolerance=0.1, displacement=1.0
        )
        left.append(made.capacity[0].directions.value)
        smaller, larger = made.sensitivity[0], made.sensitivity[-1]
        assert smaller.preserving.removed >= made.preserving.removed >= larger.preserving.removed
    assert left == pytest.approx([19, 18, 17, 10])


@pytest.mark.slow
def test_verdicts_count_every_task_by_its_own_allowance(float64):
    old = [digits_task(classes, 24) for classes in ((0, 1), (2, 3), (4, 5))]
    new = digits_task((6, 7), 24)
    model = FlatModel(network(64, 5, 10))
    theta, training = model.initial(), Training(lr=0.1, epochs=2, batch_size=24)
    previous = None
    for count in (1, 2, 3):
        made = assess_transition(
            model, theta, old[:count], new, training, tolerance=0.01, displacement=1.0, groups=0
        )
        if previous is not None:
            assert made.removed >= previous.removed
            assert made.transport_cost.value.value >= previous.transport_cost.value.value
            assert made.capacity.value.value <= previous.capacity.value.value
        previous = made
    # Against the matrices written out.
    kernels = TransitionKernels(model, theta, old, new, samples=24, outputs=10, seed=0)
    thresholds = [0.02, 0.05, 0.01]
    taken = kernels.removed(thresholds)
    torch.testing.assert_close(
        taken @ kernels.old @ taken.T, torch.eye(len(taken)), rtol=0, atol=1e-8
    )
    counts = list(itertools.accumulate(kernels._counts, initial=0))
    ranks = [
        int((torch.linalg.eigvalsh(kernels.old[a:b, a:b]) > t).sum())
        for (a, b), t in zip(itertools.pairwise(counts), thresholds, strict=True)
    ]
    assert max(ranks) <= len(taken) <= sum(ranks)
    with pytest.raises(ValueError, match=r"tolerance has 2 numbers for 3 old tasks"):
        assess_transition(model, theta, old, new, training, tolerance=[0.1, 0.2])
