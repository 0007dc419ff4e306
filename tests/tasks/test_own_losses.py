"""Losses and scores that are functions of (model, batch): the same numbers as plain ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

import capacity
from capacity.forecasting.task_reading import rightly
from capacity.networks.door import fit
from capacity.networks.flat_model import FlatModel
from capacity.results.fingerprint import differences
from capacity.runs.probes import fingerprint_of
from capacity.tasks import from_tensors
from capacity.tasks.losses import sample_losses
from capacity.tasks.own_losses import SampleLoss

ROWS = torch.arange(30)
PLAN = capacity.Training(lr=0.2, epochs=2, batch_size=8)


def losses(model, batch):
    return cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def scores(model, batch):
    return (model(batch["x"]).argmax(-1) == batch["y"]).double()


def token_losses(model, batch):
    """Sums and counts over the tokens of a sequence."""
    each = cross_entropy(model(batch["x"]).movedim(-1, 1), batch["y"], reduction="none")
    return each.sum(1), (batch["y"] >= 0).sum(1)


def token_scores(model, batch):
    right = model(batch["x"]).argmax(-1) == batch["y"]
    return right.sum(1), (batch["y"] >= 0).sum(1)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def data(seed, shape=(), n=40):
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, 4, generator=source, dtype=torch.float64)
    return x, x[..., :3].argmax(-1)


def tokens(seed):
    """Sequences of differing lengths: the longer ones are easier."""
    x, y = data(seed, (5,))
    lengths = torch.arange(len(x)) % 5 + 1
    y[torch.arange(5)[None] >= lengths[:, None]] = -100
    return x, y


def own(name, pair, held, functions):
    parts = [dict(zip("xy", part, strict=True)) for part in (pair, held)]
    return capacity.Task(
        name=name, train=parts[0], test=parts[1], losses=functions[0], scores=functions[1]
    )


def plain(name, pair, held):
    return capacity.Task(name=name, train=pair, test=held)


def pairs(make):
    """An old and a new task, with their test samples: plain, and with functions of their own."""
    functions = (token_losses, token_scores) if make is tokens else (losses, scores)
    old, new = (make(0), make(1)), (make(2), make(3))
    for x_y in new:
        x_y[1][x_y[1] >= 0] = (x_y[1][x_y[1] >= 0] + 1) % 3
    return (
        [plain("old", *old), plain("new", *new)],
        [own("old", *old, functions), own("new", *new, functions)],
    )


@pytest.mark.parametrize(("make", "budget"), [(data, math.inf), (tokens, math.inf), (tokens, 0.5)])
def test_forecasts_are_those_of_the_plain_form(make, budget):
    made = [
        capacity.forecast(network(), old=old, new=new, training=PLAN, budget=budget)
        for old, new in pairs(make)
    ]
    for figure in ("accuracy_drop", "loss_increase", "new_accuracy", "new_loss"):
        known, other = (getattr(one, figure) for one in made)
        assert other.value == pytest.approx(known.value, abs=1e-9), figure
        assert known.value is not None


@pytest.mark.slow  # simulations of two pairs of tasks
@pytest.mark.parametrize("make", [data, tokens])
def test_the_simulation_on_the_linearisation_too(make):
    made = [
        capacity.forecast(network(), old=old, new=new, training=PLAN, budget=None, orders=2)
        for old, new in pairs(make)
    ]
    known, other = (one.loss_increase.value for one in made)
    assert other == pytest.approx(known, abs=1e-9)


def test_tokens_are_a_ratio_and_its_error_is_that_of_sequences():
    _, (task, _) = pairs(tokens)
    model = network()
    flat = FlatModel(model)
    (bound,) = fit(flat, flat.initial(), [task])
    x, y = tokens(1)
    with torch.no_grad():
        each = cross_entropy(model(x).movedim(-1, 1), y, reduction="none")
        right = (model(x).argmax(-1) == y).double()
    counts, n = (y >= 0).sum(1).double(), len(x)
    outputs = flat.outputs(flat.initial(), bound.test.x).detach()
    for values, made in (
        (each.sum(1), sample_losses(bound, outputs, bound.test.y)),
        (right.sum(1), rightly(bound, outputs, bound.test.y)),
    ):
        ratio = values.sum() / counts.sum()
        assert float(made.mean()) == pytest.approx(float(ratio))
        spread = (values - ratio * counts) / counts.mean()  # the textbook's ratio estimator
        by_hand = math.sqrt(float(spread.square().sum()) / (n - 1))
        assert float(made.std()) == pytest.approx(by_hand)


def test_the_loss_of_a_batch_is_the_mean_over_its_tokens():
    _, (task, _) = pairs(tokens)
    flat = FlatModel(network())
    (bound,) = fit(flat, flat.initial(), [task])
    x, y = tokens(0)
    rows = torch.tensor([0, 3, 4])
    made = flat.loss(bound)(flat.initial(), bound.train.x[rows], bound.train.y[rows])
    with torch.no_grad():
        by_hand = cross_entropy(network()(x[rows]).movedim(-1, 1), y[rows])
    assert float(made) == pytest.approx(float(by_hand))


@pytest.mark.slow  # curvature and kernels of two pairs of tasks
@pytest.mark.parametrize("make", [data, tokens])
def test_verdicts_are_those_of_the_plain_form(make):
    made = [
        capacity.verdict(network(), old=old, new=new, training=PLAN) for old, new in pairs(make)
    ]
    known, other = made
    assert other.literal.verdict == known.literal.verdict
    for form in ("literal", "capacity"):
        one, two = (getattr(verdicts, form).value.value for verdicts in made)
        assert two == pytest.approx(one, rel=1e-4)


@pytest.mark.slow  # two runs
def test_a_run_says_loss_and_score_and_what_they_are_means_over(tmp_path, quick_run):
    plain_tasks, tasks = pairs(tokens)
    made = [
        capacity.run(these, model=network(), training=PLAN, out=tmp_path / name, quiet=True)
        for name, these in (("plain", plain_tasks), ("own", tasks))
    ]
    known, other = (one.result for one in made)
    for kind in ("accuracy", "loss"):
        for one, two in zip(other[kind]["mean"], known[kind]["mean"], strict=True):
            assert one == pytest.approx(two)
    for result in (known, other):
        entry = result["tasks"][0]
        assert entry["test_counts"] == {"loss": 120.0, "accuracy": 120.0}
        assert entry["test_samples"] == 40


class Words(Dataset):
    def __len__(self):
        return 30

    def __getitem__(self, index):
        x, y = data(0)
        return {"x": x[index], "y": int(y[index]), "text": "words"}


@pytest.mark.parametrize(
    "given",
    [
        Words(),
        DataLoader(Words(), batch_size=7),
        [
            {"x": data(0)[0][:8], "y": data(0)[1][:8]},
            {"x": data(0)[0][8:30], "y": data(0)[1][8:30]},
        ],
        dict(zip("xy", (part[:30] for part in data(0)), strict=True)),
    ],
    ids=["dataset", "loader", "batches", "mapping"],
)
def test_data_of_any_form_are_the_same_batches(given):
    task = capacity.Task(name="a", train=given, test=given, losses=losses)
    assert len(task.train) == 30
    batch = task.layout.unpack(task.train.x)
    assert torch.equal(batch["x"], data(0)[0][:30])
    assert torch.equal(batch["y"], data(0)[1][:30])


def test_without_a_test_split_a_fifth_is_held_out():
    task = capacity.Task(name="a", train=Words(), losses=losses)
    assert (len(task.train), len(task.test), task.held_out) == (24, 6, True)
    assert task.train.whole
    assert capacity.Task(name="a", train=data(0)).held_out


def twice(model, batch):
    """Asks the model twice, so its values are no function of one call's outputs."""
    return (model(batch["x"]) - model(-batch["x"])).square().mean(-1) + losses(model, batch)


