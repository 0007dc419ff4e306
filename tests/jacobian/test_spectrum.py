"""The composed spectrum against the dense Jacobian of a real training, and of smaller maps."""

from __future__ import annotations

import math

import pytest
import torch

from capacity.jacobian.singular_value_counts import Thresholds
from capacity.jacobian.spectrum import spectrum
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.records.estimate import Status
from dense import MatrixMap, dense_jacobian, digits_task, network, trained

pytestmark = pytest.mark.slow

# Hidden width and training: 625 steps each, of networks that are small to be quick;
# benchmarks/composed_spectrum.py has them at full size.
TRAININGS = {
    "momentum": (
        8,
        Training(optimizer="momentum", lr=0.05, epochs=25, batch_size=16, schedule="cosine"),
        400,
    ),
    "sgd": (8, Training(lr=0.3, epochs=25, batch_size=16), 400),
}


@pytest.fixture(scope="module", params=TRAININGS)
def long(request):
    """625 steps of a 64-8-10 network on digits, and its J written out."""
    kind = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    hidden, training, samples = TRAININGS[request.param]
    model = FlatModel(network(64, hidden, 10))
    trajectory = trained(model, digits_task(count=samples), training)
    jacobian = TrainingJacobian([trajectory], chunk=256)
    assert (len(trajectory), jacobian.size) == (625, 75 * hidden + 10)
    matrix = jacobian.forward(torch.eye(jacobian.size)).T.contiguous()
    torch.set_default_dtype(kind)
    return jacobian, matrix, torch.linalg.svdvals(matrix)


def number_in(values, low, high):
    return int(((values > low) & (values <= high)).sum())


def near(estimate, truth, share=0.05):
    """Within a share of the truth, or two of its own standard errors."""
    return abs(estimate.value - truth) <= max(share * truth, 2 * estimate.stderr)


@pytest.mark.parametrize("seed", [0, 1])
def test_counts_of_a_long_training(long, seed):
    _, matrix, truth = long
    generator = torch.Generator().manual_seed(seed)
    found = spectrum(MatrixMap(matrix), top=50, sweeps=28, generator=generator, method="krylov")
    assert found.method == "krylov"
    assert found.products_forward == found.products_adjoint <= 28 * 16
    for estimate, edge in zip(found.counts.below, (0.1, 0.5, 0.9), strict=True):
        exact = number_in(truth, -1, edge)
        assert near(estimate, exact), (edge, exact, estimate)
        assert estimate.interval[0] <= exact <= estimate.interval[1]
        assert estimate.status is Status.OK
        assert estimate.stderr < 0.1 * exact, "an error bar of everything would pass the rest"
    parts = {"chaotic": (1.1, 1e9), "bulk": (0.9, 1.1), "stable": (-1, 0.9)}
    for name, (low, high) in parts.items():
        estimate = getattr(found.counts, name)
        assert near(estimate, number_in(truth, low, high)), (name, estimate)
    # Everything above 1.1 has converged by then: deflation leaves no noise.
    assert found.counts.above[0].value == number_in(truth, 1.1, 1e9)
    assert sum(e.value for e in found.counts.density) == pytest.approx(len(truth))
    squares = truth.square()
    assert near(found.frobenius_sq, float(squares.sum()), 1e-3)
    share = squares / squares.sum()
    entropy = -torch.special.xlogy(share, share).sum()
    assert near(found.effective_rank, float(entropy.exp()), 0.01)
    assert near(found.stable_rank, float(squares.sum() / squares[0]), 1e-3)


def test_top_of_a_long_training_within_the_products_allowed(long):
    jacobian, matrix, truth = long
    operator = MatrixMap(matrix)
    # The matrix stands in for the products that it was made of, adjoint ones included.
    rows = torch.randn(2, jacobian.size, dtype=torch.float64)
    torch.testing.assert_close(jacobian.adjoint(rows), operator.adjoint(rows), rtol=1e-9, atol=1e-9)
    # Nothing but the top is asked for, so the sweeps end when it is found.
    quick = Thresholds(below=(), above=(3.0,), stable_below=2.9, chaotic_above=3.0, edges=(1.0,))
    found = spectrum(
        operator,
        top=50,
        sweeps=18,
        generator=torch.Generator().manual_seed(0),
        method="krylov",
        thresholds=quick,
    )
    assert found.top_resolved == 50
    values = torch.tensor([s.value for s in found.singular_values]).double()
    torch.testing.assert_close(values, truth[:50], rtol=1e-3, atol=0)
    assert max(found.products_forward, found.products_adjoint) <= 300
    assert found.sweeps_missing.value == 0


