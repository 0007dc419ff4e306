"""Mirror descent: its step, its exact Jacobian, its own speed limit, and what it refuses."""

from __future__ import annotations

import json
import math

import pytest
import torch
from scipy.integrate import quad

import capacity
from capacity.forecasting.linearized import simulate
from capacity.forecasting.plan_time import flow_plan
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.from_recipe import from_training
from capacity.optimizers.mirror import Mirror
from capacity.thermo.path import PathObserver
from capacity.training.data_order import DataOrder
from capacity.training.steps import Step
from dense import digits_task, network, run_map, trained

POTENTIALS = {
    "hypentropy": {"width": 0.3},
    "hypentropy, momentum": {"width": 0.3, "momentum": 0.7, "nesterov": True},
    "p-norm": {"potential": "p-norm", "p": 3.0},
    "sparse": {"potential": "p-norm", "p": 1.5},
}


def plan(**options):
    return capacity.Training(
        optimizer="mirror", options=options, lr=0.05, epochs=2, batch_size=16, weight_decay=0.01
    )


def curvature(update, theta):
    if update.potential == "hypentropy":
        return (theta**2 + update.width**2) ** -0.5
    return (update.p - 1) * abs(theta) ** (update.p - 2)


@pytest.mark.slow
@pytest.mark.parametrize("case", POTENTIALS)
def test_products_with_its_jacobian_are_those_of_finite_differences(case, float64):
    path = trained(
        FlatModel(network(64, 2, 3)), digits_task((0, 1, 2), 24), plan(**POTENTIALS[case])
    )
    jacobian, v, u = TrainingJacobian([path]), torch.randn(2, path.size), torch.randn(2, path.size)
    moved = 1e-6 * v[0] * path.like.abs().clamp(max=0.1)  # the metric has its pole at 0
    seen = (run_map(path, path.like + moved) - run_map(path, path.like - moved)) / 2e-6
    forward = jacobian.forward(torch.stack([moved / 1e-6, v[1]]))
    assert float((forward[0] - seen).norm() / seen.norm()) < 1e-6
    assert float((forward[0] - moved / 1e-6).norm() / seen.norm()) > 1e-3
    torch.testing.assert_close(
        forward @ u.T, (torch.stack([moved / 1e-6, v[1]]) @ jacobian.adjoint(u).T)
    )


@pytest.mark.parametrize("case", ["hypentropy", "p-norm", "sparse"])
def test_the_step_and_its_jacobian_are_those_of_theory(case, float64):
    update, hessian = Mirror(**POTENTIALS[case]), torch.tensor([[2.0, 0.3], [0.3, 1.0]])
    theta, target = torch.tensor([0.7, -0.4]), torch.tensor([0.1, 0.5])

    def step(point):
        return update.step((point,), hessian @ (point - target), 0.1, 1)[0]

    after = step(theta)
    torch.testing.assert_close(
        update._dual(after), update._dual(theta) - 0.1 * hessian @ (theta - target)
    )
    written = (torch.diag(curvature(update, theta)) - 0.1 * hessian) / curvature(update, after)[
        :, None
    ]
    torch.testing.assert_close(torch.func.jacfwd(step)(theta), written)


def test_the_two_norm_is_plain_descent(float64):
    theta, gradient = torch.randn(5), torch.randn(5)
    moved = Mirror("p-norm", p=2.0).step((theta,), gradient, 0.1, 1)[0]
    torch.testing.assert_close(moved, theta - 0.1 * gradient, rtol=1e-14, atol=1e-15)


def test_what_nothing_moves_stays_to_the_last_bit():
    theta = torch.randn(100)
    for options in POTENTIALS.values():
        update = Mirror(**options)
        assert torch.equal(update.step(update.init(theta), torch.zeros(100), 0.1, 1)[0], theta)


@pytest.mark.parametrize("case", ["hypentropy", "p-norm", "sparse"])
def test_flat_coordinates_are_the_integral_of_the_root_of_the_metric(case, float64):
    update = Mirror(**POTENTIALS[case])
    ends = [(0.2, 3.0), (-1.0, -0.4), (-2.0, 5.0), (1e-4, 40.0)]
    before, after = (torch.tensor(column) for column in zip(*ends, strict=True))
    for found, (a, b) in zip(update.flat_move(before, after).tolist(), ends, strict=True):
        truth, _ = quad(
            lambda x: curvature(update, x) ** 0.5 if x else 0.0,
            a,
            b,
            points=[0.0],
            epsabs=1e-11,
            limit=400,
        )
        assert found == pytest.approx(truth, rel=1e-6)


