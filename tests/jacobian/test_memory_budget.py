"""Budgets: how many tangents go together, and what a thinned, shared or lost trajectory gives."""

from __future__ import annotations

import itertools

import pytest
import torch

from capacity.jacobian import elementwise_steps
from capacity.jacobian import training_jacobian as jacobian_module
from capacity.jacobian.memory_budget import MOST_ON_CPU, activation_bytes, footprint
from capacity.jacobian.tracker import PhaseTracker
from capacity.jacobian.training_jacobian import TrainingJacobian, push
from capacity.jacobian.trajectory import Trajectory
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.momentum import Momentum
from capacity.optimizers.sgd import SGD
from capacity.recipe.config import Training
from dense import digits_task, network, run_map, trained

TRAININGS = {
    "sgd": Training(lr=0.3, epochs=1, batch_size=48),
    "decay": Training(lr=0.3, epochs=1, batch_size=48, weight_decay=0.1),
    "momentum": Training(optimizer="momentum", lr=0.05, epochs=1, batch_size=48),
    "adam": Training(optimizer="adam", lr=0.01, epochs=1, batch_size=48),
    "clipped": Training(optimizer="momentum", lr=0.05, epochs=1, batch_size=48, clip_norm=0.3),
}
CPU = torch.device("cpu")


@pytest.fixture(params=TRAININGS)
def trajectory(request, float64):
    return trained(FlatModel(network(64, 3, 10)), digits_task(), TRAININGS[request.param])


def long_training(steps, **options):
    """Full-batch training of a network with 21 parameters."""
    model = FlatModel(network(4, 3, 2))
    x, y = torch.randn(6, 4), torch.randint(2, (6,))

    def loss(theta, x, y):
        return torch.nn.functional.cross_entropy(model.outputs(theta, x), y)

    update = Momentum()
    made = Trajectory(loss, update, **options)
    state = update.init(model.initial())
    for count in range(1, steps + 1):
        made.record(state, x, y, 0.05)
        state = update.step(state, torch.func.grad(loss)(state[0], x, y), 0.05, count)
    return made


# --- tangents within a budget


def test_the_chunk_follows_from_the_budget():
    used = footprint(1000, 4, copies=3, vectors=5, activations=100, device="cpu")
    assert (used.fixed, used.each) == (5 * 4000 + 300, 12_000)
    assert used.chunk(used.fixed + 12_000, CPU) == 1
    assert used.chunk(used.fixed + 7 * 12_000 + 11_999, CPU) == 7
    assert used.chunk(1 << 40, CPU) == MOST_ON_CPU
    gpu = footprint(1000, 4, copies=3, vectors=5, activations=100, device="cuda")
    assert (gpu.fixed, gpu.each) == (5 * 4000 + 100, 12_000 + 200)
    assert gpu.chunk(1 << 40, torch.device("cuda")) > MOST_ON_CPU
    with pytest.raises(ValueError, match=r"budget = 32,299 bytes .* takes 32,300 bytes here"):
        used.chunk(used.fixed + 11_999, CPU)


def test_without_a_budget_nothing_is_refused():
    assert (
        footprint(10**9, 4, copies=3, vectors=5, activations=0, device="cpu").chunk(None, CPU) == 1
    )


def test_activations_count_once_whatever_looks_at_them():
    def loss(theta, x, y):
        hidden = x @ theta.view(5, 4)  # 3 x 4, its view the same memory
        return (hidden.view(-1).tanh().sum() - y.sum()).square()

    theta, x, y = torch.ones(20), torch.ones(3, 5), torch.ones(2)
    scalars = 4  # two sums, their difference, its square
    assert activation_bytes(loss, theta, x, y) == 4 * (12 + 12 + scalars)


