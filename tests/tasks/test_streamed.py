"""Data that are read when they are needed: the same numbers, and little held."""

from __future__ import annotations

import gc
import math
import weakref
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, IterableDataset

import capacity
from capacity.tasks import as_task
from capacity.tasks.streamed import Rows

N, BATCH = 64, 8
MANY, CHUNK = 600, 512
"""Samples where what is held is counted, and most that anything reads at once."""
ONE = {"replicas": 1, "threads": 1}
PLAN = capacity.Training(lr=0.1, epochs=2, batch_size=BATCH)


class Item:
    """The numbers of one sample, alive as long as something refers to them."""

    alive: ClassVar = weakref.WeakSet()
    most: ClassVar = 0

    def __init__(self, tensor):
        self.tensor = tensor
        Item.alive.add(self)
        Item.most = max(Item.most, len(Item.alive))


class Counted(torch.Tensor):
    """A tensor that keeps its item alive."""


def counted(tensor):
    made = tensor.as_subclass(Counted)
    made.item_held = Item(tensor)
    return made


def numbers(turn=0, n=N):
    source = torch.Generator().manual_seed(turn)
    x = torch.randn(n, 4, generator=source, dtype=torch.float64)
    return x, (x[:, :2].argmax(1) + turn) % 2


class ByIndex(Dataset):
    def __init__(self, turn=0, n=N):
        self.x, self.y = numbers(turn, n)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return counted(self.x[index].clone()), int(self.y[index])


class Endless(IterableDataset):
    """Draws its samples anew at each pass."""

    def __init__(self, turn=0):
        self.turn = turn

    def __iter__(self):
        while True:
            x = torch.randn(4, dtype=torch.float64)
            yield counted(x.clone()), int(x[0] > x[1]) ^ self.turn


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()


@pytest.fixture(autouse=True)
def _nothing_alive():
    gc.collect()
    Item.most = len(Item.alive)


@pytest.mark.slow  # rehearsals
@pytest.mark.parametrize("budget", [math.inf, None])
def test_a_forecast_is_that_of_data_that_are_held(budget):
    made = []
    for form in (capacity.Streamed, lambda data: (data.x, data.y)):
        old, new = (form(ByIndex(turn)) for turn in (0, 1))
        # The hold-out of streamed data does not look for copies; these have none.
        made.append(
            capacity.forecast(network(), old=old, new=new, training=PLAN, budget=budget, orders=2)
        )
    for figure in ("accuracy_drop", "loss_increase", "new_loss"):
        one, two = (getattr(forecast, figure).value for forecast in made)
        assert one == pytest.approx(two, rel=1e-9), figure


@pytest.mark.slow  # two runs
def test_a_run_is_that_of_data_that_are_held_and_holds_a_part(tmp_path, quick_run, monkeypatch):
    for module in ("networks.evaluate", "products.output_space", "forecasting.linearized"):
        monkeypatch.setattr(f"capacity.{module}._CHUNK", CHUNK)
    results = []
    for name in ("held", "streamed"):
        data = [ByIndex(turn, MANY) for turn in range(2)]
        tasks = [
            as_task(capacity.Streamed(d) if name == "streamed" else (d.x, d.y), name=str(k))
            for k, d in enumerate(data)
        ]
        Item.most = 0
        made = capacity.run(
            tasks, model=network(), training=PLAN, out=tmp_path / name, quiet=True, **ONE
        )
        results.append(made.result)
    one, two = results
    for kind in ("accuracy", "loss"):
        for a, b in zip(one[kind]["mean"], two[kind]["mean"], strict=True):
            assert a == pytest.approx(b, rel=1e-9)
    assert BATCH <= Item.most <= CHUNK


def test_it_goes_through_the_data_once_with_one_sample():
    task = as_task(capacity.Streamed(ByIndex()))
    assert Item.most <= 2
    assert isinstance(task.train.x, Rows)
    assert (len(task.train), len(task.test), task.overlap) == (52, 12, 0)
    assert "read when needed" in repr(task.train.x)


def test_rows_are_read_as_a_tensor_gives_them():
    x, y = numbers()
    task = capacity.Task(name="a", train=capacity.Streamed(ByIndex()), test=(x, y))
    rows = task.train.x
    index = torch.tensor([[3, 1], [0, 60]])
    assert torch.equal(rows[index], x[index])
    assert type(rows[index]) is torch.Tensor
    assert isinstance(rows[2:50], Rows)
    assert torch.equal(rows[2:50][5:7] + 0, x[7:9])
    assert torch.equal(rows[-1], x[-1])
    assert [len(part) for part in rows.split(30)] == [30, 30, 4]
    assert torch.equal(torch.cat([rows, rows])[torch.tensor([64, 3])], x[[0, 3]])
    assert torch.equal(rows @ torch.ones(4, dtype=torch.float64), x.sum(1))
    assert torch.equal(task.train.y, y)


