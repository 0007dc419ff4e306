"""`Training.from_trainer`: the rates, groups and steps that the Trainer itself makes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from capacity.networks.flat_model import FlatModel
from capacity.optimizers.from_recipe import from_training
from capacity.recipe.config import Training
from capacity.tasks.task import Split, Task
from capacity.training.data_order import DataOrder
from capacity.training.train import train

pytestmark = pytest.mark.slow

SAMPLES = 22


def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=12, max_position_embeddings=8,
    )  # fmt: skip
    made = BertForSequenceClassification(config)
    made.accepts_loss_kwargs = False  # else the Trainer adds accumulated gradients up
    return made


def rows():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(20, (SAMPLES, 5), generator=generator)
    return [{"input_ids": row, "labels": row[0] % 2} for row in ids]


def arguments(folder, **options):
    base = {
        "output_dir": str(folder), "use_cpu": True, "report_to": [], "disable_tqdm": True,
        "save_strategy": "no", "per_device_train_batch_size": 4, "learning_rate": 3e-3,
        "weight_decay": 0.1, "logging_strategy": "no",
    }  # fmt: skip
    return TrainingArguments(**base | options)


def trainer_of(folder, *, model=None, optimizers=(None, None), data=None, kept=None, **options):
    return Trainer(
        model=bert() if model is None else model,
        args=arguments(folder, **options),
        train_dataset=rows() if data is None else data,
        eval_dataset=kept,
        optimizers=optimizers,
    )


ARGUMENTS = {
    "as it comes": {},
    "linear with warmup": {"lr_scheduler_type": "linear", "warmup_steps": 5},
    "cosine with a share of warmup": {
        "lr_scheduler_type": "cosine", "warmup_steps": 0.1, "gradient_accumulation_steps": 4
    },
    "constant with warmup": {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 3},
    "polynomial": {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2.0}},
    "inverse_sqrt": {"lr_scheduler_type": "inverse_sqrt", "warmup_steps": 4},
    "cosine_with_restarts": {
        "lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 2}
    },
    "cosine_with_min_lr": {
        "lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-4}
    },
    "steps": {"max_steps": 7, "gradient_accumulation_steps": 2},
    "part of an epoch": {"num_train_epochs": 1.5},
    "SGD": {"optim": "sgd", "max_grad_norm": 0.0},
    "other betas": {
        "optim": "adamw_torch", "adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-6
    },
    "RMSprop": {"optim": "rmsprop", "max_grad_norm": 0.3},
}  # fmt: skip


def made_by(trainer, steps):
    """Rate of every step and options of every parameter, of the Trainer's own objects."""
    trainer.create_optimizer_and_scheduler(steps)
    rates = []
    for _ in range(steps):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    called = {id(p): name for name, p in trainer.model.named_parameters()}
    decays = {
        called[id(p)]: group["weight_decay"]
        for group in trainer.optimizer.param_groups
        for p in group["params"]
    }
    return rates, decays


@pytest.mark.parametrize("case", ARGUMENTS)
def test_rates_and_groups_are_those_of_the_trainer(case, tmp_path):
    options = ARGUMENTS[case]
    trainer = trainer_of(tmp_path, **options)
    plan = Training.from_trainer(trainer)
    assert (trainer.optimizer, trainer.lr_scheduler) == (None, None)
    args = trainer.args
    updates = math.ceil(math.ceil(SAMPLES / 4) / args.gradient_accumulation_steps)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * updates)
    rates, decays = made_by(trainer, steps)
    assert plan.learning_rates(SAMPLES) == pytest.approx(rates, rel=1e-12, abs=1e-18)
    assert (plan.batch_size, plan.accumulate) == (4, args.gradient_accumulation_steps)
    assert plan.clip_norm == (args.max_grad_norm or None)
    layout = FlatModel(trainer.model).layout
    update = from_training(plan, layout=layout)
    grouped = getattr(update, "inner", update)
    held = torch.empty(sum(size for _, size in layout), dtype=torch.float64)
    for inner, index in zip(grouped.maps, grouped.layout.indices, strict=True):
        held[index] = inner.weight_decay
    parts = held.split([size for _, size in layout])
    assert {n: set(part.tolist()) for (n, _), part in zip(layout, parts, strict=True)} == {
        name: {decay} for name, decay in decays.items()
    }
    assert len(set(decays.values())) == 2
    inner = grouped.maps[0]
    if plan.optimizer == "adamw":
        assert (inner.beta1, inner.beta2) == (args.adam_beta1, args.adam_beta2)
        assert inner.eps == args.adam_epsilon