@pytest.mark.slow  # rehearsals
def test_what_asks_twice_is_forecast_and_refused_where_outputs_matter():
    old, new = ({"x": x, "y": y} for x, y in (data(0), data(1)))
    tasks = [
        capacity.Task(name=n, train=d, test=d, losses=twice, scores=scores)
        for n, d in (("a", old), ("b", new))
    ]
    made = capacity.forecast(network(), old=tasks[0], new=tasks[1], training=PLAN, budget=math.inf)
    assert made.accuracy_drop.value is not None
    # By hand: the training that it rehearses has no hidden order where a batch is all there is.
    whole = capacity.Training(lr=0.2, epochs=1, batch_size=40)
    made = capacity.forecast(network(), old=tasks[0], new=tasks[1], training=whole, budget=math.inf)
    model = network()
    before = twice(model, old).mean().detach()
    slopes = torch.autograd.grad(twice(model, new).mean(), list(model.parameters()))
    with torch.no_grad():
        for parameter, slope in zip(model.parameters(), slopes, strict=True):
            parameter -= 0.2 * slope
    rise = float(twice(model, old).mean().detach() - before)
    assert made.loss_increase.value == pytest.approx(rise, rel=1e-4)
    with pytest.raises(ValueError, match=r"so R_A, m_B and verdicts, a matter of those.*\n.*def"):
        capacity.verdict(network(), old=tasks[0], new=tasks[1], training=PLAN)
    with pytest.raises(ValueError, match="so the linearised training"):
        capacity.forecast(network(), old=tasks[0], new=tasks[1], training=PLAN, budget=None)


