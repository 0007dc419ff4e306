"""`measure.strategies`: forecast beside the run's own, ranked, and checked when read."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import capacity
from capacity.recipe import config
from capacity.recipe.config import Measure
from capacity.records.estimate import Estimate
from capacity.runs.directory import RunDirectory
from capacity.runs.run import _usual
from capacity.tasks.streams import as_sequence

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_runs")]

LIGHT = ["measure.transport=false", "measure.verdicts=false", "measure.sensitivity_eps=[]"]
ASKED = (
    "measure.strategies=[naive, {name: ewc, strength: 1, samples: 32}, {name: replay, memory: 40}]"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    recipe = config.load("tiny-digits", [*LIGHT, "tasks.samples=64", ASKED])
    return capacity.run(recipe, out=tmp_path_factory.mktemp("ranked") / "run", quiet=True)


def test_every_strategy_is_forecast_and_the_best_comes_first(made):
    transitions = made.result["transitions"]
    for transition in transitions:
        ranked = transition["by_strategy"]
        names = ["naive", "ewc, strength = 1.0, samples = 32", "replay, memory = 40"]
        assert sorted(entry["name"] for entry in ranked) == sorted(names)
        averages = [Estimate.from_dict(entry["average_accuracy"]).value for entry in ranked]
        assert averages == sorted(averages, reverse=True)
        for entry in ranked:
            assert [cell["task"] for cell in entry["old"]] == list(range(transition["task"]))
            assert set(entry) == {
                "name", "old", "new", "average_accuracy", "average_loss", "cost_ratio"
            }  # fmt: skip
            assert entry["cost_ratio"]["value"] > 0
    # What replay remembers it keeps: the drop on the first task is the least of the three.
    drops = {
        entry["name"]: entry["old"][0]["forecast"]["accuracy_drop"]["value"]
        for entry in transitions[0]["by_strategy"]
    }
    assert min(drops, key=drops.__getitem__) == "replay, memory = 40"
    assert made.forecasts[0]["by_strategy"] == transitions[0]["by_strategy"]


def test_doing_nothing_is_the_forecast_of_the_plain_run(made):
    """Under `naive` the forecast is the run's own, which is naive here."""
    for transition in made.result["transitions"]:
        naive = next(e for e in transition["by_strategy"] if e["name"] == "naive")
        assert naive["new"] == transition["new"]["forecast"]
        for cell, own in zip(naive["old"], transition["old"], strict=True):
            assert cell["forecast"] == own["forecast"]


def test_asking_changes_no_other_number(made, tmp_path):
    recipe = config.load("tiny-digits", [*LIGHT, "tasks.samples=64"])
    plain = capacity.run(recipe, out=tmp_path / "run", quiet=True).result
    asked = copy.deepcopy(made.result)
    assert all(t["by_strategy"] == [] for t in plain["transitions"])
    for transition in asked["transitions"]:
        transition["by_strategy"] = []
    asked["recipe"]["measure"]["strategies"] = []
    assert asked == plain


def test_a_strategy_that_cannot_work_with_the_network_dies_at_the_door(tmp_path):
    x, y = torch.randn(16, 1, 6, 6), torch.arange(16) % 2
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.PReLU())
    model.extend([nn.Flatten(), nn.Linear(32, 2)])
    for strategy in ({"name": "freeze", "parameters": ["nowhere.*"]}, "gpm"):
        measure = Measure(strategies=[strategy])
        with pytest.raises(ValueError, match=r"nowhere|gpm|GPM"):
            capacity.run([(x, y), (x, y)], model=model, measure=measure, out=tmp_path / "run")
        assert not (tmp_path / "run").exists()