@pytest.mark.slow
def test_chunks_of_any_budget_give_the_same_products(trajectory, monkeypatch):
    v = torch.randn(7, trajectory.size)
    whole = TrainingJacobian([trajectory])
    seen = []
    original = jacobian_module._seed
    monkeypatch.setattr(
        jacobian_module, "_seed", lambda path, rows: seen.append(len(rows)) or original(path, rows)
    )
    used = jacobian_module.footprint_of(trajectory, next(trajectory.forwards()), trajectory.like)
    tight = TrainingJacobian([trajectory], budget=used.fixed + 2 * used.each)
    for direction in ("forward", "adjoint"):
        seen.clear()
        parts, given = getattr(tight, direction)(v), v.clone()
        assert max(seen) <= 2 or used.each == 1
        assert sum(seen) == 7
        torch.testing.assert_close(parts, getattr(whole, direction)(v), rtol=1e-12, atol=1e-13)
        assert torch.equal(v, given), "the caller's tangents were written to"
    with pytest.raises(ValueError, match="too small for one tangent"):
        TrainingJacobian([trajectory], budget=used.fixed).forward(v)
    for bad in ({"budget": 0}, {"chunk": -1}):
        with pytest.raises(ValueError, match="whole number"):
            TrainingJacobian([trajectory], **bad)


def test_no_rows_are_no_work(trajectory):
    jacobian = TrainingJacobian([trajectory])
    assert jacobian.forward(torch.zeros(0, jacobian.size)).shape == (0, jacobian.size)
    assert jacobian.products["gradients"] == 0


@pytest.mark.slow
def test_pushing_in_place_is_pushing(trajectory, monkeypatch):
    # Many blocks of columns in many blocks of parameters, the last ones shorter.
    for name, number in (("DIFFERENTIATED", 100), ("_NARROW", 16), ("_MIXED", 64)):
        monkeypatch.setattr(elementwise_steps, name, number)
    for step in itertools.islice(trajectory.forwards(), 1, 3):
        tangents = tuple(torch.randn(3, trajectory.size) for _ in step.state)
        before = tuple(part.clone() for part in tangents)
        for by in (push, jacobian_module.pull):
            apart = by(trajectory, step, tangents)
            assert all(map(torch.equal, tangents, before)), "tangents were written to"
            place = by(trajectory, step, tuple(part.clone() for part in before), in_place=True)
            for one, other in zip(apart, place, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-14)


@pytest.mark.slow
def test_decay_that_forgets_everything():
    """1 - lr decay = 0: nothing of v is left, and there is nothing to divide by."""
    model = FlatModel(network(4, 3, 2))
    update = SGD(weight_decay=4.0)

    def loss(theta, x, y):
        return torch.nn.functional.cross_entropy(model.outputs(theta, x), y)

    made = Trajectory(loss, update)
    step = made.record((model.initial(),), torch.randn(6, 4), torch.randint(2, (6,)), 0.25)
    v = torch.randn(2, model.size)
    expected = -0.25 * made.products(step.state[0], step.x, step.y, v)
    torch.testing.assert_close(push(made, step, (v,))[0], expected)


# --- trajectories within a budget


