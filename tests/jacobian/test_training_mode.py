"""J_t of steps in training mode, against finite differences and a dense J of the same steps."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from capacity.base.randomness import kept_random_state
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.networks.belief import Belief
from capacity.networks.door import fit
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.from_recipe import from_training
from capacity.recipe.config import Measure, Training
from capacity.runs.observe import PhaseTransport
from capacity.strategies.mitigation import Mitigation
from capacity.strategies.step import StrategyStep
from capacity.strategies.terms import Source
from capacity.tasks.tensors import as_task
from capacity.training.data_order import DataOrder
from capacity.training.gradients import mask_seed
from capacity.training.train import train

X = torch.randn(40, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
Y = (X[:, 0] + 0.3 * X[:, 1] ** 2 > 0).long()
OLD = as_task((X + 0.5, 1 - Y), share=0, name="old")
TASK = as_task((X, Y), share=0, name="new")
STEPS = 5  # the third batch of 16 of 40 is one of 8


class Functional(nn.Module):
    """A draw that no layer makes."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(5, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(functional.dropout(self.norm(self.inner(x)).tanh(), 0.3, self.training))


def _network(kind):
    torch.manual_seed(0)
    norm, drop = nn.BatchNorm1d(4), nn.Dropout(0.3)
    layers = {"dropout": [drop], "batch norm": [norm], "both": [norm, drop]}
    if kind == "functional":
        return Functional().double()
    parts = layers[kind]
    return nn.Sequential(nn.Linear(5, 4), *parts, nn.Tanh(), nn.Linear(4, 2)).double()


def _plan(**more):
    return Training(lr=0.3, epochs=2, batch_size=16, max_steps=STEPS, **more)


class Phase:
    """A training of a few steps in training mode, its J_t followed."""

    def __init__(self, kind, strategy="naive", **more):
        self.module = _network(kind)
        if "belief" in more:
            self.module = Belief(_network(kind).eval(), width=0.3)
        self.flat = FlatModel(self.module)
        self.old, self.task = fit(
            self.flat, self.flat.initial(), [OLD, TASK], twice=True, two_modes=True
        )
        self.plan = _plan(strategy={"name": strategy}, **more)
        self.mitigation = Mitigation(self.plan.strategy, self.flat, Source(1, ("strategy",)))
        self.theta = self.flat.initial() + 0.01
        self.mitigation.learned(self.old, self.flat.initial()[None])
        self.planned = self.mitigation.plan(self.task, self.plan)
        self.order = DataOrder.planned(self.plan, 40, replicas=1, seed=5)
        self.transport = self._transport()
        self.end = self.trained(self.theta, self.transport)
        self.jacobian = TrainingJacobian([self.transport.trajectory])

    def _step(self):
        if self.planned.plain:
            return None
        return StrategyStep(self.flat, self.task, self.planned, 1)

    def _transport(self):
        strategy = self._step()
        return PhaseTransport(
            self.flat,
            self.task,
            from_training(self.plan, seed=5, path=self.order.path, layout=self.flat.layout),
            Measure(),
            torch.Generator().manual_seed(1),
            strategy,
            lambda step: mask_seed(self.order, step, 0),
            self.plan.batch_size if strategy is None else None,
        )

    def trained(self, theta, *observers):
        phase = train(
            self.flat,
            theta[None],
            self.task,
            self.plan,
            self.order,
            observers=observers,
            strategy=self._step(),
        )
        return phase.theta[0]


def _differenced(phase, v, h=1e-4):
    """A central difference of the whole training, of the fourth order in h."""
    ends = [phase.trained(phase.theta + k * h * v) for k in (2, 1, -1, -2)]
    return sum(w * end for w, end in zip((-1, 8, -8, 1), ends, strict=True)) / (12 * h)


def _relative(one, other):
    return float((one - other).norm() / other.norm())


KINDS = ("dropout", "batch norm", "both", "functional")


