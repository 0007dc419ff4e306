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


@pytest.mark.slow
def test_a_run_takes_the_batch_size_of_its_loaders(quick_run, tmp_path):
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


@pytest.mark.slow
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


def multi_head(stream):
    from avalanche.models import MultiHeadClassifier, MultiTaskModule
    from avalanche.models.dynamic_modules import avalanche_model_adaptation

    class Net(MultiTaskModule):
        def __init__(self, width):
            super().__init__()
            self.body, self.head = nn.Linear(width, 6), MultiHeadClassifier(6)

        def forward(self, x, task_labels):
            return self.head(self.body(x.flatten(1)).tanh(), task_labels)

    torch.manual_seed(0)
    model = Net(stream[0].dataset[0][0].numel())
    for experience in stream:
        avalanche_model_adaptation(model, experience)
    return model


class SideBySide(nn.Module):
    """The heads as one output, as the refusal says to write it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return torch.cat([self.model(x, label) for label in (0, 1)], 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The old tasks are not converged")
def test_a_module_of_avalanches_that_takes_task_labels(quick_run, tmp_path):
    from avalanche.benchmarks import tensors_benchmark

    parts = [data([0, 1], shift=shift) for shift in (0.0, 1.0)]
    tensors = [(part.x, part.y) for part in parts]
    made = tensors_benchmark(train_tensors=tensors, test_tensors=tensors, task_labels=[0, 1])
    old, new = made.train_stream
    model, plan = multi_head(made.train_stream), capacity.Training(lr=0.01, epochs=1)
    room = {"tolerance": 0.1, "displacement": 1.0}

    def track(m):
        optimizer = torch.optim.SGD(m.parameters(), lr=0.1)
        capacity.TransportTracker(m, "cross_entropy", optimizer, tangents=2).observe(
            parts[0].x, parts[0].y
        )

    bare = capacity.Measure(
        forecast=False, transport=False, capacity=False, closure_points=0, verdicts=False
    )
    calls = (
        lambda m: capacity.forecast(m, old=old, new=new, training=plan),
        lambda m: capacity.verdict(m, old=old, new=new, training=plan),
        lambda m: capacity.compatible_capacity(m, old=old, new=new, **room),
        lambda m: capacity.epistemic_speed_limit(
            m, [old, new], training=plan, replicas=2, start="warm"
        ),
        track,
        lambda m: capacity.run(
            made, model=m, training=plan, measure=bare, replicas=1, quiet=True,
            out=tmp_path / "run",
        ),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(ValueError, match=r"takes task_labels beside the inputs.*") as caught:
            call(model)
        assert "torch.cat([self.model(x, label) for label in (0, 1)], 1)" in str(caught.value)
        assert not (tmp_path / "run").exists()
    for call in (*calls[:3], calls[-1]):
        call(SideBySide(model))
    task = as_task(new, share=0)
    assert task.outputs == (2, 3)
    torch.testing.assert_close(task.select(SideBySide(model)(task.train.x)), model(task.train.x, 1))


def test_a_network_of_two_inputs_is_told_to_be_wrapped():
    class Masked(nn.Linear):
        def forward(self, x, mask, *, scale=1.0):
            return super().forward(x * mask) * scale

    x, y = torch.randn(20, 4), torch.arange(20) % 2
    with pytest.raises(ValueError, match=r"takes mask beside the inputs.*wrap it in a module"):
        capacity.forecast(Masked(4, 2), old=(x, y), new=(x, 1 - y))
