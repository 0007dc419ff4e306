"""Batches of several tensors lie in the rows of one, and come out as they were."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import capacity
from capacity.tasks.alignment import aligned
from capacity.tasks.batches import lay_out
from capacity.tasks.tensors import as_task

IDS = torch.arange(1, 41).reshape(10, 4) % 7
MASK = torch.tensor([[1, 1, 1, 0]]).expand(10, 4)
LABELS = torch.arange(10) % 2
DATA = {"input_ids": IDS, "attention_mask": MASK, "labels": LABELS}


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.out = nn.Embedding(8, 5), nn.Linear(5, 2)

    def forward(self, input_ids, attention_mask, scale=None):
        seen = self.words(input_ids) * attention_mask[..., None]
        made = self.out(seen.sum(1) / attention_mask.sum(1, keepdim=True))
        return {"loss": None, "logits": made if scale is None else made * scale}


class Samples(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, k):
        return {name: part[k] for name, part in DATA.items()}


@pytest.mark.parametrize(
    "dtypes",
    [
        (torch.int64, torch.bool),
        (torch.float32, torch.int64),
        (torch.float16, torch.float64),
        (torch.float32, torch.float32),
    ],
)
def test_every_field_comes_out_exactly(dtypes):
    batch = {"a": torch.randn(6, 3, 2) * 50, "b": (torch.randn(6) * 1e3, [torch.randn(6, 1)])}
    batch = {
        "a": batch["a"].to(dtypes[0]),
        "b": (batch["b"][0].to(dtypes[1]), [batch["b"][1][0].to(dtypes[0])]),
    }
    rows, layout = lay_out("data", [batch])
    out = layout.unpack(rows[None, 2:])
    assert torch.equal(out["a"][0], batch["a"][2:])
    assert torch.equal(out["b"][0][0], batch["b"][0][2:])
    assert torch.equal(out["b"][1][0][0], batch["b"][1][0][2:])


@pytest.mark.parametrize("left", [False, True])
def test_shorter_batches_are_filled_up_as_their_masks_say(left):
    ids = torch.tensor([[5, 6, 9], [7, 9, 9]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    if left:
        ids, mask = ids.flip(1), mask.flip(1)
    short = {"input_ids": ids, "attention_mask": mask}
    long = {"input_ids": torch.ones(1, 5).long(), "attention_mask": torch.ones(1, 5).long()}
    rows, layout = lay_out("data", [short, long])
    out = layout.unpack(rows)
    own, more = (slice(2, 5), slice(0, 2)) if left else (slice(0, 3), slice(3, 5))
    assert torch.equal(out["input_ids"][:2, own], ids)
    assert bool((out["input_ids"][:2, more] == 9).all())
    assert not bool(out["attention_mask"][:2, more].any())


def test_tasks_of_other_lengths_are_laid_out_alike():
    short = as_task(DATA, name="short")
    longer = {name: torch.cat([t, t], 1) if t.dim() > 1 else t for name, t in DATA.items()}
    one, two = aligned([short, as_task(longer, name="long")])
    assert one.train.x.shape[1:] == two.train.x.shape[1:] == (16,)
    assert one.layout == two.layout
    out = one.layout.unpack(one.train.x)
    assert torch.equal(out["attention_mask"].sum(1), torch.full((len(one.train),), 3))


FORMS = {
    "mapping": lambda: DATA,
    "pair": lambda: ({k: v for k, v in DATA.items() if k != "labels"}, LABELS),
    "data set of mappings": Samples,
    "list of mappings": lambda: [Samples()[k] for k in range(10)],
    "loader": lambda: DataLoader(Samples(), batch_size=4),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_same_data_give_the_same_forecast(form):
    plan = capacity.Training(lr=0.5, epochs=50, batch_size=4)
    new = ({"input_ids": IDS.flip(0), "attention_mask": MASK}, LABELS)
    own = capacity.forecast(Reader(), old=FORMS[form](), new=new, training=plan)

    class Packed(Reader):
        def forward(self, x):
            return super().forward(x[:, :4], x[:, 4:])["logits"]

    def packed(ids):
        return torch.cat([ids, MASK], 1), LABELS

    same = capacity.forecast(Packed(), old=packed(IDS), new=packed(IDS.flip(0)), training=plan)
    assert own.old[0].loss_increase.value == same.old[0].loss_increase.value


@pytest.mark.slow
def test_a_label_per_token_has_a_loss_and_an_accuracy():
    model = nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 7))
    shifted = torch.where(MASK == 1, (IDS + 1) % 7, -100)
    plan = capacity.Training(lr=0.5, epochs=50, batch_size=4)
    task = capacity.hold_out((IDS, shifted), share=0)
    made = capacity.forecast(
        model, old=task, new=(IDS, (IDS + 2) % 7), training=plan, budget=float("inf")
    )
    assert made.old[0].loss_increase.value > 0
    # Both tasks cannot be known by one table: what was right of the old one is lost.
    assert made.old[0].accuracy_drop.status.value == "ok"
    assert -1 <= made.old[0].accuracy_drop.value <= 1
    assert made.new_accuracy.value > 0.9


REFUSED = {
    "no labels": ({"input_ids": IDS}, "needs inputs and targets, these under one of labels"),
    "text": ({"text": ["a"] * 10, "labels": LABELS}, "tokenise it first"),
    "text labels": ((torch.randn(3, 2), np.array(["a", "b", "a"])), "number them"),
    "counts": ({"a": IDS, "b": MASK[:4], "labels": LABELS}, "differing numbers of samples"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_batch_is_refused(case):
    data, said = REFUSED[case]
    with pytest.raises(ValueError, match=said):
        as_task(data)


def test_batches_of_other_kinds_do_not_mix():
    with pytest.raises(ValueError, match="different kinds"):
        capacity.forecast(Reader(), old=DATA, new=(IDS, LABELS))


def test_the_tracker_follows_batches_of_several_tensors():
    """J of a step on them is that of the same step on one tensor."""

    class Packed(Reader):
        def forward(self, x):
            return super().forward(x[:, :4], x[:, 4:])["logits"]

    inputs = {"input_ids": IDS, "attention_mask": MASK}
    logs = []
    for model, x in ((Reader(), inputs), (Packed(), torch.cat([IDS, MASK], 1))):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        tracker = capacity.TransportTracker(model, "cross_entropy", optimizer, tangents=4)
        for _ in range(2):
            tracker.backward(x, LABELS)
            optimizer.step()
        logs.append(tracker.spectrum().singular_values[0].value)
        shorter = {name: part[:, :3] for name, part in inputs.items()}
        with pytest.raises(ValueError, match="pad every batch alike"):
            tracker.observe(shorter, LABELS)
    assert logs[0] == logs[1]


def test_all_strategies_are_those_that_know_the_network():
    plan = capacity.Training(lr=0.5, epochs=50, batch_size=4)
    new = ({"input_ids": IDS.flip(0), "attention_mask": MASK}, LABELS)
    with pytest.warns(UserWarning, match="leaves gpm out.*Embedding"):
        made = capacity.forecast(Reader(), old=DATA, new=new, training=plan, strategies="all")
    assert {"ewc", "replay", "lwf"} <= set(made.by_strategy)
    assert "gpm" not in made.by_strategy
