"""Curricula: easy samples first by each replica's own loss, the same steps, bit for bit again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import capacity
from capacity.forecasting.lesson import Lesson, prices_of
from capacity.networks.door import fit
from capacity.networks.flat_model import FlatModel
from capacity.products.output_space import task_outputs
from capacity.strategies.contribution import Contribution
from capacity.tasks.task import Split, Task
from capacity.tasks.tensors import as_task
from capacity.training.curriculum import ordered
from capacity.training.data_order import DataOrder
from capacity.training.train import Midway, train

COUNT = 20


def task():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(COUNT, 3, generator=generator)
    split = Split(x, (x[:, 0] > 0).long())
    return Task(name="A", train=split, test=split)


def network(replicas=2):
    nets = []
    for seed in range(replicas):
        torch.manual_seed(seed)
        nets.append(FlatModel(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))))
    return nets[0], torch.stack([net.initial() for net in nets])


def plan(**more):
    return capacity.Training(lr=0.1, batch_size=6, epochs=4, **more)


def order_of(training, replicas=2):
    return DataOrder.planned(training, COUNT, replicas=replicas, seed=0)


class Seen:
    def __init__(self):
        self.rows, self.states, self.times = [], [], []

    def observe(self, step):
        self.rows.append(step.batch.index)
        self.states.append(step.after)
        self.times.append(step.lr)


def learned(training, begin=None):
    model, theta = network()
    seen = Seen()
    phase = train(model, theta, task(), training, order_of(training), observers=[seen], begin=begin)
    return phase, seen


@pytest.mark.parametrize(("first", "sign"), [("easy", 1), ("hard", -1)])
def test_stages_see_the_first_of_the_ranking_of_each_replica(first, sign):
    model, theta = network()
    training = plan(curriculum={"first": first, "stages": 4, "share": 1.0})
    _, seen = learned(training)
    data = task().train
    for replica in range(2):
        outputs = task_outputs(model, theta[replica], task(), data.x)
        losses = sign * nn.functional.cross_entropy(outputs, data.y, reduction="none")
        ranking = losses.argsort(stable=True).tolist()
        for epoch in range(4):
            rows = torch.cat([r[replica] for r in seen.rows[4 * epoch : 4 * epoch + 4]])
            assert len(rows) == COUNT
            assert set(rows.tolist()) == set(ranking[: 5 * (epoch + 1)])
    assert len(seen.rows) == training.steps(COUNT)


def first_rows(net, x, y, loss, first):
    flat = FlatModel(net)
    (found,) = fit(flat, flat.initial(), [as_task((x, y), name="A", loss=loss, share=0)])
    training = plan(curriculum=first)
    order = DataOrder.planned(training, len(x), replicas=1, seed=0)
    return ordered(order, flat, flat.initial()[None], found, training).ranking[0].tolist()


@pytest.mark.parametrize("first", ["easy", "hard"])
def test_weights_of_classes_make_no_sample_hard(first):
    torch.manual_seed(0)
    net, data = nn.Linear(3, 2), task().train
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 50.0]))
    plain = first_rows(net, data.x, data.y, "cross_entropy", first)
    assert first_rows(net, data.x, data.y, weighted, first) == plain


@pytest.mark.parametrize(("first", "sign"), [("easy", 1), ("hard", -1)])
def test_tokens_that_do_not_count_make_no_sample_easy(first, sign):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 7))
    x = torch.randint(0, 7, (12, 5))
    y = x.roll(1, 1)
    y[3], y[5, :4] = -100, -100
    each = nn.functional.cross_entropy(net(x).movedim(-1, 1), y, reduction="none").sum(1)
    alone = sign * (each / (y != -100).sum(1)).detach()
    assert bool(alone[3].isnan())
    # What has no token that counts comes last, both ways.
    assert first_rows(net, x, y, "cross_entropy", first) == alone.argsort(stable=True).tolist()


def test_without_a_curriculum_nothing_changes_and_with_one_the_steps_are_as_many():
    bare, staged = learned(plan()), learned(plan(curriculum="easy"))
    assert bare[0].learning_time == staged[0].learning_time
    assert not torch.equal(bare[0].theta, staged[0].theta)
    (model, theta), order = network(), order_of(plan())
    assert ordered(order, model, theta, task(), plan()) is order


def test_a_training_taken_up_in_the_middle_ends_bit_for_bit_where_it_would_have():
    training = plan(curriculum={"first": "easy", "stages": 4, "share": 1.0})
    whole, seen = learned(training)
    at = 7
    begin = Midway(state=seen.states[at - 1], steps=at, learning_time=sum(seen.times[:at]))
    again, _ = learned(training, begin)
    assert torch.equal(again.theta, whole.theta)
    assert torch.equal(learned(training)[0].theta, whole.theta)


def test_the_share_says_when_all_are_seen():
    made = plan(curriculum={"first": "easy", "stages": 10, "share": 0.1}).curriculum
    assert [made.seen(k / 100) for k in range(11)] == pytest.approx([
        0.1,
        0.2,
        0.3,
        0.4,
        0.5,
        0.6,
        0.7,
        0.8,
        0.9,
        1.0,
        1.0,
    ])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("middle", "curriculum"),
        ({"first": "easy", "stages": 1}, "stages"),
        ({"first": "easy", "share": 0.0}, "share"),
        ({"first": "easy", "share": 1.5}, "share"),
        ({"stages": 3}, "first"),
        (3, "curriculum"),
    ],
)
def test_what_is_no_curriculum_is_refused_by_its_field(given, said):
    with pytest.raises(ValueError, match=said):
        plan(curriculum=given)


@pytest.mark.parametrize(
    ("stages", "share", "length", "never"),
    [
        (5, 0.5, {"epochs": 1}, "0.8"),
        (5, 1.0, {"epochs": 4}, "0.2"),
        (4, 0.9, {"epochs": 2}, "0.25"),
    ],
)
def test_a_curriculum_that_would_never_show_some_samples_is_refused(stages, share, length, never):
    given = {"first": "easy", "stages": stages, "share": share}
    with pytest.raises(ValueError, match=rf"never show {never} of the samples"):
        capacity.Training(curriculum=given, **length)


@pytest.mark.parametrize(("epochs", "stages"), [(20, 5), (4, 5), (2, 2), (1, None)])
def test_a_shortened_training_shows_all_samples_all_the_same(epochs, stages):
    given = {"first": "easy", "stages": 5, "share": 0.8}
    short = capacity.Training(epochs=20, curriculum=given).shortened(epochs / 20)
    assert short.epochs == epochs
    assert (short.curriculum and short.curriculum.stages) == stages
    if short.curriculum is not None:
        short.curriculum.check_epochs(epochs)


def test_a_run_refuses_steps_that_end_before_all_samples_are_seen(tmp_path):
    training = capacity.Training(batch_size=6, max_steps=3, curriculum="easy")
    with pytest.raises(ValueError, match=r"never show 0\.8 .* a task takes 1"):
        capacity.run(
            [task()], model=nn.Linear(3, 2), training=training, out=tmp_path / "run", quiet=True
        )


def test_a_forecast_refuses_them_too():
    data = task().train
    training = capacity.Training(batch_size=6, max_steps=2, curriculum="hard")
    with pytest.raises(ValueError, match=r"never show 0\.8 of the samples"):
        capacity.forecast(
            nn.Linear(3, 2),
            old=[(data.x, data.y)],
            new=(data.x, 1 - data.y),
            training=training,
            budget="auto",
        )


def test_full_batches_of_a_stage_are_not_all_the_data(tmp_path):
    def note(curriculum):
        made = capacity.run(
            [task()],
            model=nn.Linear(3, 2),
            training=capacity.Training(epochs=4, batch_size=COUNT, curriculum=curriculum),
            measure={"level": "forecast"},
            replicas=2,
            out=tmp_path / str(curriculum),
            quiet=True,
            report=False,
        )
        result = json.loads((made.path / "result.json").read_text())
        return result["phases"][0]["thermo"]["action"]["note"]

    assert "Minibatch noise" not in note(None)
    assert "Minibatch noise" in note("easy")


def test_a_stream_has_one_order_and_an_ensemble_no_changing_loss():
    model, theta = network()
    training = plan(curriculum="hard")
    stream = replace(order_of(training), in_order=True)
    with pytest.raises(ValueError, match=r"curriculum\.first = 'hard' needs samples by number"):
        ordered(stream, model, theta, task(), training)
    data = task().train
    with pytest.raises(ValueError, match="changes the loss on the way"):
        capacity.epistemic_speed_limit(
            nn.Linear(3, 2), (data.x, data.y), training=training, replicas=2
        )


@pytest.mark.parametrize("budget", [0.2, "auto", None])
def test_forecasts_rehearse_the_curriculum(budget):
    torch.manual_seed(0)
    model, new = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), task()
    old = replace(new, train=Split(new.train.x, 1 - new.train.y), name="old")

    def drop(curriculum):
        made = capacity.forecast(
            model, old=[old], new=new, training=plan(curriculum=curriculum), budget=budget
        )
        return made.old[0].loss_increase.value

    assert drop("easy") == drop("easy")
    assert drop("easy") != drop(None)


def test_ranking_the_samples_is_in_the_price_of_a_compressed_forecast():
    model, theta = network(1)

    def prices(curriculum):
        lesson = Lesson(model, task(), Contribution(training=plan(curriculum=curriculum)))
        return prices_of(lesson, theta[0], 0.0)

    bare, staged = prices(None), prices("easy")
    assert staged.spent - bare.spent == pytest.approx(COUNT * bare.test)
