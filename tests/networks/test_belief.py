"""A belief as a network of its moments: draws, pairs, predictions, price and refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import capacity
from capacity.base.randomness import kept_random_state
from capacity.forecasting.budget import operations
from capacity.networks.calibration import calibration_error
from capacity.networks.door import fit
from capacity.networks.flat_model import FlatModel
from capacity.tasks.tensors import as_task
from capacity.training.data_order import DataOrder
from capacity.training.train import train
from dense import network

X = torch.randn(30, 5, generator=torch.Generator().manual_seed(1))
TASK = as_task((X, (X[:, 0] > 0).long()), share=0, name="one")


def belief(**options):
    torch.manual_seed(2)
    flat = FlatModel(capacity.Belief(network(5, 4, 2), **{"width": 0.2, **options}))
    (task,) = fit(flat, flat.initial(), [TASK], two_modes=True)
    return flat, task


def test_a_loss_averages_antithetic_pairs_of_networks():
    flat, task = belief(draws=2)
    theta, point = flat.initial(), FlatModel(network(5, 4, 2))
    with flat.training(7):
        made = flat.loss(task)(theta, X, task.train.y)
    widths, means = theta.chunk(2)
    losses = []
    with kept_random_state(7):
        for _ in range(2):
            noise = torch.cat([torch.randn(shape).flatten() for shape in point.shapes])
            for sign in (1, -1):
                outputs = point.outputs(means + sign * widths * noise, X)
                losses.append(functional.cross_entropy(outputs, task.train.y))
    torch.testing.assert_close(made, torch.stack(losses).mean())


def test_a_prediction_averages_probabilities_over_the_same_draws_always():
    flat, _ = belief(predictions=200)
    theta = flat.initial()
    made = flat.outputs(theta, X)
    assert torch.equal(made, flat.outputs(theta, X))
    torch.testing.assert_close(made.exp().sum(1), torch.ones(30))
    point, (widths, means) = FlatModel(network(5, 4, 2)), theta.chunk(2)
    noise = torch.randn(4000, len(means), generator=torch.Generator().manual_seed(5))
    drawn = torch.func.vmap(lambda n: point.outputs(means + widths * n, X).softmax(-1))(noise)
    error = drawn.std(0) / 400**0.5
    assert bool(((made.exp() - drawn.mean(0)).abs() < 5 * error).all())


def test_regressions_average_outputs():
    flat = FlatModel(capacity.Belief(nn.Linear(5, 1, bias=False), probabilities=False).eval())
    theta = flat.initial()
    torch.testing.assert_close(flat.outputs(theta, X), X @ theta[5:, None])


def test_a_step_at_one_pair_costs_two_gradients():
    flat, task = belief()
    point = FlatModel(network(5, 4, 2))

    def price(model, theta):
        def once():
            with model.training(0, moving=False):
                torch.func.grad(model.loss(task))(theta, X, task.train.y)

        return operations(once)

    assert price(flat, flat.initial()) <= 2.5 * price(point, point.initial())


def test_the_network_that_is_handed_over_stays_as_it_is():
    module = network(5, 4, 2)
    before = [p.clone() for p in module.parameters()]
    held = capacity.Belief(module, width=0.1)
    with torch.no_grad():
        for part in held.parameters():
            part.zero_()
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    held.reset_parameters()
    assert all(bool((p == 0.1).all()) for p in held.parameters(recurse=False))


def test_calibration_error_by_hand():
    class Sure(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            p = x[:, 0] + 0 * self.w
            return torch.stack([p, 1 - p], 1).log()

    # Confidences 0.9 (right), 0.9 (wrong), 0.7 (right): (|0.5 - 0.9| * 2 + |1 - 0.7|) / 3.
    x, y = torch.tensor([[0.9], [0.9], [0.7]]), torch.tensor([0, 1, 0])
    task, flat = as_task((x, y), share=0, name="three"), FlatModel(Sure())
    made = calibration_error(flat, flat.initial()[None], task, task.test)
    assert made.tolist() == pytest.approx([(2 * 0.4 + 0.3) / 3], rel=1e-6)


def test_points_and_beliefs_are_not_taken_for_each_other():
    flat, task = belief()
    plain = capacity.Training(epochs=1)
    order = DataOrder.planned(plain, 30, replicas=1, seed=0)
    with pytest.raises(ValueError, match=r"training.belief is None, and the model is a belief"):
        train(flat, flat.initial()[None], task, plain, order)
    held = capacity.Belief(network(5, 4, 2))
    data = (X, task.train.y)
    for door in (capacity.forecast, capacity.verdict):
        with pytest.raises(
            ValueError, match=r"model is a capacity.Belief, and the training has no"
        ):
            door(held, old=data, new=data, training=plain)
    plan = capacity.Training(belief="transport", temperature=1e-3)
    with pytest.raises(
        ValueError, match=r"training.belief = 'transport' has a population by itself"
    ):
        capacity.epistemic_speed_limit(network(5, 4, 2), data, training=plan, replicas=3)


def test_a_width_that_collapses_is_a_divergence_and_none_to_begin_with():
    flat, task = belief()
    # log width falls by lr/2 width dL/dwidth: below what float32 holds.
    plan = capacity.Training(
        belief="information", temperature=1e-6, lr=1e5, epochs=20, weight_decay=1.0
    )
    start = flat.initial()[None]
    phase = train(flat, start, task, plan, DataOrder.planned(plan, 30, replicas=1, seed=0))
    assert phase.diverged is not None
    assert bool((phase.theta.chunk(2, -1)[0] > 0).all())
    held = capacity.Belief(network(5, 4, 2))
    with torch.no_grad():
        held.width_0.zero_()
    with pytest.raises(ValueError, match=r"Belief with a width of 0 or below"):
        fit(FlatModel(held), FlatModel(held).initial(), [TASK], two_modes=True)


@pytest.mark.parametrize("options", [{"width": 0.0}, {"width": -1.0}, {"width": float("nan")}])
def test_a_belief_without_a_width_is_refused(options):
    with pytest.raises(ValueError, match=r"width = "):
        capacity.Belief(network(5, 4, 2), **options)


@pytest.mark.slow  # two compressed trainings
def test_a_belief_is_forecast():
    x = torch.randn(80, 5, generator=torch.Generator().manual_seed(4))
    old, new = (x, (x[:, 0] > 0).long()), (x, (x[:, 0] < 0).long())
    plan = capacity.Training(belief="information", temperature=1e-3, lr=20.0, epochs=30)
    made = capacity.forecast(network(5, 4, 2), old=old, new=new, training=plan, budget=0.5)
    assert made.loss_increase.value is not None
    assert made.loss_increase.status is capacity.Status.UNCALIBRATED
    assert "not of beliefs" in made.loss_increase.note
    with pytest.raises(ValueError, match=r"model is a Belief, which .* as budget = 0\.2"):
        capacity.forecast(network(5, 4, 2), old=old, new=new, training=plan, budget=None)


def test_a_mirrored_draw_without_the_one_before_it_is_refused():
    belief = capacity.Belief(nn.Linear(3, 2)).train()
    with belief.at_turn(1), pytest.raises(ValueError, match=r"turn 1 mirrors the draw before it"):
        belief(torch.zeros(1, 3))
    belief(torch.zeros(1, 3))
    with belief.at_turn(1):
        assert belief(torch.zeros(1, 3)).shape == (1, 2)