BAD = {
    "twice": ("[ewc, ewc]", "strategies holds 'ewc' twice"),
    "needs the past": ("[si]", "strategies holds 'si'"),
    "unknown": ("[ewcc]", "measure.strategies.0.name = 'ewcc'"),
    "unknown option": ("[{name: ewc, strenth: 1}]", "did you mean 'strength'"),
    "foreign option": ("[{name: ewc, memory: 1}]", "memory = 1 is no option of name = 'ewc'"),
    "a number": ("[3]", "measure.strategies.0 = 3"),
    "one": ("ewc", "measure.strategies = 'ewc'"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_strategies_are_one_line(case):
    text, said = BAD[case]
    with pytest.raises(ValueError, match=r".") as caught:
        config.load("tiny-digits", [f"measure.strategies={text}"])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def spoil_name(ranked):
    ranked[0]["name"] = None


def spoil_estimate(ranked):
    ranked[1]["average_loss"] = 0.5


def spoil_status(ranked):
    ranked[0]["old"][0]["forecast"]["loss_increase"]["status"] = "fine"


def leave_out(ranked):
    del ranked[2]["cost_ratio"]


@pytest.mark.parametrize("spoil", [spoil_name, spoil_estimate, spoil_status, leave_out])
def test_a_ranking_that_is_none_is_refused_by_its_place(spoil, made, tmp_path):
    (tmp_path / "recipe.yaml").write_bytes((made.path / "recipe.yaml").read_bytes())
    result = copy.deepcopy(made.result)
    spoil(result["transitions"][0]["by_strategy"])
    (tmp_path / "result.json").write_text(json.dumps(result))
    with pytest.raises(ValueError, match=r"result\.json: transitions\[0\]\.by_strategy\[\d\]\."):
        RunDirectory.open(tmp_path).result()


def test_a_result_of_an_earlier_version_is_read(made, tmp_path):
    (tmp_path / "recipe.yaml").write_bytes((made.path / "recipe.yaml").read_bytes())
    result = copy.deepcopy(made.result)
    for transition in result["transitions"]:
        del transition["by_strategy"]
    (tmp_path / "result.json").write_text(json.dumps(result))
    read = capacity.open_run(tmp_path)
    assert read.forecasts[0]["by_strategy"] == []
    assert read.report().is_file()


def test_runs_that_compare_other_strategies_are_told_apart(made, tmp_path):
    recipe = config.load("tiny-digits", [*LIGHT, "tasks.samples=64", "measure.strategies=[lwf]"])
    other = capacity.run(recipe, out=tmp_path / "run", quiet=True)
    assert "lwf" in str(capacity.compare(made.path, other.path))


def test_tasks_of_ones_own_have_replay_beside_plain_training(tmp_path):
    tasks = [(x := torch.randn(40, 4), (x[:, k] > 0).long()) for k in range(2)]
    how = {"model": nn.Linear(4, 2), "replicas": 1, "quiet": True}
    plan = capacity.Training(lr=0.1, epochs=2)
    run = capacity.run(tasks, training=plan, out=tmp_path / "plain", **how)
    (said,) = run.forecasts
    assert [entry["name"] for entry in said["by_strategy"]] == ["replay"]
    bare = capacity.run(
        tasks, training=plan, measure=Measure(), out=tmp_path / "asked for nothing", **how
    )
    assert bare.forecasts[0]["by_strategy"] == []
    ewc = plan.model_copy(update={"strategy": config.Strategy(name="ewc")})
    other = capacity.run(tasks, training=ewc, out=tmp_path / "ewc", **how)
    assert other.forecasts[0]["by_strategy"] == []
    sequence = as_sequence(tasks)
    first, second = sequence.tasks
    mixed = replace(second, train=replace(second.train, y=second.train.y.int()))
    assert len(_usual(sequence, plan).strategies) == 1
    assert _usual(replace(sequence, tasks=(first, mixed)), plan).strategies == ()
    # Natural gradient's metric knows the outputs of one head, and replay has a say in others.
    heads = replace(sequence, tasks=(first, replace(second, outputs=(0, 1))))
    natural = capacity.Training(optimizer="natural", lr=0.1, epochs=2)
    assert _usual(heads, natural).strategies == ()
    assert len(_usual(heads, plan).strategies) == 1