@pytest.mark.parametrize("kind", KINDS)
def test_products_agree_with_finite_differences_of_the_same_seeded_steps(kind):
    phase = Phase(kind)
    v = torch.randn(phase.flat.size, generator=torch.Generator().manual_seed(2)).double()
    error = _relative(phase.jacobian.forward(v[None])[0], _differenced(phase, v))
    assert error < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_both_directions_are_those_of_a_dense_jacobian_of_a_loop_of_torch(kind):
    phase = Phase(kind)
    module, flat = phase.module.train(), phase.flat
    buffers = {name: t.clone() for name, t in module.named_buffers()}

    def loop(theta):
        count = 0
        for batches in phase.order.epoch_batches(torch.device("cpu")):
            for index in batches:
                count += 1
                with kept_random_state(mask_seed(phase.order, count, 0)):
                    held = {n: t.clone() for n, t in buffers.items()}
                    made = functional_call(module, {**flat.unflatten(theta), **held}, X[index[0]])
                loss = functional.cross_entropy(made, Y[index[0]])
                (slope,) = torch.autograd.grad(loss, theta, create_graph=True)
                theta = theta - 0.3 * slope
        return theta

    dense = torch.autograd.functional.jacobian(loop, phase.theta)
    eye = torch.eye(flat.size, dtype=torch.float64)
    assert _relative(phase.end, loop(phase.theta.clone().requires_grad_()).detach()) < 1e-12
    assert _relative(phase.jacobian.forward(eye), dense.T) < 1e-10
    assert _relative(phase.jacobian.adjoint(eye), dense) < 1e-10
    assert _relative(dense, eye) > 0.1, "a Jacobian near 1 would tell nothing"


@pytest.mark.parametrize("strategy", ["replay", "ewc", "lwf", "agem", "ogd"])
def test_strategies_in_training_mode_agree_with_finite_differences(strategy):
    phase = Phase("both", strategy)
    v = torch.randn(phase.flat.size, generator=torch.Generator().manual_seed(2)).double()
    error = _relative(phase.jacobian.forward(v[None])[0], _differenced(phase, v))
    assert error < 1e-6


@pytest.mark.parametrize(
    ("geometry", "strategy"),
    [
        ("transport", "naive"),
        ("information", "naive"),
        ("transport", "ewc"),
        pytest.param({"geometry": "information", "implicit": 4}, "naive", marks=pytest.mark.slow),
        pytest.param({"geometry": "transport", "implicit": 4}, "ewc", marks=pytest.mark.slow),
    ],
)
def test_steps_of_a_belief_agree_with_finite_differences(geometry, strategy):
    phase = Phase("both", strategy, belief=geometry, temperature=0.05, weight_decay=0.1)
    v = torch.randn(phase.flat.size, generator=torch.Generator().manual_seed(2)).double()
    pushed = phase.jacobian.forward(v[None])[0]
    assert _relative(pushed, _differenced(phase, v)) < 1e-6
    assert _relative(pushed, v) > 0.03
    u = torch.randn(phase.flat.size, generator=torch.Generator().manual_seed(3)).double()
    assert float(u @ pushed) == pytest.approx(
        float(v @ phase.jacobian.adjoint(u[None])[0]), rel=1e-9
    )


# A bias before batch norm has no gradient but rounding, which Adam divides by its size.
@pytest.mark.parametrize(("optimizer", "kind"), [("momentum", "both"), ("adamw", "dropout")])
def test_accumulated_steps_with_moments_agree_with_finite_differences(optimizer, kind):
    phase = Phase(kind, optimizer=optimizer, accumulate=2)
    v = torch.randn(phase.flat.size, generator=torch.Generator().manual_seed(2)).double()
    error = _relative(phase.jacobian.forward(v[None])[0], _differenced(phase, v, 1e-6))
    assert error < 1e-6


def test_the_path_is_recomputed_between_stored_states_with_the_same_masks():
    phase = Phase("both")
    path = phase.transport.trajectory
    kept = [step.state[0].clone() for step in path.forwards()]
    path._states = {0: path._states[0]}
    path.stride = 8
    for before, step in zip(kept, path.forwards(), strict=True):
        torch.testing.assert_close(step.state[0], before, rtol=1e-12, atol=1e-12)


def test_log_volume_is_that_of_the_dense_jacobian_of_every_step():
    phase = Phase("both")
    eye = torch.eye(phase.flat.size, dtype=torch.float64)
    total = 0.0
    for step in phase.transport.trajectory.forwards():
        h = phase.transport.trajectory.products(step.state[0], step.x, step.y, eye)
        total += float(torch.linalg.slogdet(eye - step.lr * h)[1])
    made = phase.transport._tracker.log_volume()
    assert abs(made.value - total) < 4 * made.stderr + 0.02 * abs(total)
