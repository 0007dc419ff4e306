"""The pseudo-kernel flow against dense oracles, slow training, and its own doors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from capacity.forecasting import pseudo_kernel, task_kernels
from capacity.forecasting.plan_time import flow_plan
from capacity.forecasting.pseudo_kernel import forecast_by_flow
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.products import feature_rows
from capacity.recipe.config import Training
from capacity.records.estimate import Status
from capacity.tasks.task import Split, Task
from capacity.training.data_order import DataOrder
from capacity.training.train import train
from dense import network

MANY = 1000
"""More samples than any task here has."""


def classes(name: str, labels: tuple[int, ...], seed: int, **more) -> Task:
    """Noisy classes in eight dimensions, 20 samples for each class, and 10 for scores."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.tensor(labels).repeat(30)
    x = 0.7 * torch.randn(len(y), 8, generator=generator).double() + torch.eye(8)[y].double()
    place = torch.arange(len(labels)).repeat(30) if more else y
    cut = 20 * len(labels)
    return Task(
        name=name, train=Split(x[:cut], place[:cut]), test=Split(x[cut:], place[cut:]), **more
    )


def slow(flat: FlatModel, theta: Tensor, task: Task, training: Training) -> Tensor:
    order = DataOrder.planned(training, len(task.train), replicas=1, seed=0, path=("test",))
    return train(flat, theta[None], task, training, order).theta


def truth(flat: FlatModel, theta: Tensor, after: Tensor, task: Task) -> tuple[float, float]:
    before, now = (
        evaluate(flat, theta[None], task, task.test),
        evaluate(flat, after, task, task.test),
    )
    return float(before.accuracy - now.accuracy), float(now.loss - before.loss)


def dense(
    flat: FlatModel, theta: Tensor, task: Task, training: Training, *, pseudo: bool
) -> Tensor:
    """Take small explicit steps of the linearised training: the dual variable at its end."""
    jacobian = torch.func.jacrev(lambda t: task.select(flat.outputs(t, task.train.x)))(theta)
    n, c = jacobian.shape[:2]
    if pseudo:
        summed = jacobian.sum(1) / c**0.5
        kernel = torch.kron(summed @ summed.T, torch.eye(c))
    else:
        flatter = jacobian.reshape(n * c, -1)
        kernel = flatter @ flatter.T
    f0 = task.select(flat.outputs(theta, task.train.x))
    pull = (jacobian @ theta) * training.weight_decay
    f, dual, shrunk = f0, torch.zeros_like(f0), 0.0
    parts = 12
    for rate in training.learning_rates(n):
        for _ in range(parts):
            r = nn.functional.one_hot(task.train.y, c) - f.softmax(-1)
            h, w = rate / parts, training.weight_decay
            dual = dual + h * (r - w * dual)
            shrunk = shrunk - h * w * (1 + shrunk)
            f = f0 + (kernel @ dual.flatten()).view_as(f) / n
            f = f + (shrunk / w if w else 0.0) * pull
    return dual


@pytest.fixture
def learned(float64):
    """A small network that has learned three classes."""
    torch.manual_seed(0)
    flat = FlatModel(network(8, 12, 6))
    old, new = classes("A", (0, 1, 2), 1), classes("B", (3, 4, 5), 2)
    theta = slow(flat, flat.initial(), old, Training(lr=0.3, epochs=40, batch_size=20))[0]
    return flat, theta, old, new


