"""Losses that are weighted means: what is averaged over samples is the loss handed over."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import capacity
from capacity.networks.door import fit
from capacity.networks.flat_model import FlatModel
from capacity.tasks.losses import FittedLoss, additive, sample_losses
from capacity.tasks.tensors import as_task

WEIGHT = torch.tensor([1.0, 9.0, 3.0])
IGNORED = torch.tensor([0, 1, 2, -100]).repeat(10)


def weighted(f, y):
    return functional.cross_entropy(f, y, weight=WEIGHT.to(f.dtype))


def per_token(f, y):
    return functional.cross_entropy(f.flatten(0, 1), y.flatten())


def token_labels():
    y = torch.randint(3, (40, 4), generator=torch.Generator().manual_seed(0))
    y[torch.arange(40) % 3 == 0, 1:] = -100
    y[5] = -100
    return y


KINDS = {
    "class weights": (weighted, torch.arange(40) % 3),
    "class weights in a module": (nn.CrossEntropyLoss(weight=WEIGHT), torch.arange(40) % 3),
    "ignored targets": (nn.CrossEntropyLoss(), IGNORED),
    "ignored tokens": (per_token, token_labels()),
}


class Tokens(nn.Linear):
    def forward(self, x):
        return super().forward(x).unflatten(1, (4, 3))


def case(name):
    loss, y = KINDS[name]
    torch.manual_seed(0)
    model = Tokens(5, 12) if y.dim() > 1 else nn.Linear(5, 3)
    flat = FlatModel(model)
    (task,) = fit(flat, flat.initial(), [as_task((torch.randn(40, 5), y), loss=loss, share=0)])
    outputs = flat.outputs(flat.initial(), task.train.x).double()
    truth = loss(model(task.train.x), y).double()
    return task, outputs, truth


@pytest.mark.parametrize("name", KINDS)
def test_samples_of_a_weighted_mean_average_to_the_loss(name):
    task, outputs, truth = case(name)
    assert isinstance(task.loss, FittedLoss)
    each = sample_losses(task, outputs, task.train.y)
    assert each.shape == (40,)
    torch.testing.assert_close(each.mean(), truth, rtol=1e-5, atol=0)
    # The spread is the jackknife's: drop every sample in turn.
    kept = [[i for i in range(40) if i != k] for k in range(40)]
    left = torch.stack([task.loss_of(outputs[rows], task.train.y[rows]) for rows in kept])
    jackknife = (39 / 40 * (left - left.mean()).square().sum()).sqrt()
    torch.testing.assert_close(each.std() / 40**0.5, jackknife, rtol=0.15, atol=0)


@pytest.mark.parametrize("name", KINDS)
def test_the_additive_form_is_the_same_on_its_split(name):
    task, outputs, truth = case(name)
    same = additive(task, task.train)
    torch.testing.assert_close(same.loss_of(outputs, task.train.y), truth, rtol=1e-5, atol=0)
    slopes = [torch.func.grad(t.loss_of)(outputs, task.train.y) for t in (task, same)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-4, atol=1e-7)
    halves = [same.loss_of(outputs[i::2], task.train.y[i::2]) for i in range(2)]
    torch.testing.assert_close(torch.stack(halves).mean(), truth, rtol=1e-5, atol=0)


def test_a_mean_over_samples_stays_what_it_was():
    smooth = nn.CrossEntropyLoss(label_smoothing=0.1)
    flat = FlatModel(nn.Linear(5, 3))
    given = as_task((torch.randn(12, 5), torch.arange(12) % 3), loss=smooth)
    (task,) = fit(flat, flat.initial(), [given])
    assert task.loss is smooth


@pytest.mark.slow
def test_a_forecast_is_of_the_loss_that_was_handed_over():
    torch.manual_seed(0)
    x = torch.randn(2, 600, 6)
    pair = [(x[k], (x[k, :, k] > 1.2).long()) for k in range(2)]
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 9.0]))
    old, new = (((a[:300], b[:300]), (a[300:], b[300:])) for a, b in pair)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))

    def learn(data):
        optimizer = torch.optim.SGD(model.parameters(), 0.3)
        for _ in range(20):
            for rows in torch.randperm(300).split(30):
                optimizer.zero_grad()
                loss(model(data[0][rows]), data[1][rows]).backward()
                optimizer.step()

    learn(old[0])
    plan = capacity.Training(lr=0.3, epochs=20, batch_size=30)
    made = capacity.forecast(model, old=old, new=new, training=plan, loss=loss, budget=1.0)
    before = loss(model(old[1][0]), old[1][1]).item()
    learn(new[0])
    measured = loss(model(old[1][0]), old[1][1]).item() - before
    assert made.loss_increase.value == pytest.approx(measured, rel=0.35)
    assert loss.weight.dtype == torch.float32


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.inner, self.head = kind(4, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.inner(x)[0][:, -1])


class Looking(nn.Linear):
    """Looks at its input, as an encoder does at its attention mask."""

    def forward(self, x):
        return super().forward(x) if bool((x < 1e3).all()) else super().forward(x * 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM", "looking", "weight norm", "parallel"])
def test_networks_without_a_batching_rule_are_judged_all_the_same(name):
    torch.manual_seed(0)
    make = {
        "looking": lambda: Looking(4, 2),
        "weight norm": lambda: nn.utils.weight_norm(nn.Linear(4, 2)),
        "parallel": lambda: nn.DataParallel(nn.Linear(4, 2)),
    }.get(name, lambda: Recurrent(getattr(nn, name)))
    model, y = make(), torch.arange(16) % 2
    x = torch.randn(16, 3, 4) if isinstance(model, Recurrent) else torch.randn(16, 4)
    made = capacity.verdict(
        model, old=(x, y), new=(x, 1 - y), training=capacity.Training(lr=0.1, epochs=1), samples=8
    )
    assert made.tolerance > 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker = capacity.TransportTracker(model, "cross_entropy", optimizer, tangents=2)
    tracker.observe(x, y)
    assert tracker.log_volume().value is not None


def test_a_head_is_accepted_once_its_classes_are_there():
    mask = torch.tensor([True, True, False])

    class Growing(nn.Linear):
        def forward(self, x):
            return torch.where(mask, super().forward(x), -1000.0)

    x, y = torch.randn(16, 4), torch.arange(16) % 2
    model = Growing(4, 3)
    ask = {"old": (x, y), "new": (x, 2 * y), "training": capacity.Training(epochs=1)}
    with pytest.raises(ValueError, match=r"outputs \[2\] for labels of task 'new' are constant"):
        capacity.forecast(model, **ask)
    mask[2] = True
    assert capacity.forecast(model, **ask).new_loss.value < 10


SINGLE = {
    "logits in single precision": lambda f, y: functional.cross_entropy(f.float(), y),
    "sigmoids of float targets": lambda f, y: functional.binary_cross_entropy_with_logits(
        f, functional.one_hot(y, 3).float()
    ),
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_mean_that_rounds_to_single_precision_inside_is_a_mean(name):
    generator = torch.Generator().manual_seed(0)
    for scale in (1.0, 3.0, 10.0, 30.0):
        model = nn.Linear(5, 3)
        flat = FlatModel(model)
        theta = scale * torch.randn(flat.size, generator=generator)
        x, y = torch.randn(40, 5, generator=generator), torch.arange(40) % 3
        (task,) = fit(flat, theta, [as_task((x, y), loss=SINGLE[name])])
        outputs = flat.outputs(theta, task.train.x).double()
        truth = float(SINGLE[name](outputs, task.train.y))
        seen = float(sample_losses(task, outputs, task.train.y).mean())
        assert seen == pytest.approx(truth, rel=1e-5)


LABELS_OF_NO_OUTPUT = {
    "a single logit": (
        nn.Linear(6, 1),
        lambda f, y: functional.binary_cross_entropy_with_logits(f[:, 0], y.to(f.dtype)),
        torch.arange(40) % 2,
        r"labels run from 0 to 1, but the task reads 1 output\(s\)",
    ),
    "ignored by a label of no output": (
        nn.Linear(6, 3),
        nn.CrossEntropyLoss(ignore_index=255),
        torch.tensor([0, 1, 2, 255]).repeat(10),
        r"labels run from 0 to 255, .* reads 3 output\(s\)",
    ),
    "a table per sample": (
        nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Linear(3, 3)),
        lambda f, y: functional.cross_entropy(f.mean(1), y),
        torch.arange(40) % 3,
        r"one label per sample, but a sample has a table of outputs of shape \(2, 3\)",
    ),
}


@pytest.mark.parametrize("name", LABELS_OF_NO_OUTPUT)
def test_labels_that_number_no_outputs_are_refused_since_accuracy_is_not_defined(name):
    model, loss, y, said = LABELS_OF_NO_OUTPUT[name]
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=said) as caught:
        capacity.forecast(model, old=(x, y), new=(-x, y), loss=loss)
    assert "as floats" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_labels_of_a_single_logit_are_taken_as_floats():
    model, loss, y, _ = LABELS_OF_NO_OUTPUT["a single logit"]
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    made = capacity.forecast(model, old=(x, y.float()), new=(-x, y.float()), loss=loss)
    assert made.new_loss.value > 0
    assert made.accuracy_drop.value is None


RARE, CLASSES = 37, 100


def rare_weight(f, y):
    weight = torch.ones(CLASSES).index_fill_(0, torch.tensor([RARE]), 50.0)
    return functional.cross_entropy(f, y, weight=weight.to(f))


def rare_pull(f, y):
    """Couples the samples of a batch where the rare label is."""
    rare = (y == RARE).to(f.dtype)
    return functional.cross_entropy(f, y) + (rare * f[:, 0]).sum() ** 2


def rare_case(loss, rare=RARE):
    torch.manual_seed(0)
    flat, theta = FlatModel(nn.Linear(5, CLASSES)), torch.randn(6 * CLASSES)
    y = torch.cat([torch.arange(CLASSES), torch.arange(400) % 20])
    y[RARE] = rare
    (task,) = fit(flat, theta, [as_task((torch.randn(500, 5), y), loss=loss, share=0)])
    return task, flat.outputs(theta, task.train.x).double()


@pytest.mark.slow
def test_a_weight_that_a_rare_class_alone_has_is_seen():
    task, outputs = rare_case(rare_weight)
    assert isinstance(task.loss, FittedLoss)
    truth = rare_weight(outputs, task.train.y)
    seen = sample_losses(task, outputs, task.train.y)
    torch.testing.assert_close(seen.mean(), truth)
    even = functional.cross_entropy(outputs, task.train.y)
    assert abs(float(truth - even)) > 0.02 * float(even)
    # Without the class in the data the loss is a plain mean.
    assert rare_case(rare_weight, rare=36)[0].loss is rare_weight


def test_a_coupling_at_a_rare_class_alone_is_refused():
    with pytest.raises(ValueError, match="couples the samples of a batch"):
        rare_case(rare_pull)


def test_a_masked_output_of_a_rare_class_is_refused():
    mask = torch.arange(CLASSES) != RARE

    class Masked(nn.Linear):
        def forward(self, x):
            return torch.where(mask, super().forward(x), -1000.0)

    flat = FlatModel(Masked(5, CLASSES))
    y = torch.cat([torch.arange(CLASSES), torch.arange(400) % 20])
    with pytest.raises(ValueError, match=rf"outputs \[{RARE}\] for labels .* are constant"):
        fit(flat, flat.initial(), [as_task((torch.randn(500, 5), y), share=0)])


def test_a_token_that_alone_has_a_weight_is_seen():
    torch.manual_seed(0)
    weight = torch.ones(40).index_fill_(0, torch.tensor([29]), 30.0)

    def loss(f, y):
        return functional.cross_entropy(f.flatten(0, 1), y.flatten(), weight=weight.to(f))

    class Vocabulary(nn.Linear):
        def forward(self, x):
            return super().forward(x).unflatten(1, (2, 40))

    y = torch.randint(29, (200, 2))
    y[:40] = torch.arange(40)[:, None]
    flat = FlatModel(Vocabulary(5, 80))
    (task,) = fit(flat, flat.initial(), [as_task((torch.randn(200, 5), y), loss=loss, share=0)])
    assert isinstance(task.loss, FittedLoss)
    assert task.loss.reference is not None


def classes_of_three(ignored, n=240):
    """Three classes, of which the network is right on two and wrong on the third."""
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(3))
    y = x.argmax(1)
    shown = torch.where(y == 2, torch.tensor(ignored), y)
    return x, shown


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [2, -100])
def test_accuracy_leaves_out_the_rows_that_the_loss_ignores(ignored, quick_run, tmp_path):
    x, y = classes_of_three(ignored)
    loss = nn.CrossEntropyLoss(ignore_index=ignored)
    model = nn.Linear(3, 3)
    with torch.no_grad():
        model.weight.copy_(4 * torch.eye(3)[[0, 1, 1]])  # never says 2
        model.bias.copy_(torch.tensor([0.0, 0.0, -50.0]))
    flat = FlatModel(model)
    (task,) = fit(flat, flat.initial(), [as_task((x, y), loss=loss, share=0)])
    outputs = flat.outputs(flat.initial(), x).double()
    kept = y != ignored
    truth = (outputs.argmax(1) == y)[kept].double().mean()
    assert float(task.accuracy_of(outputs, y)) == pytest.approx(float(truth))
    assert task.ignored == ((2,) if ignored == 2 else ())
    torch.testing.assert_close(loss(outputs, y), functional.cross_entropy(outputs[kept], y[kept]))

    pairs = ((x[:120], y[:120]), (x[120:], y[120:]))
    right = (model(pairs[1][0]).argmax(1) == pairs[1][1])[kept[120:]].double().mean().item()
    plan = capacity.Training(lr=1e-6, epochs=1, batch_size=120)
    earlier = ((pairs[0][0] + 1, pairs[0][1]), pairs[1])
    made = capacity.forecast(
        model, old=earlier, new=pairs, training=plan, loss=loss, budget=None, orders=2
    )
    assert made.new_accuracy.value == pytest.approx(right)
    measured = capacity.run(
        [pairs], model=model, training=plan, loss=loss, replicas=1, quiet=True,
        out=tmp_path / "run",
        measure=capacity.Measure(
            forecast=False, transport=False, capacity=False, closure_points=0, verdicts=False
        ),
    )  # fmt: skip
    assert measured.result["final"]["accuracy"]["value"] == pytest.approx(right)


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [2, -100])
def test_the_predicted_drop_of_a_verdict_is_of_the_rows_that_count(ignored):
    x, y = classes_of_three(ignored)
    kept = y != ignored
    torch.manual_seed(1)
    model = nn.Linear(3, 3)
    with torch.no_grad():
        model.weight.copy_(2 * torch.eye(3))
    new = (x, torch.where(kept, 1 - y.clamp(max=1), y))
    plan = capacity.Training(lr=0.3, epochs=20, batch_size=240)
    drops = []
    for rows, loss in ((slice(None), nn.CrossEntropyLoss(ignore_index=ignored)), (kept, None)):
        some = [(a[rows], b[rows]) for a, b in ((x, y), new)]
        made = capacity.verdict(
            model,
            old=(some[0], some[0]),
            new=(some[1], some[1]),
            training=plan,
            samples=240,
            tolerance=0.05,
            **({} if loss is None else {"loss": loss}),
        )
        drops.append(made.directional.value.value)
    assert drops[0] == pytest.approx(drops[1], abs=0.02)
    assert drops[1] > 0.3


def test_a_loss_whose_gradient_is_detached_is_refused():
    x, y = torch.randn(20, 4), torch.arange(20) % 2

    def detached(f, y):
        return functional.cross_entropy(f.detach(), y) + 0 * f.sum()

    with pytest.raises(ValueError, match="loss = 'detached' changes with the outputs, and its"):
        capacity.forecast(nn.Linear(4, 2), old=(x, y), new=(-x, y), loss=detached)


def test_a_loss_at_its_minimum_is_accepted():
    """No gradient, and none is missing: a regression that fits, and a margin that is kept."""
    flat = FlatModel(nn.Linear(4, 2))
    x, theta = torch.randn(20, 4), flat.initial()
    fitted, right = flat.outputs(theta, x), flat.outputs(theta, x).argmax(1)

    def margin(f, y):
        return functional.multi_margin_loss(f, y, margin=1e-6)

    for y, loss in ((fitted, nn.MSELoss()), (right, margin)):
        (task,) = fit(flat, theta, [as_task((x, y), loss=loss, share=0)], twice=False)
        assert float(task.loss_of(fitted, y)) < 1e-6