class Noisy(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, index):
        return torch.rand(2) + index, index % 2


def test_transformations_are_drawn_anew_for_each_batch_and_again_for_the_same():
    task = as_task(capacity.Streamed(Noisy()), share=0)
    before = torch.get_rng_state()
    one, other = (task.train.x[torch.tensor(rows)] for rows in ([3, 4], [3, 5]))
    again = task.train.x[torch.tensor([3, 4])]
    assert torch.equal(one, again)
    assert not torch.equal(one[0], other[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stream_is_read_in_its_order_again_and_again():
    task = as_task(capacity.Streamed(Endless(), samples=N, seed=3), share=0)
    rows = torch.arange(N)
    first = task.train.x[rows[:10]]
    later = task.train.x[rows[10:20]]
    assert not torch.equal(first, later)
    assert torch.equal(task.train.x[rows[:20]], torch.cat([first, later]))
    assert torch.equal(task.train.y[:10], (first[:, 0] > first[:, 1]).long())


@pytest.mark.slow  # a run
def test_a_stream_is_trained_forecast_and_measured(tmp_path, quick_run, monkeypatch):
    for module in ("networks.evaluate", "products.output_space", "forecasting.linearized"):
        monkeypatch.setattr(f"capacity.{module}._CHUNK", CHUNK)
    tasks = []
    for turn in range(2):
        train, test = (
            capacity.Streamed(Endless(turn), samples=n, seed=s) for n, s in ((MANY, 0), (24, 1))
        )
        tasks.append(capacity.Task(name=str(turn), train=train, test=test))
    Item.most = 0
    plan = capacity.Training(lr=0.3, max_steps=MANY // BATCH, batch_size=BATCH)
    made = capacity.run(tasks, model=network(), training=plan, out=tmp_path, quiet=True, **ONE)
    assert made.result["transitions"][0]["old"][0]["forecast"]["loss_increase"]["value"] > 0
    assert made.result["transitions"][0]["old"][0]["measured"]["loss_increase"]["value"] > 0
    assert BATCH <= Item.most <= CHUNK
    # The same steps by hand.
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    torch.manual_seed(0)
    data = iter(Endless(0))
    for _ in range(MANY // BATCH):
        pairs = [next(data) for _ in range(BATCH)]
        x = torch.stack([torch.as_tensor(x) for x, _ in pairs]).as_subclass(torch.Tensor)
        loss = cross_entropy(model(x), torch.tensor([y for _, y in pairs]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x, y = tasks[0].test.x.read(), tasks[0].test.y
    by_hand = float(cross_entropy(model(x), y).detach())
    assert made.result["loss"]["mean"][0][0] == pytest.approx(by_hand, rel=1e-9)


def losses(model, batch):
    return cross_entropy(model(batch["x"]), batch["y"], reduction="none")


class Mapped(ByIndex):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return {"x": x, "y": y}


@pytest.mark.slow  # a run
def test_losses_of_ones_own_take_streamed_batches(tmp_path, quick_run):
    made = []
    for form in (capacity.Streamed, lambda data: {"x": data.x, "y": data.y}):
        tasks = [
            capacity.Task(name=str(k), train=form(Mapped(k)), test=form(Mapped(k)), losses=losses)
            for k in range(2)
        ]
        out = tmp_path / str(len(made))
        made.append(capacity.run(tasks, model=network(), training=PLAN, out=out, quiet=True, **ONE))
    one, two = (run.result["loss"]["mean"] for run in made)
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=1e-9)


class Broken(ByIndex):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return (x / 0 if index == 7 else x), y


class Uneven(ByIndex):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return (x[:3] if index == 7 else x), y


BAD = {
    "an iterator": (lambda: capacity.Streamed(iter([])), "iterated over more than once"),
    "no end": (lambda: capacity.Streamed(Endless()), r"pass samples=, the steps"),
    "an end given": (lambda: capacity.Streamed(ByIndex(), samples=3), "samples is for data with"),
    "too short": (
        lambda: as_task(capacity.Streamed(torch.utils.data.ChainDataset([]), samples=3)),
        "ended after 0 samples",
    ),
    "not finite": (
        lambda: as_task(capacity.Streamed(Broken()), share=0).train.x.read(), "sample 7 holds NaN"
    ),
    "uneven": (lambda: as_task(capacity.Streamed(Uneven())), "differing kinds"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_streamed_is_refused(case):
    call, said = BAD[case]
    with pytest.raises(ValueError, match=said):
        call()


def test_what_no_memory_holds_is_not_read_at_once(monkeypatch):
    task = as_task(capacity.Streamed(ByIndex()))
    monkeypatch.setattr("capacity.tasks.streamed.memory_of_machine", lambda: 1000.0)
    with pytest.raises(ValueError, match=r"52 samples of 32 bytes, more than half of this"):
        task.train.x.clone()