def test_alignment_and_rank_of_the_change(long):
    _, matrix, _ = long
    left, values, right = torch.linalg.svd(matrix)
    bulk = (values > 0.9) & (values <= 1.1)
    exact = float((left * right.T).sum(0)[bulk].mean())
    moved = number_in(torch.linalg.svdvals(matrix - torch.eye(len(matrix))), 0.1, 1e9)
    generator = torch.Generator().manual_seed(0)
    operator = MatrixMap(matrix)
    found = spectrum(
        operator, top=10, sweeps=30, moved_sweeps=36, generator=generator, method="krylov"
    )
    assert exact > 0.98
    assert found.alignment.value == pytest.approx(exact, abs=0.003)
    assert found.alignment.status is Status.OK
    assert near(found.moved, moved)
    assert found.moved.interval[0] <= moved <= found.moved.interval[1]
    deviation = float((matrix - torch.eye(len(matrix))).square().sum())
    assert near(found.deviation_sq, deviation, 1e-3)
    free = spectrum(operator, top=10, sweeps=12, generator=generator, method="krylov").moved
    assert free.status is Status.NOT_RESOLVED
    assert 100 < free.value <= moved <= free.interval[1]


def test_too_few_sweeps_say_how_many_are_missing(long):
    _, matrix, truth = long
    generator = torch.Generator().manual_seed(0)

    def found(sweeps):
        return spectrum(
            MatrixMap(matrix), top=50, sweeps=sweeps, generator=generator, method="krylov"
        )

    few = found(7)
    for estimate, edge in zip(few.counts.below, (0.1, 0.5, 0.9), strict=True):
        assert estimate.status is Status.NOT_RESOLVED
        assert estimate.interval[0] <= number_in(truth, -1, edge) <= estimate.interval[1]
        assert "more sweeps" in estimate.note
    missing = few.sweeps_missing
    assert missing.status in {Status.UNCALIBRATED, Status.NOT_RESOLVED}
    assert 4 <= missing.value <= 70
    later = found(13)
    assert 1 <= later.sweeps_missing.value < missing.value
    needed = found(40).sweeps
    assert 13 < needed < 40
    # Slow at first, the sweeps gain pace: what is extrapolated early is on the high side.
    assert needed - 2 <= 13 + later.sweeps_missing.value
    # Upper bounds, and never sold as the values themselves.
    for k, bound in enumerate(few.smallest):
        assert bound.value >= float(truth[-1 - k])
        assert not bound.resolved


@pytest.fixture
def short(float64):
    training = Training(optimizer="momentum", lr=0.05, epochs=4, batch_size=100)
    trajectory = trained(FlatModel(network(64, 3, 10)), digits_task(), training)
    dense = dense_jacobian(trajectory)
    return TrainingJacobian([trajectory]), dense


def test_dense_is_exact_and_chosen_where_it_is_cheaper(short):
    jacobian, dense = short
    generator = torch.Generator().manual_seed(0)
    found = spectrum(jacobian, top=5, sweeps=12, generator=generator, vectors=True)
    assert found.method == "dense"
    assert (found.products_forward, found.products_adjoint) == (jacobian.size, 0)
    left, values, right = torch.linalg.svd(dense)
    torch.testing.assert_close(torch.tensor([s.value for s in found.singular_values]), values[:5])
    assert found.top_resolved == 5
    smallest = torch.tensor([s.value for s in found.smallest])
    torch.testing.assert_close(smallest, values[-3:].flip(0), rtol=1e-6, atol=1e-12)
    for name, (low, high) in {"chaotic": (1.1, 1e9), "stable": (-1, 0.9)}.items():
        estimate = getattr(found.counts, name)
        assert (estimate.value, estimate.stderr) == (number_in(values, low, high), None)
    moved = number_in(torch.linalg.svdvals(dense - torch.eye(len(dense))), 0.1, 1e9)
    assert found.moved.value == moved
    bulk = (values > 0.9) & (values <= 1.1)
    assert found.alignment.value == pytest.approx(float((left * right.T).sum(0)[bulk].mean()))
    for rows in (found.vectors.left, found.vectors.right):
        torch.testing.assert_close(rows @ rows.T, torch.eye(5), rtol=0, atol=1e-9)
    torch.testing.assert_close(
        found.vectors.right @ dense.T, values[:5, None] * found.vectors.left, rtol=1e-7, atol=1e-9
    )


def test_vectors_of_the_krylov_space(short):
    jacobian, dense = short
    generator = torch.Generator().manual_seed(0)
    found = spectrum(jacobian, top=4, sweeps=6, generator=generator, vectors=True, method="krylov")
    values = torch.tensor([s.value for s in found.singular_values])
    left, right = found.vectors.left, found.vectors.right
    torch.testing.assert_close(right @ dense.T, values[:, None] * left, rtol=1e-7, atol=1e-9)
    off = (left @ dense - values[:, None] * right).norm(dim=-1)
    residuals = torch.tensor([s.residual for s in found.singular_values])
    assert bool((off <= math.sqrt(2) * residuals + 1e-9).all())


