"""Streams from scikit-learn's digits, against the data set itself and against Avalanche."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from capacity.recipe.config import TaskStream
from capacity.tasks import build_tasks, from_avalanche
from capacity.tasks.assemble import assemble
from capacity.tasks.digits import _pieces, _variants, angles, digits_benchmark


def rows_of(*splits):
    return {row.numpy().tobytes() for split in splits for row in split.x}


def assert_same(one, other):
    assert one.n_outputs == other.n_outputs
    assert len(one) == len(other)
    for a, b in zip(one.tasks, other.tasks, strict=True):
        assert (a.name, a.outputs, a.classes) == (b.name, b.outputs, b.classes)
        for p, q in ((a.train, b.train), (a.test, b.test)):
            assert torch.equal(p.x, q.x)
            assert torch.equal(p.y, q.y)


STREAMS = {
    "split": TaskStream(),
    "heads": TaskStream(heads=True, samples=100),
    "permuted": TaskStream(scenario="permuted", experiences=3, samples=200, seed=5),
    "rotated": TaskStream(scenario="rotated", experiences=3, samples=200),
    "mixed": TaskStream(scenario="mixed", experiences=6, samples=200, seed=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_avalanche_carries_the_same_tasks(stream):
    benchmark = digits_benchmark(stream)
    assert_same(
        from_avalanche(benchmark, name="digits"),
        assemble("digits", _pieces(stream), "cross_entropy"),
    )
    for experience in benchmark.train_stream:
        assert isinstance(experience.classes_in_this_experience, list)


@pytest.mark.slow
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_the_same_section_gives_the_same_data(stream):
    assert_same(build_tasks(stream), build_tasks(stream))


@pytest.mark.slow
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_another_seed_gives_other_data(stream):
    other = stream.model_copy(update={"seed": stream.seed + 1})
    one, two = build_tasks(stream), build_tasks(other)
    assert rows_of(one[0].test) != rows_of(two[0].test)


def test_split_keeps_every_sample_once_with_its_label():
    data = load_digits()
    truth = {
        (x / 16).astype(np.float32).tobytes(): y
        for x, y in zip(data.data, data.target, strict=True)
    }
    assert len(truth) == len(data.data), "the images are distinct, so a set of them loses nothing"
    tasks = build_tasks(TaskStream()).tasks
    seen = []
    for task in tasks:
        for split in (task.train, task.test):
            for x, y in zip(split.x, split.y, strict=True):
                assert truth[x.numpy().tobytes()] == int(y)
                assert int(y) in task.classes
                seen.append(x.numpy().tobytes())
    assert len(seen) == len(set(seen)) == len(truth)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["split", "permuted", "rotated"])
def test_no_test_image_is_trained_on(scenario):
    tasks = build_tasks(TaskStream(scenario=scenario)).tasks
    # Across tasks as well: sorting the pixels of a row undoes every permutation.
    undo = (lambda split: split.x.sort(1).values) if scenario == "permuted" else lambda s: s.x
    train = {row.numpy().tobytes() for task in tasks for row in undo(task.train)}
    test = {row.numpy().tobytes() for task in tasks for row in undo(task.test)}
    assert not train & test


@pytest.mark.parametrize("fraction", [0.001, 0.2, 0.5, 0.999])
def test_held_out_share_is_the_same_in_every_class(fraction):
    counts = np.bincount(load_digits().target)
    task = build_tasks(TaskStream(experiences=1, test_fraction=fraction))[0]
    held = torch.bincount(task.test.y, minlength=10).tolist()
    assert held == [min(max(round(fraction * n), 1), n - 1) for n in counts]


@pytest.mark.slow
def test_permutations_start_from_the_identity_and_differ():
    tasks = build_tasks(TaskStream(scenario="permuted")).tasks
    plain = build_tasks(TaskStream(experiences=1))[0]
    assert torch.equal(tasks[0].train.x, plain.train.x)
    assert torch.equal(tasks[0].test.x, plain.test.x)
    for task in tasks[1:]:
        assert not torch.equal(task.train.x, plain.train.x)
        # One permutation moves all images, in training and test: it maps columns to columns.
        columns = {column.numpy().tobytes() for column in plain.train.x.T}
        assert {column.numpy().tobytes() for column in task.train.x.T} == columns
        both = torch.cat([plain.train.x, plain.test.x]).T
        moved = torch.cat([task.train.x, task.test.x]).T
        assert sorted(c.numpy().tobytes() for c in both) == sorted(
            c.numpy().tobytes() for c in moved
        )
    firsts = {task.train.x[0].numpy().tobytes() for task in tasks}
    assert len(firsts) == 5


@pytest.mark.slow
def test_rotations_come_in_equal_steps():
    stream = TaskStream(scenario="rotated", experiences=5, max_angle=360.0)
    assert angles(stream) == [0.0, 90.0, 180.0, 270.0, 360.0]
    assert angles(TaskStream(scenario="rotated", experiences=3)) == [0.0, 45.0, 90.0]
    assert angles(TaskStream(scenario="rotated", experiences=1)) == [0.0]
    tasks = build_tasks(stream).tasks
    plain = tasks[0].train.x.numpy().reshape(-1, 8, 8)
    # Quarter turns need no interpolation; numpy turns counter-clockwise too.
    for turns, task in enumerate(tasks):
        expected = np.rot90(plain, turns, axes=(1, 2)).reshape(-1, 64)
        np.testing.assert_allclose(task.train.x.numpy(), expected, atol=1e-5)
    assert [task.name for task in tasks[:2]] == [
        "rotated 0 degrees",
        "rotated 90 degrees",
    ]


def test_rotation_interpolates_linearly():
    stream = TaskStream(scenario="rotated", experiences=2, max_angle=30.0)
    plain, turned = (task.train.x.reshape(-1, 1, 8, 8) for task in build_tasks(stream).tasks)
    angle = torch.deg2rad(torch.tensor(30.0))
    matrix = torch.tensor([[angle.cos(), -angle.sin(), 0.0], [angle.sin(), angle.cos(), 0.0]])
    grid = torch.nn.functional.affine_grid(matrix[None], [1, 1, 8, 8], align_corners=False)
    expected = torch.nn.functional.grid_sample(
        plain, grid.expand(len(plain), -1, -1, -1), align_corners=False
    )
    # At the border the two differ in how they fade out.
    torch.testing.assert_close(turned[..., 2:6, 2:6], expected[..., 2:6, 2:6], atol=1e-5, rtol=0)


def test_permutations_depend_on_the_seed():
    def second(seed):
        stream, y = TaskStream(scenario="permuted", seed=seed), torch.zeros(1)
        return _variants(stream, torch.arange(64.0)[None], y)[1].x

    assert sorted(second(0)[0].tolist()) == list(range(64))
    assert torch.equal(second(0), second(0))
    assert not torch.equal(second(0), second(1))


def test_heads_are_blocks_and_targets_count_within_them():
    tasks = build_tasks(TaskStream(heads=True))
    shared = build_tasks(TaskStream())
    assert [task.outputs for task in tasks.tasks] == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    for number, (task, other) in enumerate(zip(tasks.tasks, shared.tasks, strict=True)):
        assert other.outputs is None
        assert torch.equal(task.train.y + 2 * number, other.train.y)
        assert torch.equal(task.test.y + 2 * number, other.test.y)
        assert torch.equal(task.train.x, other.train.x)


@pytest.mark.parametrize("samples", [10, 50, 333])
def test_samples_keep_the_classes_in_proportion(samples):
    whole = build_tasks(TaskStream(experiences=1))[0]
    task = build_tasks(TaskStream(experiences=1, samples=samples))[0]
    assert len(task.train) == samples
    assert torch.equal(task.test.x, whole.test.x)
    assert rows_of(task.train) < rows_of(whole.train)
    share = samples * torch.bincount(whole.train.y) / len(whole.train)
    assert float((torch.bincount(task.train.y) - share).abs().max()) <= 1


def test_more_samples_than_there_are_takes_all():
    whole = build_tasks(TaskStream())
    assert_same(build_tasks(TaskStream(samples=10**6)), whole)


@pytest.mark.parametrize("experiences", [3, 4, 7, 20])
def test_no_class_is_dropped_silently(experiences):
    with pytest.raises(ValueError, match=rf"experiences = {experiences} .*10 classes of digits.*5"):
        build_tasks(TaskStream(experiences=experiences))


def test_too_few_samples_for_the_classes():
    with pytest.raises(ValueError, match=r"samples = 9 is too few for task 0 with 10 classes"):
        build_tasks(TaskStream(scenario="rotated", samples=9))


def test_mixed_tasks_differ_from_the_first_in_one_way_each():
    plain, noisy, turned, high, swapped, permuted = build_tasks(
        TaskStream(scenario="mixed", experiences=6)
    ).tasks
    x, y = plain.train.x, plain.train.y
    for task in (noisy, turned, permuted):
        assert torch.equal(task.train.y, y)
        assert not torch.equal(task.train.x, x)
        assert 0 <= task.train.x.min() <= task.train.x.max() <= 1
    assert torch.equal(permuted.train.x.sort(dim=1).values, x.sort(dim=1).values)
    assert torch.equal(high.train.x, x[y >= 5])
    assert torch.equal(swapped.train.x, x)
    pairs = set(zip(y.tolist(), swapped.train.y.tolist(), strict=True))
    assert {pair for pair in pairs if pair[0] != pair[1]} == {(1, 7), (7, 1), (3, 8), (8, 3)}
    assert len(pairs) == 10


def test_there_are_six_mixed_tasks():
    with pytest.raises(ValueError, match=r"tasks.experiences = 7 .*accepted: 1 to 6"):
        build_tasks(TaskStream(scenario="mixed", experiences=7))
