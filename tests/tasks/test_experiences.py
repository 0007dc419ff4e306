"""One Avalanche experience by itself, and the batch size of a loader."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import capacity
from capacity.tasks import as_task, from_avalanche
from streams import GLOBAL, ZERO_BASED, benchmark, data


@pytest.mark.parametrize("convention", [ZERO_BASED, GLOBAL], ids=["from-zero", "global"])
def test_an_experience_reads_the_outputs_that_its_label_has_in_the_whole(convention):
    parts = [data(classes) for classes in convention]
    made = benchmark(parts, parts, labels=[0, 1, 2])
    whole = from_avalanche(made)
    for experience, task in zip(made.train_stream, whole.tasks, strict=True):
        alone = as_task(experience, share=0)
        assert alone.outputs == task.outputs
        assert torch.equal(alone.train.y, task.train.y)
        assert torch.equal(alone.train.x, task.train.x)


def test_one_task_label_reads_all_outputs():
    parts = [data(classes) for classes in GLOBAL]
    alone = as_task(benchmark(parts, parts).train_stream[1], share=0)
    assert alone.outputs is None
    assert torch.equal(alone.train.y, parts[1].y)


def test_an_experience_that_mixes_labels_is_refused():
    from capacity.tasks.digits import _experience

    parts = [data([0, 1]), data([2, 3])]
    made = benchmark(parts, parts, labels=[0, 1]).train_stream[0]

    class Mixed:
        dataset = _experience(parts[0], 0).concat(_experience(parts[1], 1))
        current_experience, origin_stream = 0, made.origin_stream

    with pytest.raises(ValueError, match=r"mixes the task labels \[0, 1\]"):
        as_task(Mixed())


def test_a_label_without_a_stream_is_refused_by_name():
    from capacity.tasks.digits import _experience

    class Alone:
        dataset, current_experience = _experience(data([0, 1]), 3), 0

    with pytest.raises(ValueError, match="has the task label 3, but no stream"):
        as_task(Alone())


def test_loaders_over_avalanche_samples_are_read():
    parts = [data([0, 1])]
    dataset = benchmark(parts, parts).train_stream[0].dataset.eval()
    assert len(dataset[0]) == 3
    task = as_task(DataLoader(dataset, batch_size=4), share=0)
    assert torch.equal(task.train.y, parts[0].y)


def test_a_forecast_uses_the_heads_of_experiences():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 60, 4, generator=generator)
    parts = [capacity.Split(x[k], (x[k, :, k] > 0).long()) for k in range(2)]
    made = benchmark(parts, parts, labels=[0, 1])
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    plan = capacity.Training(lr=0.1, epochs=3, batch_size=12)
    by_experience = capacity.forecast(
        model, old=made.train_stream[0], new=made.train_stream[1], training=plan
    )
    heads = [
        capacity.Task(name=name, train=task.train, test=task.test, outputs=outputs)
        for name, part, outputs in zip(("old", "new"), parts, ((0, 1), (2, 3)), strict=True)
        for task in [capacity.hold_out((part.x, part.y))]
    ]
    by_task = capacity.forecast(model, old=heads[0], new=heads[1], training=plan)
    assert by_experience.loss_increase.value == by_task.loss_increase.value
    assert by_experience.new_loss.value == by_task.new_loss.value
    # A linear layer has its own parameters per head: what the other head learns costs nothing.
    assert by_experience.loss_increase.value == pytest.approx(0.0, abs=1e-6)


X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(64) % 2


def loader(size):
    return DataLoader(TensorDataset(X, Y), batch_size=size)


def test_a_run_takes_the_batch_size_of_its_loaders(tmp_path):
    measure = capacity.Measure(
        forecast=False, transport=False, capacity=False, closure_points=0, verdicts=False
    )
    plain = {"measure": measure, "replicas": 1, "quiet": True}
    run = capacity.run(
        [loader(8)], training=capacity.Training(epochs=1), out=tmp_path / "run", **plain
    )
    assert run.result["recipe"]["training"]["batch_size"] == 8
    with pytest.raises(ValueError, match=r"batch sizes \[8, 16\], and a training has one"):
        capacity.run([loader(8), loader(16)], out=tmp_path / "other", **plain)


def test_a_given_batch_size_stands_and_a_difference_is_said():
    plan = capacity.Training(lr=0.1, epochs=2, batch_size=4)
    model = nn.Linear(4, 2)
    with pytest.warns(UserWarning, match=r"batch_size = 4 is taken, and not .* \(16\)"):
        given = capacity.forecast(model, old=(X, 1 - Y), new=loader(16), training=plan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = capacity.forecast(model, old=(X, 1 - Y), new=(X, Y), training=plan)
        taken = capacity.forecast(
            model, old=(X, 1 - Y), new=loader(4), training=capacity.Training(lr=0.1, epochs=2)
        )
    assert given.loss_increase.value == plain.loss_increase.value
    assert taken.loss_increase.value == plain.loss_increase.value


def test_batches_of_a_sampler_of_ones_own():
    def with_batches(batches):
        return as_task(DataLoader(TensorDataset(X, Y), batch_sampler=batches)).batch_size

    assert with_batches([[0, 1, 2], [3, 4, 5], [6]]) == 3
    assert with_batches([[0, 1, 2], [3], [4, 5]]) is None
