"""The kernel's view against linear models, of which it is the truth, and dense Jacobians."""

from __future__ import annotations

import pytest
import torch
from kernel_view import compared, kernel_view, predicted_flow
from torch import nn

from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.records.estimate import Status
from capacity.tasks.task import Split, Task
from capacity.thermo.path import PathObserver
from capacity.training.data_order import DataOrder
from capacity.training.train import train
from quadratics import linear, quadratic


def descend(model, theta, task, *, lr, steps):
    training = Training(lr=lr, epochs=steps, batch_size=len(task.train))
    order = DataOrder(
        samples=len(task.train),
        batch_size=len(task.train),
        epochs=steps,
        replicas=len(theta),
        seed=0,
    )
    observer = PathObserver()
    end = train(model, theta, task, training, order, observers=[observer]).theta
    losses = [evaluate(model, t, task, task.train).loss for t in (theta, end)]
    return observer.cost(*losses, plain=True, full=True)


def network(outputs=3):
    torch.manual_seed(4)
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, outputs)).double()
    x, y = torch.randn(7, 5).double(), torch.randn(7, outputs).double()
    return FlatModel(net), Task(name="A", train=Split(x, y), test=Split(x, y), loss="mse")


@pytest.mark.slow
def test_a_linear_model_does_what_its_kernel_predicts(float64):
    made = quadratic("A", torch.tensor([0.2, 0.7, 1.5]), seed=2)
    model = FlatModel(linear(3))
    theta = torch.randn(4, 3)
    lr = 1e-3
    measured = descend(model, theta, made.task, lr=lr, steps=3000)
    view = kernel_view(model, theta, made.task)
    torch.testing.assert_close(
        view.eigenvalues[:, :3], torch.tensor([1.5, 0.7, 0.2]).expand(4, -1), rtol=1e-9, atol=0
    )
    losses = evaluate(model, theta, made.task, made.task.train).loss
    torch.testing.assert_close(view.loss, losses)
    for found in compared(predicted_flow(view, measured.learning_time), measured):
        # Steps of length lr differ from the flow by half of lr lambda.
        assert found.ratio.value == pytest.approx(1.0, rel=lr * 1.5), found.name


def test_without_the_half_the_loss_drop_would_be_double(float64):
    made = quadratic("A", torch.tensor([1.0]), seed=1)
    model, theta = FlatModel(linear(1)), torch.tensor([[0.3]])
    view = kernel_view(model, theta, made.task)
    drop = predicted_flow(view, 50.0).loss_drop.value
    assert drop == pytest.approx(float(made.loss(theta[0])), rel=1e-9)


def test_the_full_kernel_is_the_jacobian_times_itself():
    model, task = network()
    theta = model.initial()
    phi = torch.func.jacrev(lambda t: model.outputs(t, task.train.x).reshape(-1))(theta)
    values, vectors = torch.linalg.eigh(phi @ phi.T / 7)
    delta = (model.outputs(theta, task.train.x) - task.train.y).reshape(-1) / 7**0.5
    view = kernel_view(model, theta, task)
    torch.testing.assert_close(view.eigenvalues[0], values.flip(0), rtol=1e-8, atol=1e-10)
    squares = (vectors.T @ delta).square().flip(0)
    torch.testing.assert_close(view.residues[0].square(), squares, rtol=1e-6, atol=1e-9)
    assert float(view.overlap()[0, -1]) == pytest.approx(1.0)


def test_the_pseudo_kernel_of_one_output_is_the_kernel():
    model, task = network(outputs=1)
    full, summed = (
        kernel_view(model, model.initial(), task, outputs=kind) for kind in ("kept", "summed")
    )
    torch.testing.assert_close(full.eigenvalues, summed.eigenvalues)
    torch.testing.assert_close(full.residues.square(), summed.residues.square())


def test_the_pseudo_kernel_comes_once_for_every_output(float64):
    model, task = network()
    theta = model.initial()
    summed = kernel_view(model, theta, task, outputs="summed")
    g = torch.func.jacrev(lambda t: model.outputs(t, task.train.x).sum(-1) / 3**0.5)(theta)
    values = torch.linalg.eigvalsh(g @ g.T / 7).flip(0)
    torch.testing.assert_close(summed.eigenvalues[0, ::3], values, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(summed.eigenvalues[0, ::3], summed.eigenvalues[0, 2::3])
    full = kernel_view(model, theta, task)
    torch.testing.assert_close(summed.loss, full.loss)


def test_modes_that_hold_the_residue():
    made = quadratic("A", torch.tensor([3.0, 2.0, 1.0]).double(), seed=2)
    model = FlatModel(linear(3))
    # theta off the minimum along the strongest eigenvector alone.
    vector = torch.linalg.eigh(made.hessian)[1][:, 2]
    view = kernel_view(model, made.minimum + vector, made.task)
    assert view.modes_holding(0.99).value == 1
    assert view.modes_holding(1).value == 1
    weak = kernel_view(model, made.minimum + torch.linalg.eigh(made.hessian)[1][:, 0], made.task)
    assert weak.modes_holding(0.5).value == 3


def test_replicas_give_a_spread():
    model, task = network()
    theta = torch.stack([model.initial(), 2 * model.initial(), -model.initial()])
    flow = predicted_flow(kernel_view(model, theta, task), 3.0)
    assert flow.loss_drop.n == 3
    assert flow.loss_drop.stderr > 0
    assert flow.inefficiency.value >= 1
    assert flow.length_ratio.value >= 1


def test_a_learned_task_has_nothing_to_predict(float64):
    made = quadratic("A", torch.tensor([1.0, 2.0]), seed=3)
    view = kernel_view(FlatModel(linear(2)), made.minimum, made.task)
    still = torch.zeros_like(view.residues)
    flow = predicted_flow(type(view)(**{**vars(view), "residues": still}), 1.0)
    assert flow.inefficiency.status is Status.NOT_DEFINED
    assert flow.displacement_sq.value == 0


def test_bad_input_is_refused():
    model, task = network()
    theta = model.initial()
    with pytest.raises(ValueError, match="outputs = 'all' is not known"):
        kernel_view(model, theta, task, outputs="all")
    with pytest.raises(ValueError, match="samples"):
        kernel_view(model, theta, task, samples=0)
    with pytest.raises(ValueError, match=r"theta has shape \(3,\)"):
        kernel_view(model, torch.zeros(3), task)
    labels = Task(
        name="C",
        train=Split(task.train.x, torch.zeros(7).long()),
        test=Split(task.train.x, torch.zeros(7).long()),
    )
    with pytest.raises(ValueError, match="one-hot"):
        kernel_view(model, theta, labels)
    view = kernel_view(model, theta, task)
    with pytest.raises(ValueError, match="learning_time"):
        predicted_flow(view, 0.0)
    with pytest.raises(ValueError, match="share"):
        view.modes_holding(1.5)
    cost = descend(model, theta[None], task, lr=0.1, steps=3)
    with pytest.raises(ValueError, match="learning time"):
        compared(predicted_flow(view, 1.0), cost)
