"""Texts with topics: what is read, how it becomes tasks, and what a pretrained network is."""

from __future__ import annotations

import collections

import pytest
import torch

import capacity
from capacity.networks.models import build_model
from capacity.tasks import build_tasks, docstrings
from capacity.tasks.text_topics import MIXED, TOKENS

pytestmark = pytest.mark.slow  # docstrings of whole packages are read

PRETRAINED = capacity.Model(kind="pretrained", adapter="lora", rank=2)


def stream(**fields):
    return capacity.TaskStream(dataset="text-topics", **fields)


@pytest.fixture(scope="module")
def mixed():
    return build_tasks(stream(scenario="mixed", experiences=5))


def test_every_topic_has_as_many_texts_and_none_twice():
    items = docstrings.snippets()
    assert set(collections.Counter(item.topic for item in items).values()) == {docstrings.MOST}
    for topic in range(len(docstrings.TOPICS)):
        texts = [item.text for item in items if item.topic == topic]
        assert len(set(texts)) == len(texts)
        assert all("\n" not in text and len(text) >= 30 for text in texts)


def test_a_split_deals_the_topics_out():
    tasks = build_tasks(stream(scenario="split", experiences=5, samples=40)).tasks
    assert [task.classes for task in tasks] == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    assert all(len(task.train) == 40 for task in tasks)


def test_mixed_tasks_share_their_texts_and_hold_the_same_out(mixed):
    assert tuple(task.name for task in mixed.tasks) == MIXED
    text, code, shuffled, five, swapped = mixed.tasks
    assert torch.equal(text.test.x, swapped.test.x)
    assert torch.equal(swapped.test.y, text.test.y ^ 1)
    assert five.classes == (5, 6, 7, 8, 9)
    assert torch.equal(code.test.y, text.test.y)
    assert not torch.equal(code.test.x, text.test.x)
    # The same words in another order: the same tokens, where none was cut off.
    whole = text.test.x[:, TOKENS - 1] == 0
    assert torch.equal(
        text.test.x[whole, :TOKENS].sort(1).values[:, -8:],
        shuffled.test.x[whole, :TOKENS].sort(1).values[:, -8:],
    )
    assert text.overlap == 0


def test_another_seed_holds_out_other_texts(mixed):
    other = build_tasks(stream(scenario="mixed", experiences=1, seed=1))[0]
    assert not torch.equal(other.test.x, mixed[0].test.x)


def test_more_tasks_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"experiences = 6 is more than the 5 tasks"):
        build_tasks(stream(scenario="mixed", experiences=6))


def test_an_unknown_tokenizer_is_refused_by_name(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"no tokenizer '.*nothing'"):
        build_tasks(stream(scenario="mixed", experiences=1, tokenizer=str(tmp_path / "nothing")))


def test_a_tokenizer_belongs_to_texts_only():
    with pytest.raises(ValueError, match=r"tasks\.tokenizer = 'minilm' is no option of"):
        build_tasks(capacity.TaskStream(tokenizer="minilm"))


def test_an_adapter_trains_itself_and_the_head_alone():
    model = build_model(PRETRAINED, (64,), 10, seed=0)
    mine = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "classifier" in name for name in mine)
    assert any("classifier" in name for name in mine)
    whole = build_model(capacity.Model(kind="pretrained"), (64,), 10, seed=0)
    assert all(p.requires_grad for p in whole.parameters())


def test_the_seed_draws_the_head_and_nothing_else():
    state = torch.random.get_rng_state()
    one, same, other = (build_model(PRETRAINED, (64,), 10, seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    heads = [
        next(
            p
            for name, p in model.named_parameters()
            if name.endswith("classifier.modules_to_save.default.weight")
        )
        for model in (one, same, other)
    ]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_an_unknown_network_is_refused_by_name(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    section = capacity.Model(kind="pretrained", pretrained=str(tmp_path))
    with pytest.raises(ValueError, match=r"model\.pretrained = .* cannot be loaded"):
        build_model(section, (64,), 10, seed=0)


def test_a_pretrained_network_is_run_forecast_and_reported(tmp_path, quick_run):
    recipe = capacity.Recipe(
        name="texts",
        tasks=stream(scenario="mixed", experiences=2, samples=16, test_fraction=0.02),
        model=PRETRAINED,
        training=capacity.Training(optimizer="adamw", lr=2e-3, epochs=1, batch_size=8),
        replicas=1,
    )
    run = capacity.run(recipe, out=tmp_path / "texts", quiet=True)
    (said,), (seen,) = run.forecasts, run.measured
    drop, measured = said["old"][0]["accuracy_drop"], seen["old"][0]["accuracy_drop"]
    assert drop["value"] is not None
    assert measured["value"] is not None
    assert "docstrings" in run.report().read_text()
