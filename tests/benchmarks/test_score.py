"""The scored grid of `benchmarks/forecast/score.py`: its design, its files, its scores."""

from __future__ import annotations

import importlib
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import capacity

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "benchmarks" / "forecast"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.fixture
def design():
    return importlib.import_module("score_design")


@pytest.fixture
def truth():
    return importlib.import_module("score_truth")


@pytest.fixture
def scores():
    return importlib.import_module("score_scores")


def test_the_grid_has_what_it_promises(design):
    units = design.units("full")
    assert [u.key for u in units] == [u.key for u in design.units("full")]
    assert len({u.key for u in units}) == len(units)
    assert sum(u.transitions for u in units) >= 300
    counts = {
        field: Counter(getattr(u, field) for u in units)
        for field in ("network", "optimizer", "epochs", "seed")
    }
    assert set(counts["network"]) == set(design.NETWORKS)
    assert set(counts["optimizer"]) == {"sgd", "momentum", "adam"}
    assert len(counts["epochs"]) == 3
    assert len(counts["seed"]) == 5
    assert sum(n for epochs, n in counts["epochs"].items() if epochs >= 20) > len(units) / 2
    families = {u.stream.family for u in units}
    assert families >= {"permuted", "labels", "rotated", "noise", "split", "heads", "sequence"}
    assert len(design.strategies()) == 6
    assert 60 <= sum(u.compared for u in units) <= len(units) / 2
    assert {u.key for u in design.units("small")} <= {u.key for u in units}


def test_halves_share_no_pair_and_no_pair_is_one_of_the_development(design):
    part = design.part_of()
    names = {stream.name: stream.family for stream in design.pairs()}
    assert set(part) == set(names)
    second = {stream.name for stream in design.drawn()}
    for family in set(names.values()):
        halves = Counter(part[name] for name in names if names[name] == family and name in second)
        assert abs(halves["development"] - halves["held-out"]) <= 1
    # What was looked at before the second set was drawn, and the corpus's own, is never held out.
    assert {part[name] for name in set(names) - second} == {"development"}
    cells = importlib.import_module("criterion_cells")
    # An amount of noise or an angle is a pair; splits and draws are named in full.
    assert not set(names) & {stream.name for stream in cells.streams()}


def test_sequences_have_ten_tasks_that_fit_their_networks(design):
    for unit in design.units("small"):
        tasks = unit.stream.build()
        model = design.flat_network(unit)
        assert len(tasks) == unit.transitions + 1
        assert len({task.name for task in tasks}) == len(tasks)
        for task in tasks:
            task.check_outputs(model.outputs(model.initial(), task.train.x[:2]).shape[-1])


def smallest(design, monkeypatch, count: int = 2):
    monkeypatch.setattr(design, "FIRST_EPOCHS", 1)
    units = [u for u in design.units("full") if u.network.startswith("mlp 24") and not u.compared]
    return [u for u in units if u.epochs == 10 and u.transitions == 1][:count]


def test_a_stopped_truth_goes_on_where_it_was(design, truth, monkeypatch, tmp_path):
    units = smallest(design, monkeypatch)
    measure, asked = truth.measure, []

    def counting(cache, unit):
        if len(asked) == 1:
            raise KeyboardInterrupt
        asked.append(unit.key)
        measure(cache, unit)

    monkeypatch.setattr(truth, "measure", counting)
    with pytest.raises(KeyboardInterrupt):
        truth.truth(tmp_path, units, jobs=1)
    first = truth.place(tmp_path, units[0], "truth").with_suffix(".json").read_bytes()
    assert truth.known(tmp_path, units[1]) is None
    monkeypatch.setattr(truth, "measure", measure)
    truth.truth(tmp_path, units, jobs=1)
    assert truth.place(tmp_path, units[0], "truth").with_suffix(".json").read_bytes() == first
    assert not list(tmp_path.rglob("*.part"))
    found = truth.known(tmp_path, units[1])
    (cell,) = found.record["cells"]
    assert found.theta.shape == found.after.shape == (1, found.record["parameters"])
    assert cell["drop"][0] != cell["drop"][1]


def test_columns_are_filled_once_and_again_when_asked(design, truth, monkeypatch, tmp_path):
    units = smallest(design, monkeypatch, 1)
    truth.truth(tmp_path, units, jobs=1)
    predict = importlib.import_module("score_predict")
    asked = []

    def ask(moment):
        asked.append(moment.unit.key)
        return predict._engine(moment)

    monkeypatch.setitem(predict.COLUMNS, "engine", lambda _: ask)
    for again, count in ((False, 1), (False, 1), (True, 2)):
        predict.predictions(tmp_path, units, ["engine"], jobs=1, again=again)
        assert len(asked) == count
    (said,) = predict.column(tmp_path, units[0], "engine")
    assert said["cost"] <= 0.05
    assert math.isfinite(said["drop"])
    assert predict.column(tmp_path, units[0], "baselines") is None
    # What `capacity.forecast` says is what is scored, its correction included.
    tasks, module = units[0].stream.build(), design.network(units[0].network, units[0].seed)
    point = truth.known(tmp_path, units[0]).theta[0]
    torch.nn.utils.vector_to_parameters(point, module.parameters())
    public = capacity.forecast(
        module, old=tasks[0], new=tasks[1], training=units[0].training, budget=0.05,
        seed=units[0].seed, device="cpu",
    )  # fmt: skip
    half = design.part_of()[units[0].stream.name]
    (cell,) = importlib.import_module("score_cells").collect(tmp_path, units, correct=half)
    assert cell["said"]["engine"]["drop"] == said["drop"]
    # The short first training leaves an old task that no transition of the corpus began with.
    assert public.accuracy_drop.status == "uncalibrated"
    assert "spreads away" in public.accuracy_drop.note
    found = cell["said"]["forecast"]
    for name, value in (
        ("drop", public.accuracy_drop), ("rise", public.loss_increase),
        ("new_accuracy", public.new_accuracy), ("new_loss", public.new_loss),
        ("average_accuracy", public.average_accuracy),
    ):  # fmt: skip
        assert value.value == pytest.approx(found[name], rel=1e-6), name
    assert found["drop"] == said["drop"], "outside, nothing is corrected"
    assert importlib.import_module("score_causes").worst([cell])


