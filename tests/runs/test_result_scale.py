"""A long run writes its result many times: what is known already is not worked out anew."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from capacity.networks.evaluate import Score
from capacity.recipe import config
from capacity.runs import result, summary
from capacity.runs.result import Measurements
from capacity.tasks import as_task


def measurements(tasks):
    """A run of `tasks` tasks on two replicas, of which none is learned yet."""
    one = as_task((torch.randn(8, 3), torch.arange(8) % 2))
    sequence = type("Tasks", (list,), {"n_outputs": 2})([one] * tasks)
    model = SimpleNamespace(describe=lambda: "a network", size=3)
    return Measurements(config.load("tiny-digits"), model, sequence, ["not_started"] * tasks)


def learn(made, i):
    """Take scores after task i, as a run does."""
    draw = torch.Generator().manual_seed(i)
    count = len(made.tasks)
    made.capacities[i] = None
    made.scores.append([Score(*torch.rand(2, 2, generator=draw)) for _ in range(count)])
    made.states[i], made.costs[i] = "learned", {}


def test_the_cost_of_a_save_does_not_grow_with_the_saves_before(monkeypatch):
    made, count = measurements(12), 0

    def counted(*args, **kwargs):
        nonlocal count
        count += 1
        return original(*args, **kwargs)

    original = summary.from_samples
    monkeypatch.setattr(summary, "from_samples", counted)
    spent = []
    for i in range(12):
        learn(made, i)
        before = count
        made.result("running")
        spent.append(count - before)
    # last and max, of accuracy and of loss, for each of the i earlier tasks, and the four means
    assert [n - spent[0] for n in spent] == [0, *(4 * i + 2 for i in range(1, 12))]
    before = count
    made.result("running")
    assert count - before == 4


def test_a_result_written_at_every_stage_is_the_one_written_once():
    often, once = measurements(6), measurements(6)
    for i in range(6):
        learn(often, i)
        learn(once, i)
        assert len(often.result("running")["transitions"]) == i
    assert often.result("finished") == once.result("finished")


def test_a_transition_that_was_only_forecast_is_not_kept():
    made = measurements(3)
    learn(made, 0)
    made.capacities[1] = None
    assert made.result("running")["transitions"][0]["old"][0]["measured"] is None
    learn(made, 1)
    assert made.result("running")["transitions"][0]["old"][0]["measured"] is not None


@pytest.mark.parametrize("learned", [0, 1, 4])
@pytest.mark.parametrize("sign", [1, -1])
def test_forgetting_is_that_of_the_definition(learned, sign):
    scores = np.random.default_rng(0).normal(size=(learned, 4, 3))
    if learned:
        scores[-1, 0, 0] = np.nan
    made = summary.forgetting(scores, sign=sign)
    for i in range(learned):
        for j in range(4):
            own, now = sign * scores[: i + 1, j], sign * scores[i, j]
            last = own[j] - now if j < i else np.full(3, np.nan)
            best = own[j:].max(axis=0) - now if j < i else np.full(3, np.nan)
            np.testing.assert_array_equal(made["last"][i, j], last)
            np.testing.assert_array_equal(made["max"][i, j], best)


def test_estimates_are_written_in_the_order_of_their_fields():
    record = result.NO_ACCURACY.to_dict()
    assert list(record) == ["value", "stderr", "status", "interval", "level", "n", "cost", "note"]
