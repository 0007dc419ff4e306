"""What scores are scores on: samples held out of training, or where asked for, training ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

import capacity
from capacity.tasks import Split, Task, as_task
from capacity.tasks.sampling import holdout
from capacity.tasks.task import count_shared

X = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
COINS = torch.randint(2, (200,), generator=torch.Generator().manual_seed(1))

QUIET = capacity.Measure(
    forecast=False, transport=False, capacity=False, closure_points=0, verdicts=False
)


class Plain(Dataset):
    """The same samples one by one."""

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return X[index], int(COINS[index])


SINGLE = {
    "pair": lambda: (X, COINS),
    "arrays": lambda: (X.numpy(), COINS.numpy()),
    "data set": Plain,
    "tensor data set": lambda: TensorDataset(X, COINS),
    "loader": lambda: DataLoader(TensorDataset(X, COINS), batch_size=16),
    "loader of items": lambda: DataLoader(Plain(), batch_size=16),
}


def rows_of(split):
    return {tuple(row) for row in split.x.tolist()}


@pytest.mark.parametrize("form", SINGLE)
def test_every_single_form_holds_a_fifth_of_each_class_out(form):
    task = as_task(SINGLE[form]())
    assert len(task.train) + len(task.test) == 200
    for label in (0, 1):
        assert int((task.test.y == label).sum()) == round(0.2 * int((label == COINS).sum()))
    assert not rows_of(task.train) & rows_of(task.test)
    assert rows_of(task.train) | rows_of(task.test) == rows_of(Split(X, COINS))
    assert (task.held_out, task.scored_on, task.overlap) == (True, "test", 0)


@pytest.mark.parametrize("form", SINGLE)
def test_the_split_is_the_same_at_every_call_and_that_of_hold_out(form):
    torch.manual_seed(5)
    one = as_task(SINGLE[form]())
    torch.manual_seed(6)
    two = capacity.hold_out(SINGLE[form]())
    for a, b in ((one.train, two.train), (one.test, two.test)):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)


def test_another_seed_or_share_is_another_split():
    usual = capacity.hold_out((X, COINS))
    assert rows_of(capacity.hold_out((X, COINS), seed=1).test) != rows_of(usual.test)
    assert abs(len(capacity.hold_out((X, COINS), share=0.5).test) - 100) <= 1


def test_a_shuffling_loader_with_a_generator_of_its_own_gives_one_split_and_is_left_alone():
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(TensorDataset(X, COINS), batch_size=16, shuffle=True, generator=generator)
    before = generator.get_state()
    one, two = as_task(loader), as_task(loader)
    assert torch.equal(one.test.x, two.test.x)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    ("labels", "held"),
    [
        ([0], 0),
        ([0, 1, 2], 0),  # nothing can go without losing a class
        ([0, 0], 1),
        ([0, 0, 1], 1),
        ([0, 0, 0, 1, 1, 1], 2),
        ([0] * 10 + [1], 2),
    ],
)
def test_small_tasks_keep_each_class(labels, held):
    y = torch.tensor(labels)
    kept, test = holdout(y, 0.2, seed=0)
    assert len(test) == held
    assert sorted([*kept.tolist(), *test.tolist()]) == list(range(len(y)))
    assert y[kept].unique().tolist() == y.unique().tolist()
    task = as_task((X[: len(y)], y))
    assert task.scored_on == ("test" if held else "training")
    assert len(task.test) == (held or len(y))


def test_copies_of_a_sample_lie_in_one_split():
    drawn = torch.randint(200, (600,), generator=torch.Generator().manual_seed(2))
    sampler = WeightedRandomSampler(torch.ones(200), 600)
    for data in (
        (X[drawn], COINS[drawn]),
        DataLoader(TensorDataset(X, COINS), batch_size=32, sampler=sampler),
    ):
        task = as_task(data)
        assert (len(task.train) + len(task.test), task.overlap, task.scored_on) == (600, 0, "test")
        assert not rows_of(task.train) & rows_of(task.test)
        assert 0.15 < len(rows_of(task.test)) / len(rows_of(Split(X[drawn], None))) < 0.25


def test_a_class_of_one_sample_and_its_copies_stays_in_training():
    x, y = torch.cat([X[:20], X[:1].repeat(9, 1)]), torch.tensor([1] + [0] * 19 + [1] * 9)
    task = as_task((x, y))
    assert int((task.train.y == 1).sum()) == 10
    assert int((task.test.y == 0).sum()) == round(0.2 * 19)


@pytest.mark.parametrize("y", [X[:, 0], X, COINS[:, None].expand(-1, 3)])
def test_targets_that_are_no_labels_are_split_as_one(y):
    loss = "mse" if y.is_floating_point() else lambda outputs, targets: outputs.sum()
    task = as_task((X, y), loss=loss)
    assert (len(task.train), len(task.test)) == (160, 40)
    assert task.classes == ()


SAME = {
    "asked for": lambda: capacity.hold_out((X, COINS), share=0),
    "one split twice": lambda: (lambda split: Task(name="a", train=split, test=split))(
        Split(X, COINS)
    ),
    "a copy": lambda: as_task(((X, COINS), (X.clone(), COINS.clone()))),
    "a part": lambda: as_task(((X, COINS), (X[50:80], COINS[50:80]))),
    "another order": lambda: as_task(((X, COINS), (X.flip(0), COINS.flip(0)))),
    "test=": lambda: as_task((X, COINS), test=(X, COINS)),
}


@pytest.mark.parametrize("form", SAME)
def test_training_samples_are_never_called_test(form):
    task = SAME[form]()
    assert task.scored_on == "training"
    assert task.overlap == len(task.test)
    assert not task.held_out


def test_samples_in_both_splits_are_counted():
    other = X[:10] + 100
    mixed = (torch.cat([X[:3], other]), torch.cat([COINS[:3], COINS[:10]]))
    task = as_task(((X, COINS), mixed))
    assert (task.overlap, task.scored_on) == (3, "test")
    assert as_task(((X, COINS), (X, 1 - COINS))).overlap == 0  # other targets are other samples


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.int64])
def test_round_numbers_do_not_collide(dtype):
    # Every pattern of 12 bits once: with floats, words whose low bits are all zero.
    bits = (torch.arange(4096)[:, None] >> torch.arange(12)) & 1
    whole = Split(bits.to(dtype), torch.zeros(4096).long())
    odd, even = (Split(whole.x[k::2], whole.y[k::2]) for k in (1, 0))
    assert count_shared(odd, even) == 0
    assert count_shared(odd, whole) == 2048


def memorise(tasks, out, **options):
    return capacity.run(
        tasks,
        model=lambda: nn.Sequential(
            nn.Linear(4, 128), nn.Tanh(), nn.Linear(128, 32), nn.Tanh(), nn.Linear(32, 2)
        ),
        training=capacity.Training(optimizer="adam", lr=0.01, epochs=60, batch_size=20),
        measure=QUIET,
        replicas=1,
        out=out,
        **options,
    )


@pytest.mark.slow
def test_coin_flips_are_not_learned(quick_run, tmp_path, capsys):
    run = memorise([(X, COINS)], tmp_path / "run")
    assert abs(run.result["final"]["accuracy"]["value"] - 0.5) < 0.2
    task = run.result["tasks"][0]
    assert (task["train_samples"], task["test_samples"], task["held_out"]) == (160, 40, 40)
    assert task["scored_on"] == "test"
    said = "40 of 200 samples were held out of training and are the test samples"
    assert said in capsys.readouterr().err
    page = run.report().read_text(encoding="utf-8")
    assert said in page
    assert "One task was learned, to a test accuracy of" in page


@pytest.mark.slow
def test_a_run_on_training_samples_says_training(quick_run, tmp_path, capsys):
    split = Split(X, COINS)
    run = memorise([Task(name="coins", train=split, test=split)], tmp_path / "run")
    assert run.result["final"]["accuracy"]["value"] > 0.7
    assert run.result["tasks"][0]["scored_on"] == "training"
    shown = capsys.readouterr().err
    assert "training scores" in shown
    assert "training accuracy" in shown
    page = run.report().read_text(encoding="utf-8")
    assert "One task was learned, to a training accuracy of" in page
    assert "All scores are training scores" in page
    for wrong in ("test accuracy", "Test accuracy", "test score"):
        assert wrong not in page


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


@pytest.mark.slow
def test_a_forecast_is_scored_on_what_hold_out_gives_and_says_so():
    new = (X, (X[:, 1] > 0).long())
    plan = capacity.Training(epochs=3, batch_size=20)
    made = capacity.forecast(network(), old=(X, COINS), new=new, training=plan)
    same = capacity.forecast(
        network(),
        old=capacity.hold_out((X, COINS), name="old"),
        new=capacity.hold_out(new, name="new"),
        training=plan,
    )
    assert made.loss_increase.value == same.loss_increase.value
    assert made.new_accuracy.value == same.new_accuracy.value
    assert "40 of 200 samples were held out" in made.accuracy_drop.note
    assert "40 of 200 samples were held out" in made.new_accuracy.note
    trained = capacity.hold_out((X, COINS), share=0)
    made = capacity.forecast(network(), old=trained, new=new, training=plan)
    assert "training scores" in made.accuracy_drop.note


def test_the_speed_limit_of_a_training_holds_nothing_out():
    plan = capacity.Training(lr=0.05, epochs=2, batch_size=200)
    made, whole = (
        capacity.epistemic_speed_limit(network(), task, training=plan, replicas=4)
        for task in ((X, COINS), capacity.hold_out((X, COINS), share=0))
    )
    assert made.total.to_dict() == whole.total.to_dict()


BAD = {
    "share": (lambda: capacity.hold_out((X, COINS), share=1.0), r"share = 1.0 .* \[0, 1\)"),
    "share of text": (lambda: capacity.hold_out((X, COINS), share="0.2"), "share = '0.2'"),
    "seed": (lambda: capacity.hold_out((X, COINS), seed=-1), "seed = -1"),
    "a task": (lambda: capacity.hold_out(as_task((X, COINS))), "brings its own test split"),
    "two splits": (lambda: capacity.hold_out(((X, COINS), (X, COINS))), "already holds"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_calls(case):
    call, said = BAD[case]
    with pytest.raises(ValueError, match=said):
        call()


class Noisy(Dataset):
    """A random augmentation from three generators."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        import random

        noise = np.random.rand() + random.random() + float(torch.rand(()))  # noqa: NPY002
        return X[index] + noise, int(COINS[index])


@pytest.mark.parametrize("wrap", [lambda d: d, DataLoader], ids=["data set", "loader"])
def test_random_transformations_are_frozen_alike_and_leave_the_global_states(wrap):
    import random

    states = [torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()]  # noqa: NPY002
    one, two = as_task(wrap(Noisy())), as_task(wrap(Noisy()))
    assert torch.equal(one.train.x, two.train.x)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]