@pytest.mark.slow
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_the_pseudo_kernels_flow_is_that_of_a_dense_one(learned, monkeypatch, decay):
    flat, theta, old, new = learned
    monkeypatch.setattr(pseudo_kernel, "_TOLERANCE", 1e-5)
    training = Training(lr=0.1, epochs=30, batch_size=60, weight_decay=decay, schedule="cosine")
    made = forecast_by_flow(flat, theta, (old,), new, training, samples=MANY, tests=MANY)
    dual = dense(flat, theta, new, training, pseudo=True)
    rows = [
        torch.func.jacrev(lambda t, x=x: flat.outputs(t, x).sum(1) / 6**0.5)(theta)
        for x in (old.test.x, new.train.x)
    ]
    f = flat.outputs(theta, old.test.x)
    moved = rows[0] @ rows[1].T @ dual / len(dual)
    if decay:
        shrunk = math.exp(-decay * math.fsum(training.learning_rates(60))) - 1
        moved = (
            moved + shrunk * torch.func.jacrev(lambda t: flat.outputs(t, old.test.x))(theta) @ theta
        )
    rise = old.loss_of(f + moved, old.test.y) - old.loss_of(f, old.test.y)
    drop = old.accuracy_of(f, old.test.y) - old.accuracy_of(f + moved, old.test.y)
    assert float(rise) > 0.1
    assert made.old[0].rise.value == pytest.approx(float(rise), rel=5e-3)
    assert made.old[0].drop.value == pytest.approx(float(drop), abs=1e-9)
    slope = torch.func.grad(lambda t: (flat.outputs(t, new.train.x) * dual).sum() / len(dual))(
        theta
    )
    if not decay:
        torch.testing.assert_close(made.delta, slope, rtol=1e-2, atol=1e-3 * float(slope.norm()))


@pytest.mark.slow
def test_heads_take_the_exact_kernel(float64, monkeypatch):
    torch.manual_seed(1)
    monkeypatch.setattr(pseudo_kernel, "_TOLERANCE", 1e-5)
    flat = FlatModel(network(8, 12, 6))
    old = classes("A", (0, 1, 2), 1, outputs=(0, 1, 2))
    new = classes("B", (1, 2, 0), 2, outputs=(3, 4, 5))
    theta = slow(flat, flat.initial(), old, Training(lr=0.3, epochs=40, batch_size=20))[0]
    training = Training(lr=0.4, epochs=40, batch_size=60)
    made = forecast_by_flow(flat, theta, (old,), new, training, samples=MANY, tests=MANY)
    dual = dense(flat, theta, new, training, pseudo=False)
    delta = torch.func.grad(
        lambda t: (new.select(flat.outputs(t, new.train.x)) * dual).sum() / len(dual)
    )(theta)
    f, moved = torch.func.jvp(lambda t: flat.outputs(t, old.test.x), (theta,), (delta,))
    rise = old.loss_of(f + moved, old.test.y) - old.loss_of(f, old.test.y)
    assert float(moved.norm()) > 0.3
    assert made.old[0].rise.value == pytest.approx(float(rise), rel=1e-2, abs=1e-4)
    torch.testing.assert_close(made.delta, delta, rtol=1e-2, atol=1e-3 * float(delta.norm()))
    now = flat.outputs(theta + delta, old.test.x)
    here = old.loss_of(now, old.test.y) - old.loss_of(f, old.test.y)
    assert made.moved[0].rise.value == pytest.approx(float(here), rel=1e-2, abs=1e-4), (
        "the network itself"
    )


PLANS = {
    "sgd": {},
    "momentum": {"optimizer": "momentum", "lr": 0.002},
    "nesterov": {"optimizer": "momentum", "nesterov": True, "lr": 0.002},
    "decay": {"weight_decay": 0.5},
    "momentum, decay": {"optimizer": "momentum", "lr": 0.002, "weight_decay": 0.5},
    "warmup and cosine": {"warmup": 0.3, "schedule": "cosine"},
    "clipped": {"clip_norm": 0.3},
}


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS)
def test_a_linear_head_forgets_as_slow_training_says(float64, plan):
    # Here the pseudo-kernel is the kernel; what is left is the finite rate and the batches' noise.
    torch.manual_seed(0)
    flat = FlatModel(nn.Linear(8, 6))
    old, new = classes("A", (0, 1, 2), 1), classes("B", (3, 4, 5), 2)
    theta = slow(flat, flat.initial(), old, Training(lr=0.3, epochs=40, batch_size=20))[0]
    training = Training(**{"lr": 0.02, "epochs": 40, "batch_size": 10, **PLANS[plan]})
    drop, rise = truth(flat, theta, slow(flat, theta, new, training), old)
    made = forecast_by_flow(flat, theta, (old,), new, training, samples=MANY, tests=MANY)
    assert rise > 0.03
    assert made.old[0].rise.value == pytest.approx(rise, rel=0.05)
    assert made.old[0].drop.value == pytest.approx(drop, abs=0.035), "one sample of 30"
    assert made.old[0].rise.status is Status.UNCALIBRATED
    assert made.off_line < 1e-6, "a linear network is where the flow says"
    assert made.learned > 0.05