def test_of_the_development_half_a_column_is_asked_for_what_it_is_needed_for(design):
    predict = importlib.import_module("score_predict")
    part, units = design.part_of(), design.units("full")
    for name, count in (("engine", None), ("baselines", 100), ("simulation", 0)):
        asked = predict.asked_of(units, name)
        halves = Counter(part[unit.stream.name] for unit in asked)
        held_out = sum(part[unit.stream.name] == "held-out" for unit in units)
        assert halves["held-out"] == held_out
        assert halves["development"] == (len(units) - held_out if count is None else count)


def test_scores_by_hand(scores):
    measured = np.array([0.0, 0.1, 0.2, 0.5])
    assert scores.r_squared(measured, measured) == 1
    assert scores.r_squared(np.full(4, 0.2), measured) == pytest.approx(0)
    assert scores.r_squared(measured + 0.1, measured) == pytest.approx(1 - 0.04 / 0.14)
    assert math.isnan(scores.r_squared(measured, np.ones(4)))
    assert scores.forgets(np.array([1.0, 0.0, 2.0, 3.0]), measured) == pytest.approx(2 / 3)
    assert scores.line(np.array([1.0, 2.0, np.nan]), np.array([3.0, 5.0, 0.0]))[1] == 4.0
    slope, offset = scores.line(np.array([1.0, 2.0, 3.0]), np.array([3.0, 5.0, 7.0]))
    assert (slope, offset) == pytest.approx((2, 1))


def cells_of(drops):
    return [{"stream": f"pair {k // 2}", "drop": d, "rise": d} for k, d in enumerate(drops)]


def test_what_a_predictor_does_not_say_is_not_scored(scores):
    cells, kind = cells_of([0.0, 0.1, 0.2, 0.5, 0.9, 0.3]), scores.KINDS[0]
    said = np.array([0.0, 0.1, 0.2, 0.5, np.nan, 0.3])
    n, value, (low, high) = scores.scored(cells, said, kind)
    assert (n, value) == (5, 1.0)
    assert (low, high) == (1.0, 1.0)


def test_a_paired_difference_knows_the_better_one(scores):
    source = np.random.default_rng(0)
    cells = cells_of(source.uniform(size=60))
    drop = np.array([cell["drop"] for cell in cells])
    good, bad = (drop + scale * source.standard_normal(60) for scale in (0.02, 0.2))
    n, value, (low, high) = scores.difference(cells, good, bad, scores.KINDS[0])
    assert n == 60
    assert 0 < low < value < high
    assert scores.difference(cells, good, good, scores.KINDS[0])[1:] == (0.0, (0.0, 0.0))


def test_naming_counts_what_is_within_two_points(scores):
    cells = [
        {"strategies": {"a": 0.90, "b": 0.89, "c": None}},
        {"strategies": {"a": 0.50, "b": 0.80, "c": 0.7}},
    ]
    assert scores.naming(cells, lambda cell: "b") == (2, 1.0, pytest.approx(0.5))
    assert scores.naming(cells, lambda cell: "a") == (2, 0.5, pytest.approx(15))
    assert scores.naming(cells, lambda cell: "c")[1] == 0.0


def test_the_saved_table_is_of_the_half_that_was_held_out(design):
    saved = json.loads((FOLDER / "results" / "score.json").read_text())
    assert saved["half"] == "held-out"
    part = design.part_of()
    place = {name: k for k, name in enumerate(saved["columns"])}
    # What an earlier engine was scored on has been looked at, and is never held out again.
    wanted = "development" if "earlier engine" in saved.get("note", "") else "held-out"
    assert {part[row[place["stream"]]] for row in saved["rows"]} == {wanted}
    scores = importlib.import_module("score_scores")
    long = [row for row in saved["rows"] if row[place["epochs"]] >= 20]
    said, drop = (
        np.array([np.nan if row[place[name]] is None else row[place[name]] for row in long], float)
        for name in ("engine drop", "drop")
    )
    have = np.isfinite(said)
    shown = saved["scores"]["engine"]["R2 drop"][0]
    assert scores.r_squared(said[have], drop[have]) == pytest.approx(shown, abs=2e-3)


def test_the_shipped_corpus_is_of_the_development_half(design):
    from capacity.forecasting.shipped import shipped

    part = design.part_of()
    assert {part[row["pair"]] for row in shipped().rows} == {"development"}
