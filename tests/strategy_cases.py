"""Small tasks and one set of options per strategy, for the tests that go over all of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Strategy, Training
from capacity.strategies.mitigation import Mitigation
from capacity.strategies.step import StrategyStep
from capacity.strategies.terms import Source
from capacity.tasks.task import Split, Task
from capacity.training.data_order import DataOrder
from capacity.training.train import Phase, train

OPTIONS = {
    "l2": {"strength": 0.5},
    "ewc": {"strength": 2.0, "samples": 20},
    "ewc, empirical": {"name": "ewc", "strength": 2.0, "samples": 20, "fisher": "empirical"},
    "ewc, ggn": {"name": "ewc", "strength": 0.7, "samples": 10, "fisher": "ggn"},
    "si": {"strength": 0.5},
    "mas": {"strength": 0.1, "samples": 20},
    "replay": {"memory": 9, "memory_batch": 4},
    "replay, reservoir": {"name": "replay", "memory": 9, "memory_batch": 4,
                          "selection": "reservoir"},
    "lwf": {"strength": 2.0},
    "der": {"memory": 9, "memory_batch": 4},
    "derpp": {"memory": 9, "memory_batch": 4},
    "agem": {"memory": 9, "memory_batch": 4},
    "ogd": {"samples": 2},
    "gpm": {"samples": 10, "threshold": 0.8},
    "freeze": {"parameters": ["0.*"]},
    "lower_lr": {},
    "fewer_epochs": {"factor": 0.5},
    "joint": {},
}  # fmt: skip


def options(case: str) -> Strategy:
    return Strategy.model_validate({"name": case, **OPTIONS[case]})


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))


def classes(name: str, labels: tuple[int, int], n: int = 16, heads: bool = False) -> Task:
    generator = torch.Generator().manual_seed(sum(labels))
    y = torch.tensor(labels).repeat(n // 2)
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64) + 2 * torch.eye(5).double()[y]
    x = x.to(torch.get_default_dtype())
    outputs = None
    if heads:
        outputs, y = labels, (y == labels[1]).long()
    return Task(name=name, train=Split(x, y), test=Split(x, y), outputs=outputs)


def three(heads: bool = False) -> tuple[Task, Task, Task]:
    names = {"A": (0, 1), "B": (1, 2), "C": (2, 3)} if not heads else {
        "A": (0, 1), "B": (2, 3), "C": (0, 3)
    }  # fmt: skip
    a, b, c = (classes(name, labels, heads=heads) for name, labels in names.items())
    return a, b, c


def order(task: Task, training: Training, replicas: int, i: int = 0) -> DataOrder:
    return DataOrder(
        samples=len(task.train),
        batch_size=training.batch_size,
        epochs=training.epochs,
        replicas=replicas,
        seed=0,
        path=("order", i),
    )


def starts(replicas: int) -> tuple[FlatModel, Tensor]:
    """Give the network and one initialisation per replica, whatever their number."""
    models = []
    for r in range(replicas):
        torch.manual_seed(r)
        models.append(FlatModel(network()))
    return models[0], torch.stack([model.initial() for model in models])


def learn(
    made: Mitigation, flat: FlatModel, theta: Tensor, task: Task, training: Training, i: int = 0
) -> tuple[Phase, StrategyStep | None]:
    """Train one task under a strategy, and let the strategy remember it."""
    plan = made.plan(task, training)
    step = None if plan.plain else StrategyStep(flat, task, plan, len(theta))
    phase = train(
        flat,
        theta,
        task,
        plan.training,
        order(task, plan.training, len(theta), i),
        observers=made.observers(),
        strategy=step,
    )
    made.learned(task, phase.theta)
    return phase, step


def after_two(
    case: str, training: Training, *, heads: bool = False, replicas: int = 2
) -> tuple[Mitigation, FlatModel, Tensor, Task]:
    """Learn two tasks under a strategy; hand over what learning the third needs."""
    a, b, c = three(heads)
    flat, theta = starts(replicas)
    made = Mitigation(options(case), flat, Source(0))
    for i, task in enumerate((a, b)):
        theta = learn(made, flat, theta, task, training, i)[0].theta
    return made, flat, theta, c