@pytest.mark.slow
@pytest.mark.parametrize("states", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("steps", [1, 2, 23])
def test_a_thinned_path_is_the_path(states, steps, float64):
    kept = long_training(steps)
    one = 2 * kept.size * 8
    torch.manual_seed(0)
    thin = long_training(steps, budget=states * one + kept._batches.bytes)
    assert thin.bytes <= thin.budget
    assert (thin.stride > 1) == (steps > states)
    for walk in ("forwards", "backwards"):
        for here, there in zip(getattr(kept, walk)(), getattr(thin, walk)(), strict=True):
            assert here.count == there.count


@pytest.mark.slow
def test_thinned_states_are_recomputed_to_rounding(float64):
    torch.manual_seed(3)
    kept = long_training(40)
    torch.manual_seed(3)
    thin = long_training(40, budget=3 * 2 * kept.size * 8 + kept._batches.bytes)
    for walk in ("forwards", "backwards"):
        for here, there in zip(getattr(kept, walk)(), getattr(thin, walk)(), strict=True):
            for a, b in zip(here.state, there.state, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slots", "length", "most"), [(2, 10, 3), (3, 20, 3), (4, 70, 4), (9, 9, 1)]
)
def test_walking_back_holds_few_states_and_recomputes_few(slots, length, most, float64):
    made = long_training(length)
    advanced, held, original = [], [0], made._after

    def after(step):
        advanced.append(step.count)
        return original(step)

    made._after = after
    walked = [s.count for s in made._reversed(made._states[0], 0, length, slots)]
    assert walked == list(range(length, 0, -1))
    # The binomial bound: each step is advanced over at most `most` times.
    assert max(map(advanced.count, advanced)) <= most
    assert held == [0]


def test_a_batch_that_comes_again_is_kept_once():
    made = long_training(9)
    assert made._batches.bytes == 6 * 4 * 4 + 6 * 8
    made.record(made._states[0], torch.randn(6, 4), torch.randint(2, (6,)), 0.05)
    assert made._batches.bytes == 2 * (6 * 4 * 4 + 6 * 8)


def test_indices_stand_for_batches(float64):
    task = digits_task()
    trajectory = trained(FlatModel(network(64, 3, 10)), task, TRAININGS["sgd"])
    assert trajectory._batches.bytes == 4 * 200  # one int32 per sample of the epoch
    seen = torch.cat([step.x for step in trajectory.forwards()])
    assert torch.equal(seen.sum(0), task.train.x.sum(0))
    state, x, y = (trajectory.like,), task.train.x[:3], task.train.y[:3]
    bare = Trajectory(trajectory.loss, SGD())
    with pytest.raises(ValueError, match="no data"):
        bare.record(state, x, y, 0.1, index=torch.arange(3))
    other = Trajectory(trajectory.loss, SGD(), data=(task.train.x, task.train.y))
    with pytest.raises(ValueError, match="does not lead to the batch"):
        other.record(state, x, y, 0.1, index=torch.arange(1, 4))
    with pytest.raises(ValueError, match="no step"):
        _ = other.size
    other.record(state, x, y, 0.1, index=torch.arange(3))
    with pytest.raises(ValueError, match="200 inputs and 199 targets"):
        Trajectory(trajectory.loss, SGD(), data=(task.train.x, task.train.y[1:]))


def test_a_trajectory_that_was_not_kept_says_so():
    with pytest.warns(UserWarning, match=r"1 steps take \d+ bytes, and budget = 100"):
        made = long_training(5, budget=100)
    assert (len(made), made.bytes, made.size) == (5, 0, 23)
    for call in (lambda: made.like, lambda: next(made.forwards()), lambda: next(made.backwards())):
        with pytest.raises(ValueError, match=r"was not kept.*larger budget.*record the training"):
            call()
    with pytest.raises(ValueError, match="was not kept"):
        TrainingJacobian([made])
    assert long_training(2, budget=0).lost  # without a warning: that is what was asked for


@pytest.mark.slow
def test_what_was_followed_outlives_the_trajectory(float64):
    task = digits_task()
    model = FlatModel(network(64, 3, 10))
    kept = trained(model, task, TRAININGS["sgd"])
    follower = PhaseTracker(
        kept.loss,
        kept.update,
        tangents=3,
        log_volume_probes=2,
        log_volume_nodes=2,
        generator=torch.Generator().manual_seed(0),
        budget=0,
    )
    for step in kept.forwards():
        follower.step(step.state, step.x, step.y, step.lr)
    expected = TrainingJacobian([kept]).forward(follower.probes)
    torch.testing.assert_close(follower.images, expected, rtol=1e-11, atol=1e-12)
    assert follower.log_volume().resolved
    with pytest.raises(ValueError, match="was not kept"):
        follower.spectrum(top=2, sweeps=1, generator=torch.Generator())
    torch.testing.assert_close(run_map(kept, kept.like).shape, model.initial().shape)
