"""Every predictor against a closed form on linear models."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from capacity.networks.flat_model import FlatModel
from capacity.predictors.predictor import Pair, Setting
from capacity.predictors.registry import PREDICTORS, predict
from capacity.recipe.config import Training
from capacity.records.estimate import Status
from capacity.tasks.task import Split, Task
from quadratics import linear, quadratic
from strategy_cases import network, starts, three

LR, STEPS = 0.1, 20
PLAN = Training(lr=LR, epochs=STEPS, batch_size=1000)
S = LR * STEPS


@pytest.fixture
def case(float64):
    """Two quadratic tasks, and two replicas near the minimum of the first."""
    old = quadratic("A", torch.tensor([0.5, 1.0, 2.0]), seed=4)
    new = quadratic("B", torch.tensor([0.1, 1.5, 3.0]), seed=5)
    theta = old.minimum + torch.tensor([[0.0, 0.0, 0.0], [0.1, -0.2, 0.3]])
    setting = Setting(
        model=FlatModel(linear(3)), theta=theta, old=(old.task,), new=new.task, training=PLAN
    )
    return old, new, setting


def rise(setting: Setting, name: str) -> float:
    (made,) = predict(setting, [name])[name]
    assert made.loss_increase.status is Status.UNCALIBRATED
    assert made.accuracy_drop.status is Status.NOT_DEFINED, "a regression"
    assert made.loss_increase.n == len(setting.theta)
    return made.loss_increase.value


def flow(new, theta: torch.Tensor) -> torch.Tensor:
    """Where gradient flow on B takes each replica, in weight space."""
    moved = torch.eye(3) - torch.linalg.matrix_exp(-S * new.hessian)
    return (new.minimum - theta) @ moved.T


def losses(old, theta: torch.Tensor) -> torch.Tensor:
    return torch.stack([old.loss(t) for t in theta])


@pytest.mark.slow
def test_slopes_and_curvatures(case):
    old, new, setting = case
    g = (setting.theta - new.minimum) @ new.hessian
    size = S * g.norm(dim=1)
    assert rise(setting, "path_bound") == pytest.approx(float(size.mean()))
    assert rise(setting, "path_bound_squared") == pytest.approx(float(size.square().mean()))
    bent = 0.5 * S**2 * torch.einsum("ri,ij,rj->r", g, old.hessian, g)
    assert rise(setting, "gradient_curvature") == pytest.approx(float(bent.mean()))
    d = flow(new, setting.theta)
    bound = 0.5 * 2.0 * d.square().sum(1)
    assert rise(setting, "curvature_bound") == pytest.approx(float(bound.mean()))


@pytest.mark.parametrize("name", ["second_order", "mse_drift"])
def test_exact_for_a_linear_head(case, name):
    old, new, setting = case
    d = flow(new, setting.theta)
    change = losses(old, setting.theta + d) - losses(old, setting.theta)
    assert rise(setting, name) == pytest.approx(float(change.mean()), rel=1e-9)
    assert "loss_increase" in predict(setting, [name])[name][0].in_units


@pytest.mark.slow
def test_the_drift_is_that_of_slow_training(case):
    old, new, setting = case
    rises = []
    for slower in (15, 30):
        slow = Training(lr=LR / slower, epochs=STEPS * slower, batch_size=1000)
        made = Setting(**{**vars_of(setting), "training": slow})
        trained = rise(made, "linearized")
        kept = torch.linalg.matrix_power(torch.eye(3) - slow.lr * new.hessian, slow.epochs)
        d = (new.minimum - setting.theta) @ (torch.eye(3) - kept).T
        change = losses(old, setting.theta + d) - losses(old, setting.theta)
        assert trained == pytest.approx(float(change.mean()), rel=1e-9)
        rises.append(trained)
    limit = 2 * rises[1] - rises[0]
    assert rise(made, "mse_drift") == pytest.approx(limit, rel=5e-4), "the limit of small steps"


def vars_of(setting: Setting) -> dict:
    return {name: getattr(setting, name) for name in Setting.__dataclass_fields__}


def test_momentum_stretches_the_learning_time(case):
    _, _, setting = case
    heavy = Training(optimizer="momentum", momentum=0.5, lr=LR, epochs=STEPS, batch_size=1000)
    other = Setting(**{**vars_of(setting), "training": heavy})
    assert rise(other, "path_bound") == pytest.approx(2 * rise(setting, "path_bound"))


def test_the_pilot_is_the_first_step(case):
    old, new, setting = case
    one = setting.theta - LR * (setting.theta - new.minimum) @ new.hessian
    change = losses(old, one) - losses(old, setting.theta)
    assert rise(setting, "pilot") == pytest.approx(float(change.mean()), rel=1e-9)


def test_the_new_tasks_loss(case):
    _, new, setting = case
    assert rise(setting, "new_task_loss") == pytest.approx(float(losses(new, setting.theta).mean()))


@pytest.mark.slow
def test_ceilings_need_what_comes_after(case):
    old, _, setting = case
    after = setting.theta + 0.3 * torch.randn(2, 3)
    known = Setting(**{**vars_of(setting), "after": after})
    change = losses(old, after) - losses(old, setting.theta)
    assert rise(known, "second_order_true") == pytest.approx(float(change.mean()), rel=1e-9)
    x = setting.new.test.x
    moved = ((after - setting.theta) @ x.T).square() / 2
    assert rise(known, "kl_on_new") == pytest.approx(float(moved.mean()))
    for name in ("second_order_true", "kl_on_new"):
        assert PREDICTORS[name].post_hoc
        (made,) = predict(setting, [name])[name]
        assert made.loss_increase.status is Status.NOT_DEFINED
        assert "after the new task" in made.loss_increase.note
        assert name not in predict(setting)
        assert name in predict(known)


def at_angle(angle: float) -> tuple[Task, Task]:
    """One unit input each, at an angle."""
    made = []
    for name, a in (("A", 0.0), ("B", angle)):
        split = Split(torch.tensor([[math.cos(a), math.sin(a), 0.0]]), torch.ones(1, 1))
        made.append(Task(name=name, train=split, test=split, loss="mse"))
    return made[0], made[1]


@pytest.mark.parametrize("name", ["subspace_overlap", "input_overlap"])
@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2])
def test_overlap_is_the_squared_cosine(float64, name, angle):
    old, new = at_angle(angle)
    model = FlatModel(linear(3))
    setting = Setting(model=model, theta=torch.randn(2, 3), old=(old,), new=new, training=PLAN)
    assert rise(setting, name) == pytest.approx(math.cos(angle) ** 2, abs=1e-12)


def test_additive_marginals_by_hand(case):
    _, _, setting = case
    history = (
        Pair("A", "C", 0.5, 2.0),
        Pair("D", "B", 0.1, 1.0),
        Pair("D", "C", 0.3, 6.0),
    )
    known = Setting(**{**vars_of(setting), "history": history})
    # The mean is 3; A's pairs have 2, B's have 1.
    assert rise(known, "additive_marginals") == pytest.approx(3 + (2 - 3) + (1 - 3))
    (made,) = predict(setting, ["additive_marginals"])["additive_marginals"]
    assert "earlier measured pairs" in made.loss_increase.note
    stranger = Setting(**{**vars_of(setting), "history": (Pair("X", "Y", 0.5, 2.0),)})
    assert rise(stranger, "additive_marginals") == pytest.approx(2.0)


@pytest.mark.slow
def test_controls_on_a_quadratic(float64):
    old = quadratic("A", torch.tensor([0.0, 1.0, 2.0]), seed=4)
    new = quadratic("B", torch.tensor([0.3, 1.5, 3.0]), seed=5)
    setting = Setting(
        model=FlatModel(linear(3)),
        theta=old.minimum[None],
        old=(old.task,),
        new=new.task,
        training=PLAN,
    )
    (missing,) = predict(setting, ["capacity_alone"])["capacity_alone"]
    assert "displacement" in missing.loss_increase.note
    known = Setting(**{**vars_of(setting), "displacement": 1.0})
    # One direction costs A nothing; a map of rank 1 has stable rank 1.
    assert rise(known, "capacity_alone") == pytest.approx(-1.0, rel=1e-6)
    assert rise(known, "dimension_alone") == pytest.approx(1.0, rel=1e-6)
    (shallow,) = predict(known, ["effective_rank"])["effective_rank"]
    assert "no hidden layer" in shallow.loss_increase.note


def test_classification_by_hand(float64):
    torch.manual_seed(3)
    model = nn.Linear(5, 4, bias=False)
    flat = FlatModel(model)
    a, b, _ = three()
    theta = flat.initial()[None]
    made = predict(
        Setting(model=flat, theta=theta, old=(a,), new=b, training=PLAN), ["mse_drift", "kl_on_new"]
    )["mse_drift"][0]
    # In weight space: dW = -(W X'X - Y'X) dt / n.
    w, x = theta.reshape(4, 5), b.train.x
    y = torch.nn.functional.one_hot(b.train.y, 4).to(x)
    gram = x.T @ x / len(x)
    best = torch.linalg.solve(gram, x.T @ y / len(x)).T
    end = best + (w - best) @ torch.linalg.matrix_exp(-S * gram)
    before, after = (a.test.x @ v.T for v in (w, end))
    target = torch.nn.functional.one_hot(a.test.y, 4).to(x)
    drop = a.accuracy_of(before, a.test.y) - a.accuracy_of(after, a.test.y)
    change = 0.5 * ((after - target).square().sum(1) - (before - target).square().sum(1)).mean()
    assert made.accuracy_drop.value == pytest.approx(float(drop))
    assert abs(float(drop)) > 0.05, "the case must move"
    assert made.loss_increase.value == pytest.approx(float(change), rel=1e-9)
    assert made.in_units == {"accuracy_drop"}, "the training's loss is another"


def test_kl_by_hand(float64):
    flat, theta = starts(1)
    a, b, _ = three(heads=True)
    setting = Setting(model=flat, theta=theta, old=(a,), new=b, training=PLAN, after=theta + 0.3)
    p, q = (
        flat.outputs(t[0], b.test.x)[:, list(b.outputs)].softmax(1) for t in (theta, theta + 0.3)
    )
    expected = (p * (p / q).log()).sum(1).mean()
    made = predict(setting, ["kl_on_new"])["kl_on_new"][0]
    assert made.loss_increase.value == pytest.approx(float(expected))
    assert made.accuracy_drop.value == pytest.approx(float(expected))


@pytest.mark.slow
def test_all_on_a_network():
    flat, theta = starts(2)
    a, b, c = three()
    training = Training(lr=0.1, epochs=5, batch_size=8)
    setting = Setting(
        model=flat,
        theta=theta,
        old=(a,),
        new=c,
        training=training,
        displacement=1.0,
        history=(Pair("A", "B", 0.1, 0.2),),
        after=theta + 0.01,
    )
    made = predict(setting)
    assert set(made) == set(PREDICTORS)
    for name, (prediction,) in made.items():
        assert math.isfinite(prediction.loss_increase.value), name
        assert math.isfinite(prediction.accuracy_drop.value), name
        assert prediction.loss_increase.n == 2, name
    drawn = ["pilot", "curvature_bound"]
    again = predict(setting, drawn)
    assert again == {name: made[name] for name in drawn}, "the same setting, the same numbers"
    two = predict(Setting(**{**vars_of(setting), "old": (b, a)}), ["mse_drift"])["mse_drift"]
    assert two[1] == made["mse_drift"][0], "one prediction per old task, in order"


def test_the_registry_says_where_each_is_from():
    codes = {predictor.code for predictor in PREDICTORS.values()}
    assert codes >= {f"B{k}" for k in range(9)}
    for predictor in PREDICTORS.values():
        assert predictor.title
        assert predictor.source


def test_gpm_says_what_it_does_not_know():
    model = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 4))
    flat = FlatModel(model)
    a, b, _ = three()
    setting = Setting(model=flat, theta=flat.initial()[None], old=(a,), new=b, training=PLAN)
    (made,) = predict(setting, ["input_overlap"])["input_overlap"]
    assert made.loss_increase.status is Status.NOT_DEFINED
    assert "LayerNorm" in made.loss_increase.note


def test_bad_settings():
    flat = FlatModel(network())
    a, b, _ = three()
    good = {"model": flat, "theta": flat.initial()[None], "old": (a,), "new": b, "training": PLAN}
    with pytest.raises(ValueError, match="did you mean 'path_bound'"):
        predict(Setting(**good), ["path_bond"])
    with pytest.raises(ValueError, match="at least one old task"):
        predict(Setting(**good | {"old": ()}))
    with pytest.raises(ValueError, match="replica dimension"):
        predict(Setting(**good | {"theta": flat.initial()}))