def test_a_full_krylov_space_is_exact(float64):
    matrix = torch.randn(200, 200, generator=torch.Generator().manual_seed(3)) / 10
    values = torch.linalg.svdvals(matrix)
    found = spectrum(
        MatrixMap(matrix),
        top=200,
        sweeps=20,
        generator=torch.Generator().manual_seed(0),
        method="krylov",
    )
    got = torch.tensor([s.value for s in found.singular_values])
    torch.testing.assert_close(got, values, rtol=1e-8, atol=1e-10)
    for estimate, edge in zip(found.counts.below, (0.1, 0.5, 0.9), strict=True):
        assert (estimate.value, estimate.stderr) == (number_in(values, -1, edge), None)
    assert [s.value for s in found.smallest] == pytest.approx(values[-3:].flip(0).tolist())
    assert all(s.resolved for s in found.smallest)
    assert found.sweeps_missing.value == 0
    moved = torch.linalg.svdvals(matrix - torch.eye(200))
    assert (found.moved.value, found.moved.status) == (number_in(moved, 0.1, 1e9), Status.OK)


def test_an_untrained_map_is_all_bulk(float64):
    found = spectrum(
        MatrixMap(torch.eye(300)),
        top=3,
        sweeps=4,
        generator=torch.Generator().manual_seed(0),
        method="krylov",
    )
    assert found.counts.bulk.value == pytest.approx(300)
    assert found.counts.chaotic.value == pytest.approx(0, abs=1e-9)
    assert found.counts.stable.value == pytest.approx(0, abs=1e-9)
    assert found.alignment.value == pytest.approx(1)
    assert found.effective_rank.value == pytest.approx(300)
    assert found.sweeps == 1


def test_a_bulk_that_is_turned_is_not_aligned(float64):
    # Singular values 1; half of the space is left alone, the other half is turned by 90 degrees.
    turn = torch.kron(torch.eye(100), torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
    stretched = torch.diag(torch.linspace(2.0, 5.0, 30))
    found = spectrum(
        MatrixMap(torch.block_diag(stretched, turn, torch.eye(200))),
        top=3,
        sweeps=8,
        generator=torch.Generator().manual_seed(0),
        method="krylov",
    )
    assert abs(found.alignment.value - 0.5) < max(3 * found.alignment.stderr, 0.02)
    assert found.alignment.stderr < 0.05
    assert found.counts.chaotic.value == pytest.approx(30, abs=0.1)


def test_single_precision_keeps_the_counts(long):
    _, matrix, truth = long
    generator = torch.Generator().manual_seed(0)
    found = spectrum(
        MatrixMap(matrix.float()), top=50, sweeps=24, generator=generator, method="krylov"
    )
    values = torch.tensor([s.value for s in found.singular_values]).double()
    torch.testing.assert_close(values, truth[:50], rtol=1e-3, atol=0)
    for estimate, edge in zip(found.counts.below, (0.1, 0.5, 0.9), strict=True):
        assert near(estimate, number_in(truth, -1, edge))


def test_bad_input(short):
    jacobian, dense = short

    def ask(**options):
        made = {"top": 3, "sweeps": 2, "generator": torch.Generator().manual_seed(0)}
        return spectrum(jacobian, **(made | options))

    for options, said in (
        ({"top": 236}, "top = 236 exceeds the 235"),
        ({"bottom": 236}, "bottom = 236 exceeds"),
        ({"sweeps": 0}, "sweeps = 0"),
        ({"moved_sweeps": -1}, "moved_sweeps = -1"),
        ({"method": "lanczos"}, "method = 'lanczos' is not known"),
    ):
        with pytest.raises(ValueError, match=said):
            ask(**options)
    wide = MatrixMap(torch.zeros(1, 2001).expand(2001, 2001))
    with pytest.raises(ValueError, match="accepted up to 2000"):
        spectrum(wide, top=1, sweeps=1, generator=torch.Generator(), method="dense")
    with pytest.raises(ValueError, match="must be below chaotic_above"):
        Thresholds(stable_below=1.2)
    with pytest.raises(ValueError, match="edges"):
        Thresholds(edges=(1.0, 0.5))
    broken = dense.clone()
    broken[3, 4] = torch.nan
    for method in ("krylov", "dense"):
        with pytest.raises(FloatingPointError, match="not finite"):
            spectrum(MatrixMap(broken), top=1, sweeps=2, generator=torch.Generator(), method=method)
    # What was there before is there still.
    assert len(ask().singular_values) == 3
