"""A strategy's step: what trains is what is differentiated, and a plain step stays what it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.func import hessian, jacrev

from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.jacobian.trajectory import Trajectory
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.conditioner import conditioned
from capacity.optimizers.from_recipe import from_training
from capacity.optimizers.natural import Natural
from capacity.optimizers.optimizer import stated
from capacity.optimizers.own_steps import BatchStep
from capacity.optimizers.sgd import SGD
from capacity.recipe.config import Strategy, Training
from capacity.strategies.mitigation import Mitigation
from capacity.strategies.step import StrategyStep
from capacity.tasks.task import Split, Task
from capacity.training.steps import Step
from capacity.training.train import train
from strategy_cases import OPTIONS, after_two, learn, order, starts, three

SHORT = Training(lr=0.2, epochs=2, batch_size=8)
OPTIMIZERS = {
    "sgd": {},
    "momentum": {"optimizer": "momentum"},
    "adam": {"optimizer": "adam", "lr": 0.05},
    "sgd, clipped": {"clip_norm": 0.3, "weight_decay": 0.1},
    "natural, diagonal, clipped": {
        "optimizer": "natural", "lr": 0.1, "options": {"curvature": "diagonal"}, "clip_norm": 3.0
    },
}  # fmt: skip


class Recorder:
    """Follows one replica, as a run does."""

    def __init__(self, trajectory: Trajectory, replica: int) -> None:
        self.trajectory, self.replica = trajectory, replica

    def observe(self, step: Step) -> None:
        r = self.replica
        state = tuple(part[r] for part in step.before)
        batch = step.batch
        self.trajectory.record(state, batch.x[r], batch.y[r], step.lr, index=batch.index[r])


def jacobian_error(
    case: str, optimizer: str, *, heads: bool, replica: int = 1
) -> tuple[float, ...]:
    """Compare J v and J' u with finite differences of the whole training on the third task."""
    training = Training(epochs=2, batch_size=8, **{"lr": 0.2, **OPTIMIZERS[optimizer]})
    made, flat, theta, task = after_two(case, training, heads=heads)
    plan = made.plan(task, training)
    update = stated(from_training(plan.training)).bound(flat.outputs, task)
    batches = order(task, plan.training, len(theta), 2)

    def result(start: torch.Tensor, observers: tuple = ()) -> torch.Tensor:
        step = None if plan.plain else StrategyStep(flat, task, plan, len(theta))
        kwargs = {"observers": observers, "strategy": step}
        return train(flat, start, task, plan.training, batches, **kwargs).theta

    step = None if plan.plain else StrategyStep(flat, task, plan, len(theta))
    trajectory = Trajectory(
        flat.loss(task) if step is None else step.loss_of(replica),
        update if step is None else step.update_of(update, replica),
        data=(task.train.x, task.train.y) if step is None else step.data_of(replica),
    )
    end = result(theta, (Recorder(trajectory, replica),))
    v, u = torch.randn(2, 1, flat.size)
    jacobian = TrainingJacobian([trajectory])
    forward, adjoint = jacobian.forward(v), jacobian.adjoint(u)
    moved = torch.zeros_like(theta)
    moved[replica] = 1e-6 * v[0]
    seen = (result(theta + moved) - result(theta - moved)) / 2e-6
    others = torch.arange(len(theta)) != replica
    assert torch.equal(seen[others], torch.zeros_like(seen[others])), "replicas must not mix"
    assert float((end - theta).norm()) > 1e-3, "the case must move"
    error = float((forward[0] - seen[replica]).norm() / seen[replica].norm())
    dot = float((forward @ u.T - v @ adjoint.T).abs() / (forward.norm() * u.norm()))
    return error, dot


@pytest.mark.slow
@pytest.mark.parametrize("case", OPTIONS)
def test_the_jacobian_is_that_of_the_strategys_step(float64, case):
    error, dot = jacobian_error(case, "sgd", heads=case in {"replay", "lwf", "derpp"})
    assert error < 1e-6
    assert dot < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "optimizer"),
    [
        ("agem", "momentum"),
        ("gpm", "sgd, clipped"),
        ("freeze", "adam"),
        ("ewc", "adam"),
        ("ewc, ggn", "natural, diagonal, clipped"),
    ],
)
def test_the_jacobian_with_other_optimisers(float64, case, optimizer):
    error, dot = jacobian_error(case, optimizer, heads=False)
    assert error < 1e-5
    assert dot < 1e-12


@pytest.mark.parametrize("case", ["l2", "ewc", "ewc, ggn", "si"])
def test_a_penaltys_curvature_belongs_to_the_metric(float64, case):
    made, flat, theta, task = after_two(case, SHORT)
    step = StrategyStep(flat, task, made.plan(task, SHORT), 2)
    x, _, rows = step.draw(torch.arange(8).expand(2, -1))
    private = {name: part[1] for name, part in step.contribution.penalty.private.items()}
    curved = hessian(lambda t: step.contribution.penalty.value(t, private))(theta[1])
    bare = Natural().bound(flat.outputs, task)
    matrix = flat_metric(flat, task, theta[1], x[1]) + curved + 0.01 * torch.eye(flat.size)
    gradient, _ = step.gradients(theta, x, rows)
    fed = conditioned(stated(step.update(bare)).conditioner, theta, x, gradient)
    torch.testing.assert_close(fed[1], torch.linalg.solve(matrix, gradient[1]))
    alone = stated(step.update_of(bare, 1)).conditioner.apply(theta[1], x[1], gradient[1])
    torch.testing.assert_close(alone, fed[1])
    diagonal = Natural(curvature="diagonal").bound(flat.outputs, task)
    rough = stated(step.update_of(diagonal, 1)).conditioner.apply(theta[1], x[1], gradient[1])
    without = diagonal.conditioner.apply(theta[1], x[1], gradient[1])
    torch.testing.assert_close(gradient[1] / rough - gradient[1] / without, curved.diagonal())


