"""Any Avalanche benchmark to tensors: heads, class ids, pairing of the streams."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset

from capacity.tasks import (
    Task,
    TaskSequence,
    as_sequence,
    as_task,
    from_avalanche,
    from_tensors,
)
from capacity.tasks.digits import _experience
from capacity.tasks.task import Split
from streams import GLOBAL, ZERO_BASED, benchmark, data


def assert_blocks(tasks):
    assert tasks.n_outputs == 7
    assert [task.outputs for task in tasks.tasks] == [(0, 1), (2, 3, 4), (5, 6)]
    for task, width in zip(tasks.tasks, (2, 3, 2), strict=True):
        assert task.train.y.unique().tolist() == list(range(width))
        assert task.test.y.unique().tolist() == list(range(width))


@pytest.mark.parametrize("convention", [ZERO_BASED, GLOBAL], ids=["from-zero", "global"])
def test_each_task_label_gets_a_block(convention):
    parts = [data(classes) for classes in convention]
    tasks = from_avalanche(benchmark(parts, parts, labels=[0, 1, 2]), name="heads")
    assert_blocks(tasks)
    assert tasks.name == "heads"
    assert [list(task.classes) for task in tasks.tasks] == convention
    for task, part in zip(tasks.tasks, parts, strict=True):
        assert torch.equal(task.train.x, part.x)


@pytest.mark.parametrize("from_zero", [True, False])
def test_both_conventions_of_avalanches_own_generator(from_zero):
    from avalanche.benchmarks import nc_benchmark

    whole = data(list(range(7)))

    class WithTargets(TensorDataset):
        targets = whole.y

    made = nc_benchmark(
        WithTargets(whole.x, whole.y),
        WithTargets(whole.x, whole.y),
        3,
        task_labels=True,
        fixed_class_order=list(range(7)),
        per_exp_classes={0: 2, 1: 3, 2: 2},
        class_ids_from_zero_in_each_exp=from_zero,
    )
    tasks = from_avalanche(made)
    assert_blocks(tasks)
    for task in tasks.tasks:
        # Column 0 of x is the class that the data began with.
        assert torch.equal(task.train.x[:, 0].long(), task.train.y + task.outputs[0])


def test_one_task_label_is_one_head():
    parts = [data(classes) for classes in GLOBAL]
    tasks = from_avalanche(benchmark(parts, parts))
    assert tasks.n_outputs == 7
    assert [task.outputs for task in tasks.tasks] == [None] * 3
    assert [list(task.classes) for task in tasks.tasks] == GLOBAL
    assert torch.equal(tasks[1].train.y, parts[1].y)


def test_experiences_of_one_label_share_their_block():
    parts = [data([0, 1]), data([4]), data([2])]
    tasks = from_avalanche(benchmark(parts, parts, labels=[3, 7, 3]))
    assert [task.outputs for task in tasks.tasks] == [(0, 1, 2), (3,), (0, 1, 2)]
    assert [task.train.y.unique().tolist() for task in tasks.tasks] == [[0, 1], [0], [2]]
    assert tasks.n_outputs == 4


def test_a_class_only_in_the_test_has_an_output():
    tasks = from_avalanche(
        benchmark([data([0]), data([5])], [data([0]), data([5, 9])], labels=[0, 1])
    )
    assert tasks[1].outputs == (1, 2)
    assert tasks[1].test.y.unique().tolist() == [0, 1]
    assert from_avalanche(benchmark([data([0])], [data([0, 3])])).n_outputs == 4


def test_evaluation_transform_is_read_not_the_augmentation():
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import make_avalanche_dataset
    from avalanche.benchmarks.utils.transform_groups import TransformGroups

    part = data([0, 1])
    groups = TransformGroups({
        "train": (lambda x: x + torch.rand(()), None),
        "eval": (lambda x: x + 100, None),
    })
    augmented = make_avalanche_dataset(_experience(part, 0), transform_groups=groups)
    made = benchmark_from_datasets(train=[augmented], test=[augmented.train()])
    tasks = from_avalanche(made)
    assert torch.equal(tasks[0].train.x, part.x + 100)
    assert torch.equal(tasks[0].test.x, part.x + 100)
    assert torch.equal(as_task(made.train_stream[0], share=0).train.x, part.x + 100)


def test_benchmark_without_task_labels():
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import DataAttribute, make_avalanche_dataset

    def plain(split):
        return make_avalanche_dataset(
            TensorDataset(split.x, split.y), data_attributes=[DataAttribute(split.y, "targets")]
        )

    parts = [data([0, 1]), data([2, 3])]
    made = benchmark_from_datasets(train=[*map(plain, parts)], test=[*map(plain, parts)])
    tasks = from_avalanche(made, samples=2)
    assert tasks.n_outputs == 4
    assert [task.outputs for task in tasks.tasks] == [None, None]
    assert [sorted(task.train.y.tolist()) for task in tasks.tasks] == [[0, 1], [2, 3]]


def test_one_test_experience_serves_each_task_with_its_own_classes():
    parts = [data(classes) for classes in GLOBAL]
    everything = data(list(range(7)), shift=0.5)
    tasks = from_avalanche(benchmark(parts, [everything], test_labels=[0]))
    assert [task.test.y.unique().tolist() for task in tasks.tasks] == GLOBAL
    assert sum(len(task.test) for task in tasks.tasks) == len(everything)
    heads = from_avalanche(benchmark(parts, [everything], labels=[0, 1, 2], test_labels=[0]))
    assert_blocks(heads)


def test_one_test_experience_with_task_labels():
    from avalanche.benchmarks import benchmark_from_datasets, with_task_labels

    parts = [data([0, 1]), data([0, 1])]
    made = with_task_labels(
        benchmark_from_datasets(
            train=[_experience(part, label) for label, part in enumerate(parts)],
            test=[two_labels(parts[0])],
        )
    )
    tasks = from_avalanche(made)
    assert torch.equal(tasks[0].test.x, parts[0].x[:1])
    assert torch.equal(tasks[1].test.x, parts[0].x[1:])
    assert [task.outputs for task in tasks.tasks] == [(0, 1), (2, 3)]


def test_regression_stream():
    x = torch.randn(6, 3)
    y = torch.randn(6, 2)

    class Experience:
        def __init__(self):
            self.dataset = self

        def eval(self):
            return TensorDataset(x, y)

    class Benchmark:
        train_stream = (Experience(), Experience())
        test_stream = (Experience(),)

    tasks = from_avalanche(Benchmark(), loss="mse", samples=4)
    assert tasks.n_outputs == 2
    assert not tasks[0].classifies
    assert len(tasks[1].train) == 4
    assert torch.equal(tasks[1].test.y, y)


def test_samples_depend_on_the_seed():
    part = data([0, 1], per_class=30)

    def build(seed):
        return from_avalanche(benchmark([part], [part]), samples=20, seed=seed)[0].train

    assert torch.equal(build(0).x, build(0).x)
    assert not torch.equal(build(0).x, build(1).x)
    assert torch.bincount(build(0).y).tolist() == [10, 10]


def test_as_sequence_takes_every_kind():
    part = data([0, 1])
    made = from_tensors([(part.x, part.y)])
    assert as_sequence(made) is made
    assert as_sequence([(part.x, part.y)], name="mine").name == "mine"
    held = as_sequence([(part.x, part.y)], test=[(part.x + 1, part.y)])
    assert torch.equal(held[0].test.x, part.x + 1)
    read = as_sequence(benchmark([part], [part]), name="stream")
    assert isinstance(read, TaskSequence)
    assert read.name == "stream"
    assert torch.equal(read[0].train.x, part.x)


def two_labels(split):
    from avalanche.benchmarks.utils import DataAttribute, TaskAwareSupervisedClassificationDataset

    labels = [0, *[1] * (len(split) - 1)]
    return TaskAwareSupervisedClassificationDataset(
        [TensorDataset(split.x, split.y)],
        data_attributes=[
            DataAttribute(split.y.tolist(), "targets"),
            DataAttribute(labels, "targets_task_labels", use_in_getitem=True),
        ],
    )


def mixed():
    from avalanche.benchmarks import benchmark_from_datasets, with_task_labels

    part = data([0, 1])
    return with_task_labels(
        benchmark_from_datasets(train=[two_labels(part)], test=[_experience(part, 0)])
    )


class Empty:
    train_stream = ()
    test_stream = ()


PARTS = [data([0, 1]), data([2, 3])]
NAN = Split(torch.tensor([[0.0, torch.nan], [1.0, 1.0]]), torch.tensor([0, 1]))
BAD = {
    "no benchmark": (lambda: 3, r"benchmark is a int without train_stream"),
    "empty": (Empty, "empty train_stream"),
    "lengths": (
        lambda: benchmark([*PARTS, data([4])], PARTS, test_labels=[0, 0]),
        "3 training but 2 test",
    ),
    "mixed labels": (mixed, r"train experience 0 mixes the task labels \[0, 1\]"),
    "unpaired labels": (
        lambda: benchmark(PARTS, PARTS, labels=[0, 1], test_labels=[1, 0]),
        r"test experience 0 has the task labels \[1\], train experience 0 has 0",
    ),
    "no test of a class": (
        lambda: benchmark(PARTS, [data([0, 1])], test_labels=[0]),
        r"no sample of the classes \[2, 3\] of train experience 1",
    ),
    "nan": (lambda: benchmark([NAN], [NAN]), r"'task 0', train inputs holds NaN .* 1 of 2 rows"),
}


@pytest.mark.parametrize("samples", [None, 2])
def test_mixed_labels_are_seen_whatever_is_sampled(samples):
    for seed in range(5):
        with pytest.raises(ValueError, match="mixes the task labels"):
            from_avalanche(mixed(), samples=samples, seed=seed)


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_bad_benchmarks(make, message):
    with pytest.raises(ValueError, match=message):
        from_avalanche(make())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: as_sequence(3), "tasks is a int; accepted: a TaskSequence, an Avalanche"),
        (lambda: as_sequence(Empty(), test=[]), "test was given beside a Empty"),
        (lambda: as_sequence([], loss="cross_entropy"), "tasks is empty"),
        (lambda: from_avalanche(Empty(), loss="hinge"), "loss = 'hinge' is not known"),
    ],
)
def test_bad_sources(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
def test_tensors_and_digits_do_not_pay_for_avalanche():
    import subprocess
    import sys

    code = (
        "import sys, torch; from capacity.recipe.config import TaskStream; "
        "from capacity.tasks import as_sequence, build_tasks; build_tasks(TaskStream()); "
        "as_sequence([(torch.randn(4, 2), torch.zeros(4).long())]); "
        "assert not any(m.split('.')[0] == 'avalanche' for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tasks_are_kept_in_a_list_of_their_own():
    part = data([0, 1])
    task = Task(name="mine", train=part, test=part, outputs=(2, 3))
    tasks = as_sequence([task, (part.x, part.y)])
    assert tasks[0] is task
    assert tasks.n_outputs == 4