def test_the_speed_limit_holds_in_its_metric_and_tells_the_flow(float64):
    # One mode, psi'' = (x^2 + b^2)^{-1/2}, in steps so small that they are the flow.
    update, steps, lr = Mirror(width=0.5), 600, 3e-3
    observer, theta, losses = PathObserver(update), torch.tensor([[1.5]]), []
    for count in range(1, steps + 1):
        gradient = 2.0 * (theta - 0.2)
        losses.append((theta[:, 0] - 0.2) ** 2)
        (after,) = update.step((theta,), gradient, lr, count)
        observer.observe(Step(count, lr, (theta,), (after,), gradient, losses[-1]))
        theta = after
    last = (theta[:, 0] - 0.2) ** 2
    cost = observer.cost(losses[0], last, plain=False, full=True)
    own = cost.geometry
    assert own.name == "hypentropy, width 0.5"
    drop = float(losses[0] - last)
    assert own.action.value == pytest.approx(drop, rel=1e-2)
    way, _ = quad(lambda x: (x * x + 0.25) ** -0.25, 1.5, float(theta))
    assert own.distance_sq.value == pytest.approx(way**2, rel=1e-9)
    assert own.loss_drop_ratio.value == pytest.approx(own.inefficiency.value, rel=1e-2)
    assert own.inefficiency.value > 1.1
    again = PathObserver(update)
    again.restore(observer.state())
    assert again.cost(losses[0], last, plain=False, full=True) == cost


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"width": 0.0}, r"options.width = 0.0"),
        ({"width": math.nan}, r"options.width = nan"),
        ({"potential": "p-norm", "p": 1.0}, r"options.p = 1 gives no strictly convex potential"),
        ({"potential": "p-norm", "p": math.inf}, r"options.p = inf"),
        ({"momentum": 1.0}, r"options.momentum = 1; give a number from 0 to below 1"),
        (
            {"potential": "entropy"},
            r"options.potential = 'entropy' is not known; accepted: hypentropy, p-norm",
        ),
        ({"power": 2.0}, r"options = 'power' is not known; accepted: potential, width, p"),
        ({"width": "1"}, r"options.width = '1': Input should be a valid number"),
    ],
)
def test_potentials_that_are_none_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        plan(**options)


@pytest.mark.slow
def test_a_simulation_knows_where_theta_is_and_a_flow_in_a_kernel_refuses():
    # Linear network: the linearised training is the training itself.
    net, task = network(64, 3), digits_task((0, 1, 2), 30)
    flat, training = FlatModel(net), plan(width=0.1).model_copy(update={"weight_decay": 0.0})
    order = DataOrder.planned(training, len(task.train), replicas=1, seed=0)
    made = simulate(flat, flat.initial()[None], task, training, order)
    path = trained(flat, task, training)
    moved = run_map(path, path.like) - path.like
    torch.testing.assert_close(made.delta[0], moved, rtol=1e-3, atol=1e-6)
    assert from_training(training).compression() is not None
    with pytest.raises(ValueError, match=r"optimizer = 'mirror' states no flow"):
        flow_plan(training, 30, flat.layout)


@pytest.mark.slow  # a whole run with its report
def test_a_recipe_runs_with_it_and_reports_the_metric(quick_run, tmp_path):
    made = capacity.run(
        [digits_task((0, 1), 24), digits_task((2, 3), 24)],
        model=network(64, 3, 4),
        training=plan(width=0.3),
        measure={"level": "forecast"},
        out=tmp_path / "run",
        quiet=True,
    )
    phase = json.loads((tmp_path / "run" / "result.json").read_text())["phases"][0]
    own = phase["thermo"]["geometry"]
    assert own["name"] == "hypentropy, width 0.3"
    assert own["inefficiency"]["value"] >= 1
    assert "metric of the optimiser" in made.report().read_text()
    assert made.forecasts[0]["cost_ratio"]["value"] > 0
