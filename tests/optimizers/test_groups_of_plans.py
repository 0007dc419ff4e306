"""Parameter groups of a plan: torch's steps, their Jacobian, and what is known of their time."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import capacity
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.dynamics import Dynamics
from capacity.optimizers.from_recipe import check_plan, from_training
from capacity.recipe.config import Training
from capacity.tasks.task import Split, Task
from capacity.training.data_order import DataOrder
from capacity.training.train import train
from dense import dense_jacobian, trained
from optimizer_cases import TORCH

PLANS = {
    "sgd": {"optimizer": "sgd", "lr": 0.3},
    "momentum": {"optimizer": "momentum", "lr": 0.05},
    "adam": {"optimizer": "adam", "lr": 0.01},
    "nesterov": {
        "optimizer": "momentum", "lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1
    },
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1},
    "rmsprop": {"optimizer": "rmsprop", "lr": 0.003, "alpha": 0.9},
}  # fmt: skip
"""Those of `TORCH`."""
GROUPS = [
    {"parameters": ["0.weight"], "lr_factor": 0.5},
    {"parameters": ["*.bias", "1.*"], "weight_decay": 0.03},
]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)).double()


def task():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(18, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(2, (18,), generator=generator)
    return Task(name="a", train=Split(x, y), test=Split(x, y))


def plan_of(name, **more):
    return Training(batch_size=5, epochs=2, groups=GROUPS, **PLANS[name], **more)


@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize("name", TORCH)
def test_a_training_is_torchs_with_the_same_groups(name, clip):
    plan, data, module = plan_of(name, clip_norm=clip), task(), network()
    lr = PLANS[name]["lr"]
    optimizer = TORCH[name]([
        {"params": [module[0].weight], "lr": 0.5 * lr},
        {"params": [module[0].bias, *module[1].parameters(), module[3].bias], "weight_decay": 0.03},
        {"params": [module[3].weight]},
    ])
    order = DataOrder.planned(plan, 18, replicas=1, seed=0)
    model = FlatModel(module)
    phase = train(model, model.initial()[None], data, plan, order)
    for epoch in order.epoch_batches(torch.device("cpu")):
        for rows in epoch:
            optimizer.zero_grad()
            nn.functional.cross_entropy(
                module(data.train.x[rows[0]]), data.train.y[rows[0]]
            ).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(module.parameters(), clip)
            optimizer.step()
    torch.testing.assert_close(phase.theta[0], FlatModel(module).initial(), rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCH)
def test_the_jacobian_is_that_of_the_whole_training(name, float64):
    plan = plan_of(name, schedule="linear", warmup=2)
    trajectory = trained(FlatModel(network()), task(), plan)
    jacobian, dense = TrainingJacobian([trajectory]), dense_jacobian(trajectory)
    eye = torch.eye(jacobian.size)
    torch.testing.assert_close(jacobian.forward(eye).T, dense, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(jacobian.adjoint(eye), dense, rtol=1e-8, atol=1e-10)


def test_the_first_group_that_fits_counts():
    layout = FlatModel(network()).layout
    first = {"parameters": ["1.*"], "weight_decay": 0.5}
    update = from_training(Training(groups=[first, *GROUPS], weight_decay=0.2), layout=layout)
    decay = torch.empty(sum(size for _, size in layout), dtype=torch.float64)
    for inner, index in zip(update.maps, update.layout.indices, strict=True):
        decay[index] = inner.weight_decay
    parts = decay.split([size for _, size in layout])
    found = {name: set(part.tolist()) for (name, _), part in zip(layout, parts, strict=True)}
    assert found == {
        "0.weight": {0.2}, "0.bias": {0.03}, "1.weight": {0.5}, "1.bias": {0.5},
        "3.weight": {0.2}, "3.bias": {0.03},
    }  # fmt: skip


def test_groups_that_share_their_rate_share_a_time():
    decays = [{"parameters": ["*.bias"], "weight_decay": 0.0}]
    update = from_training(Training(optimizer="momentum", weight_decay=0.1, groups=decays))
    assert update.learning_time(2.0) == pytest.approx(20.0)
    assert update.dynamics(full=True) is Dynamics.OTHER
    rates = [{"parameters": ["*.bias"], "lr_factor": 0.25}]
    update = from_training(Training(optimizer="momentum", groups=rates))
    assert update.learning_time(2.0) is None
    assert update.learning_times(2.0) == pytest.approx((20.0, 5.0))


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"groups": [{"parameters": ["0.wieght"]}]}, "'0.wieght'; did you mean '0.weight'"),
        (
            {"groups": GROUPS, "optimizer": "sgld", "temperature": 0.1},
            "training.groups do not go with optimizer = 'sgld'",
        ),
        ({"schedule": "custom", "rates": (1.0,) * 7, "epochs": 1}, "training.rates has 7 rates"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_before_it_begins(plan, said):
    with pytest.raises(ValueError, match=r".") as caught:
        check_plan(Training(**plan), FlatModel(network()).layout, [18])
    assert said in str(caught.value)


def test_a_step_that_does_not_know_its_network_says_so():
    update = from_training(Training(groups=GROUPS))
    with pytest.raises(ValueError, match=r"does not know the network .*layout=model.layout"):
        update.init(torch.zeros(3))


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_an_ensemble_with_groups_has_a_path_but_no_free_energy(optimizer):
    groups = [{"parameters": ["*.bias"], "lr_factor": 0.5}]
    plan = Training(optimizer=optimizer, lr=0.05, epochs=2, batch_size=9, groups=groups)
    data = task()
    made = capacity.epistemic_speed_limit(
        network(), [(data.train.x, data.train.y)], training=plan, replicas=3
    )
    (limit,) = made.tasks
    assert limit.sigma.value is None
    assert "with 2 parameter groups does not follow the gradient" in limit.sigma.note
    assert limit.dissipation.action.value > 0


def test_an_ensemble_refuses_steps_in_no_time():
    data, plan = task(), Training(warmup=2, epochs=2, batch_size=9)
    with pytest.raises(ValueError, match=r"steps of rate 0, .* leave warmup out"):
        capacity.epistemic_speed_limit(
            network(), [(data.train.x, data.train.y)], training=plan, replicas=3
        )