NORMALISED = {
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw", "weight_decay": 5.0},
    "rmsprop": {"optimizer": "rmsprop"},
    "adam, clipped": {"optimizer": "adam", "clip_norm": 0.1},
    "adam, short memory": {"optimizer": "adam", "betas": (0.9, 0.95)},
}


@pytest.mark.slow
@pytest.mark.parametrize("plan", NORMALISED)
def test_normalised_steps_flow_in_the_metric_of_their_squares(float64, plan):
    generator = torch.Generator().manual_seed(3)
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0])
    scales = torch.tensor([1.0, 3.0, 0.3, 2.0])

    def regression(name: str, shift: float) -> Task:
        x = (torch.randn(90, 4, generator=generator).double() + shift) * scales
        y = x @ (weights + shift) + 0.5 * torch.randn(90, generator=generator).double()
        return Task(name=name, train=Split(x[:60], y[:60]), test=Split(x[60:], y[60:]), loss="mse")

    old, new = regression("A", 0.0), regression("B", 0.5)
    flat = FlatModel(nn.Linear(4, 1, bias=False))
    training = Training(lr=0.0005, epochs=150, batch_size=20, **NORMALISED[plan])
    _, rise = truth(flat, weights, slow(flat, weights, new, training), old)
    made = forecast_by_flow(flat, weights, (old,), new, training, samples=MANY, tests=MANY)
    plain = forecast_by_flow(
        flat, weights, (old,), new, Training(lr=0.0005, epochs=150, batch_size=20), samples=MANY
    )
    assert made.old[0].rise.value == pytest.approx(rise, rel=0.15)
    assert abs(plain.old[0].rise.value - rise) > 0.3 * abs(rise), "the metric matters"
    assert made.old[0].drop.status is Status.NOT_DEFINED


def test_memory_and_chunks_change_nothing(learned, monkeypatch):
    flat, theta, old, new = learned
    training = Training(optimizer="adam", lr=0.01, epochs=5, batch_size=20)
    whole = forecast_by_flow(flat, theta, (old,), new, training)
    monkeypatch.setattr(feature_rows, "BUDGET", 8 * 3 * flat.size)
    parts = forecast_by_flow(flat, theta, (old,), new, training)
    assert parts.old[0].rise.value == pytest.approx(whole.old[0].rise.value, rel=1e-9)
    torch.testing.assert_close(parts.delta, whole.delta)


def test_hashed_rows_have_the_kernel_of_the_rows(learned, monkeypatch):
    flat, theta, _, new = learned
    ones = torch.ones(len(new.train), 1, 6)
    whole, few = (
        feature_rows.hashed(flat, theta, new, new.train.x, ones, scale=None, kept=kept, seed=0)
        for kept in (flat.size, 100)
    )
    exact, made = whole.gram(whole), few.gram(few)
    assert few.rows(slice(0, 1)).shape == (1, 100)
    assert flat.size > 150
    assert float((made - exact).norm() / exact.norm()) < 0.3


