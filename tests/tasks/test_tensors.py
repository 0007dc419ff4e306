"""Tasks from plain tensors, data sets, loaders and experiences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    SubsetRandomSampler,
    TensorDataset,
)

from capacity.tasks import Split, Task, as_task, from_tensors

X = torch.arange(12.0).reshape(6, 2)
Y = torch.tensor([0, 1, 2, 0, 1, 2])
PAIR = (X, Y)
HELD = (X[:3] + 0.5, Y[:3])


class Items(Dataset):
    """A map-style data set whose items are what it is given."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Endless(Dataset):
    """Says that it has more samples than any memory holds."""

    def __len__(self):
        return 10**12

    def __getitem__(self, index):
        if index:
            raise AssertionError("read beyond the first sample")
        return torch.zeros(4), 0


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


def experience():
    from capacity.recipe.config import TaskStream
    from capacity.tasks.digits import digits_benchmark

    return digits_benchmark(TaskStream(experiences=1, samples=20)).train_stream[0]


SAME = {
    "tensors": lambda: PAIR,
    "list": lambda: list(PAIR),
    "arrays": lambda: (X.numpy(), Y.numpy()),
    "float64 arrays": lambda: (X.numpy().astype(float), Y.numpy().astype(np.uint8)),
    "tensor data set": lambda: TensorDataset(X, Y),
    "data set of tensors": lambda: Items(*zip(X, Y, strict=True)),
    "data set of ints": lambda: Items(*zip(X, Y.tolist(), strict=True)),
    "data set of arrays": lambda: Items(*zip(X.numpy(), Y.numpy(), strict=True)),
    "iterable": Stream,
    "loader": lambda: DataLoader(TensorDataset(X, Y), batch_size=4),
    "train and test": lambda: (PAIR, PAIR),
    "two data sets": lambda: (TensorDataset(X, Y), DataLoader(TensorDataset(X, Y))),
}