def test_a_run_is_another_one_with_other_functions():
    def half(model, batch):
        return 0.5 * losses(model, batch)

    def worst(model, batch):
        return (model(batch["x"]).argmin(-1) == batch["y"]).double()

    def fingerprint(**functions):
        x, y = data(0)
        task = capacity.Task(name="a", train={"x": x, "y": y}, **functions)
        return fingerprint_of(from_tensors([task]), lambda _: network())

    first = fingerprint(losses=losses, scores=scores)
    assert differences(first, fingerprint(losses=losses, scores=scores)) == []
    for others in ({"losses": half, "scores": scores}, {"losses": losses, "scores": worst}):
        assert "the loss differs" in differences(first, fingerprint(**others))[0]


def test_functions_that_write_into_what_they_get_change_nothing():
    def careless(model, batch):
        outputs = model(batch["x"])
        outputs[:, 0] -= 0.0
        made = cross_entropy(outputs, batch["y"], reduction="none")
        batch["y"].zero_()
        return made

    x, y = data(0)
    task = capacity.Task(name="a", train={"x": x, "y": y}, test={"x": x, "y": y}, losses=careless)
    flat = FlatModel(network())
    (bound,) = fit(flat, flat.initial(), [task])
    kept = bound.train.x.clone()
    flat.loss(bound)(flat.initial(), bound.train.x, bound.train.y)
    assert isinstance(bound.loss, SampleLoss)
    assert torch.equal(bound.train.x, kept)


def other_call(model, batch):
    return cross_entropy(model(2 * batch["x"]), batch["y"], reduction="none")


BAD = {
    "a mean": (lambda m, b: losses(m, b).mean(), r"losses returned shape \(\) for 32 samples"),
    "too few": (lambda m, b: losses(m, b)[1:], r"losses returned shape \(31,\) for 32"),
    "three": (lambda m, b: (losses(m, b),) * 3, r"losses returned shape .* return one value per"),
    "nothing": (lambda m, b: None, "losses returned NoneType"),
    "infinite": (lambda m, b: losses(m, b) / 0, "losses gives values that are not finite"),
    "another key": (lambda m, b: m(b["inputs"]), r"losses fails on a batch of .*KeyError.*as\n"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_loss_per_sample_dies_at_the_door(case):
    function, said = BAD[case]
    task = capacity.Task(name="a", train=dict(zip("xy", data(0), strict=True)), losses=function)
    with pytest.raises(ValueError, match=said) as refused:
        capacity.forecast(network(), old=task, new=task, training=PLAN)
    assert 'cross_entropy(outputs, batch["y"], reduction="none")' in str(refused.value)


def test_tasks_ask_the_model_alike():
    x, y = data(0)
    one, two = (
        capacity.Task(name=f.__name__, train={"x": x, "y": y}, losses=f)
        for f in (losses, other_call)
    )
    with pytest.raises(ValueError, match="'losses' and 'other_call' have different losses"):
        capacity.forecast(network(), old=one, new=two, training=PLAN)
    with pytest.raises(ValueError, match="task 'new' has no losses and others have"):
        capacity.forecast(network(), old=one, new=(x, y), training=PLAN)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"losses": 3}, "losses = 3 must be a function of"),
        ({"scores": scores}, "scores needs losses beside it"),
        ({"losses": losses, "loss": "mse"}, "loss and losses; pass one"),
        ({"losses": losses, "outputs": (0,)}, "outputs is for loss"),
    ],
)
def test_options_that_do_not_go_together(options, said):
    with pytest.raises(ValueError, match=said):
        capacity.Task(name="a", train=dict(zip("xy", data(0), strict=True)), **options)