def test_a_plan_counts_as_time():
    layout = (("weight", 2), ("bias", 1))
    heavy = Training(optimizer="momentum", momentum=0.5, lr=1.0, epochs=2, batch_size=10)
    assert flow_plan(heavy, 10, layout).times == (2.0, 2.0)
    own = {"parameters": ["bias"], "lr_factor": 3.0, "weight_decay": 0.2}
    groups = Training(lr=1.0, epochs=1, batch_size=10, groups=[own], weight_decay=0.3)
    plan = flow_plan(groups, 10, layout)
    assert plan.scale.tolist() == [1.0, 1.0, 3.0]
    torch.testing.assert_close(plan.pulled, torch.tensor([0.75, 0.75, 1.5]))
    assert plan.shrinks == pytest.approx((0.4,)), "0.3, 0.3 and 3 times 0.2, on average"


REFUSED = {
    "sgld": ({"optimizer": "sgld", "temperature": 0.1}, "'sgld' states no flow"),
    "decay": ({"optimizer": "adam", "weight_decay": 0.1}, "weight_decay = 0.1 is added"),
    "strategy": ({"strategy": {"name": "ewc"}}, "strategy = 'ewc'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_flow_stands_for_is_refused_by_name(learned, case):
    flat, theta, old, new = learned
    options, said = REFUSED[case]
    with pytest.raises(ValueError, match=said):
        forecast_by_flow(flat, theta, (old,), new, Training(**options))


def test_layers_of_two_modes_are_refused_by_name(learned):
    _, _, old, new = learned
    flat = FlatModel(nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.5)))
    flat.two_modes = True
    with pytest.raises(ValueError, match="Dropout"):
        forecast_by_flow(flat, flat.initial(), (old,), new, Training())


class _Squared(torch.autograd.Function):
    """A function of the old kind, which torch.func does not go through."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class _Parabola(nn.Module):
    def __init__(self, square) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer, self.square = nn.Linear(8, 9), nn.Linear(9, 6), square

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.square(self.inner(x)))


def test_functions_of_the_old_kind_take_plain_autograd(learned):
    _, _, old, new = learned
    training = Training(optimizer="adam", lr=0.01, epochs=3, batch_size=20)
    made = []
    for square in (_Squared.apply, torch.square):
        flat = FlatModel(_Parabola(square))
        flat.transforms = square is torch.square
        made.append(forecast_by_flow(flat, flat.initial(), (old,), new, training))
    assert made[0].old[0].rise.value == pytest.approx(made[1].old[0].rise.value, rel=1e-9)
    assert abs(made[0].new.loss.value - made[0].old[0].loss.value) > 0.01


def test_tables_of_outputs_take_the_exact_kernel(learned):
    _, _, old, new = learned
    wide = FlatModel(nn.Linear(8, 100))
    forecast_by_flow(wide, wide.initial(), (old,), new, Training(epochs=1))
    wide.table = (10, 10)
    with pytest.raises(ValueError, match="100 outputs per sample, too many"):
        forecast_by_flow(wide, wide.initial(), (old,), new, Training(epochs=1))


def test_parameters_that_no_sample_moves_stay_where_they_are(float64, monkeypatch):
    # Each sample sees one of eight inputs; the squares come from four samples.
    monkeypatch.setattr(task_kernels, "_MOMENTS", 4)
    x = torch.eye(8).double().repeat(10, 1)
    old, new = (
        Task(name=name, train=Split(x, y), test=Split(x, y), loss="mse")
        for name, y in (("A", torch.zeros(80).double()), ("B", torch.ones(80).double()))
    )
    flat = FlatModel(nn.Linear(8, 1, bias=False))
    training = Training(optimizer="adam", lr=0.001, epochs=5, batch_size=20)
    made = forecast_by_flow(flat, torch.zeros(8).double(), (old,), new, training)
    assert 0 < made.old[0].rise.value < 0.01
    assert float(made.delta.abs().max()) < 3 * math.fsum(training.learning_rates(80))
    assert int((made.delta == 0).sum()) >= 4