@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
def test_every_kind_gives_the_same_task(make):
    task = as_task(make(), name="mine", share=0)
    assert task.name == "mine"
    assert task.scored_on == "training"
    assert task.classes == (0, 1, 2)
    for split in (task.train, task.test):
        assert torch.equal(split.x, X)
        assert torch.equal(split.y, Y)
        assert (split.x.dtype, split.y.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize("test", [HELD, TensorDataset(*HELD), DataLoader(TensorDataset(*HELD))])
def test_held_out_data_of_every_kind(test):
    for task in (as_task(PAIR, test=test), as_task((PAIR, test))):
        assert torch.equal(task.train.x, X)
        assert torch.equal(task.test.x, HELD[0])
        assert torch.equal(task.test.y, HELD[1])


def test_avalanche_experience():
    task = as_task(experience())
    assert (len(task.train), len(task.test)) == (10, 10)  # one of two of each class
    assert task.held_out
    assert task.classes == tuple(range(10))


def test_a_task_stays_as_it_is():
    task = as_task(PAIR)
    assert as_task(task) is task


def test_doubles_stay_doubles():
    assert as_task((X.double(), Y)).train.x.dtype == torch.float64


@pytest.mark.parametrize("y", [X[:, 0], X[:, :1], X, X.double(), Y])
def test_regression(y):
    task = as_task((X, y), loss="mse", share=0)
    assert task.train.y.dtype == torch.float32
    assert task.train.y.shape == y.shape
    assert task.classes == ()
    width = y[0].numel()
    assert from_tensors([(X, y)], loss="mse").n_outputs == width
    # The loss meets the targets: half the squared distance from 0.
    expected = 0.5 * y.float().square().sum() / len(y)
    torch.testing.assert_close(task.loss_of(torch.zeros(6, width), task.train.y), expected)
    assert (len(as_task((X, y), loss="mse").train), len(as_task((X, y), loss="mse").test)) == (5, 1)


def test_own_loss_function():
    def hinge(outputs, targets):
        return (1 - outputs.gather(1, targets[:, None])).clamp_min(0).mean()

    task = as_task(PAIR, loss=hinge)
    assert task.loss is hinge
    assert task.classifies


def test_a_shuffling_loader_neither_reads_nor_moves_the_global_state():
    loader = DataLoader(TensorDataset(X, Y), batch_size=2, shuffle=True)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = as_task(loader, share=0).train
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    two = as_task(loader, share=0).train
    assert torch.equal(one.x, two.x)
    assert sorted(one.x[:, 0].tolist()) == X[:, 0].tolist()


def test_a_loader_gives_what_one_pass_yields():
    sampler = SubsetRandomSampler([1, 4])
    task = as_task(DataLoader(TensorDataset(X, Y), sampler=sampler), share=0)
    assert task.train.y.tolist() == [1, 1]
    dropped = as_task(DataLoader(TensorDataset(X, Y), batch_size=4, drop_last=True), share=0)
    assert len(dropped.train) == 4


def test_sequence_of_mixed_kinds():
    mine = Task(name="mine", train=Split(*PAIR), test=Split(*HELD))
    tasks = from_tensors([PAIR, (PAIR, HELD), TensorDataset(X, Y + 3), mine], name="mixed")
    assert tasks.name == "mixed"
    assert [task.name for task in tasks.tasks] == ["task 0", "task 1", "task 2", "mine"]
    assert tasks.n_outputs == 6
    assert torch.equal(tasks[1].test.x, HELD[0])
    assert tasks[3] is mine


def test_test_data_per_task():
    tasks = from_tensors([PAIR, PAIR], test=[HELD, None])
    assert torch.equal(tasks[0].test.x, HELD[0])
    assert len(tasks[0].train) == 6
    assert tasks[1].held_out


def test_wider_model():
    assert from_tensors([PAIR], n_outputs=10).n_outputs == 10


NAN = torch.where(X == 3, torch.nan, X)
BAD = {
    "nan": ([(NAN, Y)], r"'task 0', train inputs holds NaN or infinity in 1 of 6 rows"),
    "infinity in test": ([(PAIR, (X / 0, Y))], r"'task 0', test inputs holds NaN or infinity"),
    "empty tensors": ([(X[:0], Y[:0])], r"'task 0', train inputs is empty"),
    "empty data set": ([PAIR, Items()], r"^task 1: train data is empty"),
    "empty loader": ([DataLoader(Items())], r"^task 0: train data is empty"),
    "lengths": ([(X, Y[:5])], r"6 inputs but 5 targets"),
    "float labels": ([(X, Y.float())], r"targets have dtype torch.float32.*class indices"),
    "soft labels": ([(X, torch.eye(6))], r"shape \(6, 6\).*class indices"),
    "negative labels": ([(X, Y - 1)], r"labels run from -1 to 1"),
    "shapes of tasks": ([PAIR, (torch.ones(6, 3), Y)], r"shapes \[\(2,\), \(3,\)\]"),
    "shapes of test": ([(PAIR, (torch.ones(6, 3), Y))], r"test inputs \(3,\)"),
    "shapes of items": ([Items((X[0], 0), (X, 1))], r"^task 0: train samples .* differing shapes"),
    "bytes": ([(X.byte(), Y)], r"train inputs have dtype uint8.*/ 255"),
    "strings": ([Items(("a", 0))], r"train inputs are text; number them"),
    "string array": ([(X, np.array(["a"] * 6))], r"train data are text; number them"),
    "items are no pairs": (
        [Items({"x": 1})],
        r"train data yields a mapping of 'x'; it needs .*labels",
    ),
    "triples": ([Items(*zip(X, range(6), Y, strict=True))], r"3 parts \(Tensor, int, Tensor\)"),
    "triples in batches": ([DataLoader(TensorDataset(X, Y, Y))], r"samples of 3 parts"),
    "three tensors": ([TensorDataset(X, Y, Y)], r"samples of 3 parts .* pairs \(input, target\)"),
    "masked": ([(np.ma.masked_less(X.numpy(), 3), Y)], r"masked array; fill it"),
    "sparse": ([(X.to_sparse(), Y)], r"are a sparse_coo tensor; .*to_dense\(\)"),
    "meta": ([(X.to("meta"), Y)], r"meta device"),
    "objects": ([(X, np.array([None] * 6))], r"dtype object; pass numbers"),
    "inputs only": ([DataLoader(X)], r"train data yields a Tensor; .*\(input, target\)"),
    "kind": ([3], r"^task 0: train data is a int; accepted: a pair of tensors"),
    "triple": ([(X, Y, Y)], r"data is a tuple of \(Tensor, Tensor, Tensor\)"),
    "half a pair": ([(X, [0, 1])], r"data is a tuple of \(Tensor, list\)"),
    "test is a triple": ([(PAIR, (X, Y, Y))], r"test data is a tuple of \(Tensor, Tensor, Tensor"),
    "bare pair": (PAIR, r"tasks holds bare tensors; .*\[\(x, y\)\]"),
    "bare tensor": (X, r"tasks is a Tensor; pass a list"),
    "empty list": ([], r"tasks is empty; pass a list"),
}


@pytest.mark.parametrize(("pairs", "message"), BAD.values(), ids=BAD)
def test_bad_data(pairs, message):
    with pytest.raises(ValueError, match=message) as caught:
        from_tensors(pairs)
    assert "\n" not in str(caught.value)


BAD_CALLS = {
    "more than the memory": (
        lambda: as_task(Endless()),
        r"train data has 1,000,000,000,000 samples of 24 bytes, .* GiB of memory, .*Subset",
    ),
    "loss": (lambda: as_task(PAIR, loss="hinge"), "loss = 'hinge' is not known; accepted: cross_"),
    "loss kind": (lambda: from_tensors([PAIR], loss=3), "loss = 3 is not known"),
    "test twice": (lambda: as_task((PAIR, HELD), test=HELD), r"already holds \(train, test\)"),
    "test beside a task": (lambda: as_task(as_task(PAIR), test=HELD), "beside a Task"),
    "test list": (lambda: from_tensors([PAIR, PAIR], test=[HELD]), "test is 1 items; .* 2 items"),
    "test kind": (lambda: from_tensors([PAIR], test=3), "test is int; pass a list of 1 items"),
    "head too small": (
        lambda: from_tensors([PAIR], n_outputs=2),
        "labels run from 0 to 2, but the head has 2 outputs; accepted: 0 to 1",
    ),
    "head of nothing": (lambda: from_tensors([PAIR], n_outputs=0), "n_outputs = 0"),
    "widths": (
        lambda: from_tensors([(X, X), (X, X[:, 0])], loss="mse"),
        "'task 1' has targets of 1 numbers, but reads 2 outputs",
    ),
}


@pytest.mark.parametrize(("call", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_calls(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_subclass_turns_its_samples_into_others():
    class Tripled(TensorDataset):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return 3 * x, y

    assert torch.equal(as_task(Tripled(X, Y), share=0).train.x, 3 * X)


def test_numbers_in_the_other_byte_order():
    task = as_task((X.numpy().astype(">f4"), Y.numpy().astype(">i8")), share=0)
    assert torch.equal(task.train.x, X)
    assert torch.equal(task.train.y, Y)


def test_a_loader_without_batches_of_its_own():
    batches = [(X[:4], Y[:4]), (X[4:], Y[4:])]
    for data in (TensorDataset(X, Y), Items(*batches)):
        task = as_task(DataLoader(data, batch_size=None), share=0)
        assert torch.equal(task.train.x, X)
        assert torch.equal(task.train.y, Y)


def test_an_iterator_that_was_read_before_is_named():
    class Once(IterableDataset):
        def __init__(self):
            self.items = iter(list(zip(X, Y, strict=True)))

        def __iter__(self):
            return self.items

    data = Once()
    assert len(as_task(data, share=0).train) == len(X)
    with pytest.raises(ValueError, match=r"train data is empty; .*an iterator anew for each task"):
        as_task(data)


@pytest.mark.parametrize("wrap", [lambda data: data, DataLoader])
def test_data_without_an_end_are_refused_before_memory_is_full(wrap, monkeypatch):
    class Forever(IterableDataset):
        def __iter__(self):
            while True:
                yield torch.zeros(1000), 0

    monkeypatch.setattr("capacity.tasks.reading.memory_of_machine", lambda: 1e6)
    with pytest.raises(ValueError, match=r"yielded 12[0-9] samples or batches and goes on"):
        as_task(wrap(Forever()))


class Drawn(Dataset):
    """Samples with noise, of a generator of its own or of the global one."""

    def __init__(self, own):
        self.random = np.random.default_rng(0) if own else np.random

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return X[index] + float(self.random.normal()), Y[index]


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: DataLoader(data, shuffle=True)])
def test_data_that_change_from_one_reading_to_the_next_are_told(wrap, recwarn):
    first, again = (as_task(wrap(Drawn(own=False))).train.x for _ in range(2))
    assert torch.equal(first, again)
    assert not recwarn
    with pytest.warns(UserWarning, match="train data yield other first samples at a second read"):
        as_task(wrap(Drawn(own=True)))


def test_a_name_that_no_file_holds_is_refused():
    with pytest.raises(ValueError, match=r"name = '\\ud800' has a lone surrogate"):
        as_task(PAIR, name="\ud800")
