"""The drift of A's outputs against training of linear heads, closed forms and dense kernels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from capacity.criterion import output_drift
from capacity.criterion.output_drift import expected_drift
from capacity.forecasting.kernel_flow import integrate
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.records.estimate import Status
from capacity.tasks.task import Split, Task
from dense import digits_task, network, run_map, trained
from quadratics import linear
from regression import regression_task


def learned(model: FlatModel, theta: Tensor, task: Task, training: Training) -> Tensor:
    return run_map(trained(model, task, training), theta)


@pytest.fixture
def head(float64):
    """A linear head that has learned the digits 0-4, and the digits 5-9."""
    torch.manual_seed(0)
    model = FlatModel(torch.nn.Linear(64, 10))
    old, new = digits_task((0, 1, 2, 3, 4), 60), digits_task((5, 6, 7, 8, 9), 50)
    theta = learned(model, model.initial(), old, Training(lr=0.1, epochs=60, batch_size=20))
    return model, theta, old, new


@pytest.mark.slow
def test_drift_is_the_training_of_a_linear_head(head):
    model, theta, old, new = head
    training = Training(lr=0.01, epochs=500, batch_size=50)
    after = learned(model, theta, new, training)
    before, now = (evaluate(model, t[None], old, old.test) for t in (theta, after))
    made = expected_drift(model, theta, [old], new, time=5.0)
    assert made.lost.value == pytest.approx(float(before.accuracy - now.accuracy), abs=1e-9)
    assert made.lost.value > 0.2
    assert made.loss_rise.value == pytest.approx(float(now.loss - before.loss), rel=0.01)
    assert made.new_loss.value == pytest.approx(
        float(evaluate(model, after[None], new, new.train).loss), rel=0.01
    )
    assert made.displacement.value == pytest.approx(float((after - theta).norm()), rel=0.01)
    moved = model.outputs(after, old.test.x) - model.outputs(theta, old.test.x)
    assert made.distance.value == pytest.approx(
        float(moved.square().sum(1).mean().sqrt()), rel=0.01
    )
    # At a constant residual the drift is that of the first step, taken S/lr times.
    slope = torch.func.grad(model.loss(new))(theta, new.train.x, new.train.y)
    step = model.outputs(theta - 5.0 * slope, old.test.x) - model.outputs(theta, old.test.x)
    assert made.first_order.value == pytest.approx(float(step.square().sum(1).mean().sqrt()))
    assert all(e.status is Status.UNCALIBRATED for e in (made.lost, made.loss_rise, made.distance))
    assert made.to_dict()["time"] == 5.0


@pytest.mark.slow
def test_a_task_that_pulls_the_same_way_moves_much_and_loses_nothing(head):
    model, theta, old, _ = head
    made = expected_drift(model, theta, [old], old, time=20.0)
    assert made.distance.value > 1
    assert made.lost.value <= 0
    assert made.loss_rise.value < 0


def test_squared_error_has_a_closed_form(float64):
    # theta moves by X'K^-1 (1 - e^{-tK/n}) r; the loss of A is quadratic in it: B5 of
    # theory.md#predictors.
    x_a, x_b, w = torch.randn(4, 9), torch.randn(5, 9), torch.randn(9)
    old = regression_task("A", x_a, torch.randn(4))
    new = regression_task("B", x_b, torch.randn(5))
    r = new.train.y[:, 0] - x_b @ w
    k = x_b @ x_b.T
    time = 3.0
    shrunk = torch.linalg.solve(k, r - torch.linalg.matrix_exp(-time * k / 5) @ r)
    delta = x_b.T @ shrunk
    left = old.train.y[:, 0] - x_a @ w
    rise = 0.5 * ((left - x_a @ delta).square() - left.square()).mean()
    made = expected_drift(FlatModel(linear(9)), w, [old], new, time=time, groups=0)
    assert made.loss_rise.value == pytest.approx(float(rise), rel=1e-3)
    assert made.second_order.value == pytest.approx(made.loss_rise.value, rel=1e-9)
    assert made.displacement.value == pytest.approx(float(delta.norm()), rel=1e-3)
    assert made.lost.status is Status.NOT_DEFINED
    assert "read the loss" in made.lost.note


def test_heads_of_their_own_take_the_exact_kernel(float64):
    torch.manual_seed(2)
    model = FlatModel(network(6, 5, 5))
    theta = model.initial()

    def task(name: str, outputs: tuple[int, ...], count: int) -> Task:
        split = Split(torch.randn(count, 6), torch.randint(len(outputs), (count,)))
        return Task(name=name, train=split, test=split, outputs=outputs)

    old, new = task("A", (0, 1), 7), task("B", (2, 3, 4), 9)
    rows_a, rows_b = (
        torch.func.jacrev(lambda t, task=task: task.select(model.outputs(t, task.train.x)))(theta)
        .flatten(0, 1)
        for task in (old, new)
    )  # fmt: skip
    f = new.select(model.outputs(theta, new.train.x))
    flow = integrate(rows_b @ rows_b.T, new, f, new.train.y, [4.0])[0]
    moved = (rows_a @ rows_b.T @ flow.dual.flatten() / 9).view(7, 2)
    made = expected_drift(model, theta, [old], new, time=4.0)
    assert made.distance.value == pytest.approx(float(moved.square().sum(1).mean().sqrt()))
    # A linear network's heads share nothing, and B cannot touch A.
    apart = FlatModel(torch.nn.Linear(6, 5))
    made = expected_drift(apart, apart.initial(), [old], new, time=4.0)
    assert made.distance.value == pytest.approx(0.0, abs=1e-12)
    assert made.lost.value == made.loss_rise.value == 0


@pytest.mark.slow
def test_several_old_tasks_are_averaged(head):
    model, theta, old, new = head
    other = digits_task((2, 3), 40)
    alone = [expected_drift(model, theta, [task], new, time=3.0, groups=0) for task in (old, other)]
    both = expected_drift(model, theta, [old, other], new, time=3.0, groups=0)
    for name in ("lost", "loss_rise", "second_order"):
        values = [getattr(made, name).value for made in alone]
        assert getattr(both, name).value == pytest.approx(sum(values) / 2)
        errors = [getattr(made, name).stderr for made in alone]
        assert getattr(both, name).stderr == pytest.approx(math.hypot(*errors) / 2)


@pytest.mark.slow
def test_standard_error_from_the_samples_of_a(head):
    model, theta, old, new = head
    made = expected_drift(model, theta, [old], new, time=3.0, groups=0)
    # Of the share lost alone: a sample is lost (1), won (-1) or neither.
    assert 0 < made.lost.stderr < 1 / 60**0.5
    assert made.displacement.stderr == 0
    more = expected_drift(model, theta, [old], new, time=3.0, groups=5)
    assert more.displacement.stderr > 0
    assert more.lost.stderr > made.lost.stderr
    assert more.lost.value == made.lost.value


@pytest.mark.slow
def test_jackknife_error_is_the_spread_over_draws_of_b(float64):
    # Many draws of B's samples: the spread of the displacement against its own standard error.
    torch.manual_seed(3)
    model = FlatModel(torch.nn.Linear(8, 3))
    theta = model.initial()
    split = Split(torch.randn(20, 8), torch.randint(3, (20,)))
    old = Task(name="A", train=split, test=split)
    values, errors = [], []
    for _ in range(40):
        split = Split(torch.randn(60, 8), torch.randint(3, (60,)))
        new = Task(name="B", train=split, test=split)
        made = expected_drift(model, theta, [old], new, time=1.0, groups=6).displacement
        values.append(made.value)
        errors.append(made.stderr)
    spread = float(torch.tensor(values).std())
    typical = float(torch.tensor(errors).square().mean().sqrt())
    assert 0.65 < typical / spread < 1.5


@pytest.mark.slow
def test_a_flow_out_of_range_says_so(head):
    _, _, old, new = head
    deep = FlatModel(torch.nn.Sequential(torch.nn.Linear(64, 3), torch.nn.Linear(3, 10)))
    made = expected_drift(deep, torch.full((deep.size,), 1e200), [old], new, time=1.0)
    assert made.lost.value is None
    assert made.lost.status is Status.DIVERGED


@pytest.mark.slow
def test_a_learning_time_beyond_all_stability_ends_early_and_says_so(head):
    model, theta, old, new = head
    made = expected_drift(model, theta, [old], new, time=1e12)
    assert made.lost.value is None
    assert made.lost.status is Status.DIVERGED
    assert "smaller lr" in made.lost.note


@pytest.mark.slow
@pytest.mark.parametrize(("time", "precision"), [(3.0, torch.float32), (3e4, torch.float64)])
def test_single_precision_only_where_rounding_allows(float64, monkeypatch, time, precision):
    # Ten samples of five inputs: what cannot be fitted piles up in the dual variable, with time.
    old, new = (regression_task(n, torch.randn(10, 5), torch.randn(10)) for n in "AB")
    seen = []

    def recorded(kernel, *args, **options):
        seen.append(kernel.dtype)
        return integrate(kernel, *args, **options)

    monkeypatch.setattr(output_drift, "integrate", recorded)
    made = expected_drift(FlatModel(linear(5)), torch.randn(5), [old], new, time=time, groups=5)
    assert seen == [torch.float64, *[precision] * 5]
    assert made.displacement.stderr > 0


@pytest.mark.slow
@pytest.mark.parametrize("time", [0.0, -1.0, math.nan])
def test_bad_time(head, time):
    model, theta, old, new = head
    with pytest.raises(ValueError, match=r"time = .* must be a finite number above 0"):
        expected_drift(model, theta, [old], new, time=time)