def flat_metric(flat, task, theta, x):
    """The dense Gauss-Newton matrix under cross-entropy."""
    outputs, features = flat.outputs(theta, x), jacrev(lambda t: flat.outputs(t, x))(theta)
    p = outputs.softmax(-1)
    curve = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return torch.einsum("nap,nab,nbq->pq", features, curve, features) / len(x)


@pytest.mark.parametrize("curvature", ["exact", "diagonal"])
@pytest.mark.parametrize("strategy", [{"name": "ewc", "strength": 1e4}, {"name": "l2"}])
def test_natural_steps_under_a_stiff_penalty_stay_at_the_old_weights(float64, curvature, strategy):
    # Outside of the metric, lr 0.1 times a curvature of 0.1 over a damping of 1e-3 is 10.
    a, b, _ = three()
    flat, theta = starts(1)
    training = Training(
        optimizer="natural", options={"curvature": curvature, "damping": 1e-3}, lr=0.1,
        epochs=4, batch_size=8, strategy=strategy,
    )  # fmt: skip
    made = Mitigation(training.strategy, flat)
    ends = []
    for i, task in enumerate((a, b)):
        phase, _ = learn(made, flat, theta, task, training, i)
        assert phase.diverged is None
        ends.append(theta := phase.theta)
    assert float((ends[1] - ends[0]).norm() / ends[0].norm()) < 1
    assert float(made.plan(b, training).penalty.offset.max()) < 10


def test_a_penalty_without_a_stated_curvature_is_refused_by_natural_by_name(float64):
    made, flat, _, task = after_two("l2", SHORT)
    whole = made.plan(task, SHORT).penalty

    class Own:
        private = whole.private
        value = staticmethod(whole.value)

    step = StrategyStep(flat, task, replace(made.plan(task, SHORT), penalty=Own()), 2)
    assert step.update(SGD()).name == SGD().name
    with pytest.raises(ValueError, match=r"'natural' steps in a metric .* Own states none; give"):
        step.update(Natural().bound(flat.outputs, task))


def test_the_step_of_one_replica_is_the_step_of_all(float64):
    made, flat, theta, task = after_two("agem", SHORT)
    plan = made.plan(task, SHORT)
    step = StrategyStep(flat, task, plan, 2)
    update = from_training(SHORT)
    x, y, rows = step.draw(torch.arange(8).expand(2, -1))
    gradient, _ = step.gradients(theta, x, y)
    together = step.update(update).step((theta,), gradient, 0.1, 1)[0]
    for r in range(2):
        alone = step.update_of(update, r)
        assert isinstance(alone, BatchStep)
        made_alone = alone.function(step.loss_of(r), (theta[r],), x[r], y[r], 0.1, 1)[0]
        torch.testing.assert_close(made_alone, together[r], rtol=1e-12, atol=1e-14)
        data = step.data_of(r)
        assert torch.equal(data[0][rows[r]], x[r])
        assert torch.equal(data[1][rows[r]], y[r])


@pytest.mark.parametrize("case", ["replay", "si", "derpp", "gpm"])
def test_replicas_are_independent_of_their_number(float64, case):
    ends = []
    for replicas in (1, 3):
        made, flat, theta, task = after_two(case, SHORT, replicas=replicas)
        ends.append(learn(made, flat, theta, task, SHORT, 2)[0].theta)
    torch.testing.assert_close(ends[1][:1], ends[0], rtol=1e-9, atol=1e-11)


def test_frozen_parameters_stay_whatever_the_optimiser_does():
    training = Training(lr=0.1, optimizer="adamw", weight_decay=0.5, epochs=2, batch_size=8)
    made, flat, theta, task = after_two("freeze", training)
    end = learn(made, flat, theta, task, training, 2)[0].theta
    frozen = ~made.plan(task, training).trainable
    assert 0 < int(frozen.sum()) < flat.size
    assert torch.equal(end[:, frozen], theta[:, frozen])
    assert not bool((end == theta)[:, ~frozen].any())


def test_a_changed_plan():
    made, _, _, task = after_two("lower_lr", SHORT)
    assert made.plan(task, SHORT).training.lr == pytest.approx(0.02)
    made, _, _, task = after_two("fewer_epochs", SHORT)
    assert made.plan(task, SHORT).training.epochs == 1
    assert made.plan(task, SHORT).plain


@pytest.mark.parametrize("strategy", ["replay", "derpp", "agem", "lwf", "ewc"])
@pytest.mark.parametrize("heads", [True, False])
def test_natural_goes_with_old_outputs_where_all_tasks_read_the_same(strategy, heads):
    """Along another task's head its metric is the damping alone, and a step far too long."""
    x, y = torch.randn(12, 4), torch.arange(12) % 2
    tasks = [
        Task(
            name=f"{k}", train=Split(x, y), test=Split(x, y),
            outputs=(2 * k, 2 * k + 1) if heads else None,
        )
        for k in range(2)
    ]  # fmt: skip
    model = FlatModel(torch.nn.Linear(4, 4))
    made = Mitigation(Strategy(name=strategy), model)
    plan = Training(optimizer="natural", lr=0.1, epochs=1)
    if heads and strategy != "ewc":
        with pytest.raises(ValueError, match=f"'natural' steps in a metric.*'{strategy}' also"):
            made.check(tasks, plan)
        made.check(tasks, Training(lr=0.1, epochs=1))
        made.check(tasks[:1], plan)
    else:
        made.check(tasks, plan)
        assert made.plan(tasks[0], plan).plain
