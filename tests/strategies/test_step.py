"""A strategy's step: what trains is what is differentiated, and a plain step stays what it was."""

from __future__ import annotations

import pytest
import torch

from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.jacobian.trajectory import Trajectory
from capacity.optimizers.from_recipe import from_training
from capacity.optimizers.own_steps import BatchStep
from capacity.recipe.config import Training
from capacity.strategies.step import StrategyStep
from capacity.training.steps import Step
from capacity.training.train import train
from strategy_cases import OPTIONS, after_two, learn, order

SHORT = Training(lr=0.2, epochs=2, batch_size=8)
OPTIMIZERS = {
    "sgd": {},
    "momentum": {"optimizer": "momentum"},
    "adam": {"optimizer": "adam", "lr": 0.05},
    "sgd, clipped": {"clip_norm": 0.3, "weight_decay": 0.1},
}


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
    update = from_training(plan.training)
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
    [("agem", "momentum"), ("gpm", "sgd, clipped"), ("freeze", "adam"), ("ewc", "adam")],
)
def test_the_jacobian_with_other_optimisers(float64, case, optimizer):
    error, dot = jacobian_error(case, optimizer, heads=False)
    assert error < 1e-5
    assert dot < 1e-12


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