def test_a_plan_in_epochs_goes_with_other_data(tmp_path):
    trainer = trainer_of(tmp_path, num_train_epochs=2, warmup_steps=0.1)
    plan = Training.from_trainer(trainer)
    assert (plan.epochs, plan.max_steps, plan.warmup, plan.schedule) == (2, None, 0.1, "linear")
    assert plan.steps(SAMPLES) == 12
    other = Training.from_trainer(trainer_of(tmp_path, num_train_epochs=2, warmup_steps=0.1,
                                             data=rows() * 3))  # fmt: skip
    assert other == plan


def test_the_trainer_trains_as_the_plan_says(tmp_path):
    """The same network, data order and plan, there and here."""
    if "train_sampling_strategy" not in TrainingArguments.__dataclass_fields__:
        pytest.skip("this version of transformers shuffles in an order of its own")
    model = bert().eval()
    trainer = trainer_of(
        tmp_path, model=model, num_train_epochs=2, warmup_steps=2, lr_scheduler_type="cosine",
        gradient_accumulation_steps=2, max_grad_norm=0.5, train_sampling_strategy="sequential",
        data=rows()[:20],
    )  # fmt: skip
    plan = Training.from_trainer(trainer)
    ids = torch.stack([row["input_ids"] for row in rows()[:20]])
    labels = torch.stack([row["labels"] for row in rows()[:20]])

    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = model

        def forward(self, x):
            return self.bert(x).logits

    named = [
        {**group.model_dump(), "parameters": [f"bert.{name}" for name in group.parameters]}
        for group in plan.groups
    ]
    plan = plan.model_copy(update={"groups": Training(groups=named).groups})
    flat = FlatModel(Logits())

    class InTurn(DataOrder):
        def epoch_batches(self, device):
            for _ in range(self.epochs):
                yield iter(torch.arange(20, device=device)[None].split(self.batch_size, dim=1))

    order = InTurn(samples=20, batch_size=8, epochs=2, replicas=1, seed=0)
    data = Task(name="a", train=Split(ids, labels), test=Split(ids, labels))
    phase = train(flat, flat.initial()[None], data, plan, order)

    model.train = lambda mode=True: model
    trainer.train()
    assert trainer.state.global_step == phase.steps == plan.steps(20) == 6
    end = torch.cat([p.detach().reshape(-1) for p in model.parameters() if p.requires_grad])
    torch.testing.assert_close(phase.theta[0], end, rtol=1e-5, atol=1e-6)


def test_what_the_user_made_is_read_and_left(tmp_path):
    model = bert()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    scheduler = schedulers.StepLR(optimizer, 3)
    before = (optimizer.state_dict(), scheduler.state_dict())
    for given, schedule in (((optimizer, scheduler), "custom"), ((optimizer, None), "linear")):
        trainer = trainer_of(tmp_path, model=model, optimizers=given)
        plan = Training.from_trainer(trainer)
        assert (plan.optimizer, plan.momentum, plan.lr, plan.schedule) == (
            "momentum", 0.5, 0.1, schedule
        )  # fmt: skip
        assert (trainer.optimizer, trainer.lr_scheduler) == given
        assert str((optimizer.state_dict(), scheduler.state_dict())) == str(before)


def test_frozen_parameters_are_passed_over(tmp_path):
    model = bert()
    model.bert.embeddings.requires_grad_(False)
    plan = Training.from_trainer(trainer_of(tmp_path, model=model))
    names = {name for group in plan.groups for name in group.parameters}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names
    assert names < trained


REFUSED = {
    "no Trainer": (lambda _: "trainer", "trainer is a str; pass a transformers.Trainer"),
    "an optimizer that is not known": (
        lambda folder: trainer_of(folder, optim="adafactor"), "optimizer is a Adafactor; accepted"
    ),
    "rates that follow the loss": (
        lambda folder: trainer_of(
            folder, lr_scheduler_type="reduce_lr_on_plateau", eval_strategy="epoch", kept=rows()
        ),
        "ReduceLROnPlateau, whose rates follow",
    ),
    "a rest left out": (
        lambda folder: trainer_of(folder, dataloader_drop_last=True), "leaves 2 of 22 samples out"
    ),
    "no length": (
        lambda folder: Trainer(model=bert(), args=arguments(folder)), "no train_dataset with"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_plan_is_refused_by_name(case, tmp_path):
    make, said = REFUSED[case]
    with pytest.raises(ValueError, match=said):
        Training.from_trainer(make(tmp_path))


def test_gradients_that_the_trainer_may_add_up_are_said(tmp_path):
    model = bert()
    del model.accepts_loss_kwargs
    trainer = trainer_of(tmp_path, model=model, gradient_accumulation_steps=2)
    with pytest.warns(UserWarning, match=r"the Trainer may add them up, .*= False") as caught:
        Training.from_trainer(trainer)
    assert caught[0].filename == __file__
