"""Comparisons: what differs is found, means are of finished runs only, mistakes are named."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import yaml
from scipy import stats

import capacity
from capacity.comparison import compared_measures
from capacity.records.estimate import from_samples
from capacity.results import recipe_differences
from report.fabricated_run import write
from report.fabricated_runs import EWC, seeded, two_variants


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return two_variants(tmp_path_factory.mktemp("many"))


@pytest.fixture(scope="module")
def made(runs):
    return capacity.compare(runs)


def summary(made, label):
    variant = next(v for v in made.gathered.variants if v.label == label)
    return compared_measures.of_variant(variant, compared_measures.quantities(made.gathered)[0])


@pytest.mark.slow
def test_variants_are_recipes_without_their_seeds_and_are_named_by_what_differs(made):
    assert {label: len(paths) for label, paths in made.variants.items()} == {"ewc": 3, "naive": 5}
    assert made.differences["training.strategy.name"] == {"ewc": "ewc", "naive": "naive"}
    assert made.differences["training.strategy.strength"] == {"ewc": 10.0, "naive": "–"}
    assert not {"seed", "name", "description"} & set(made.differences)


@pytest.mark.slow
def test_means_are_over_seeds_of_finished_runs_only(made):
    found = summary(made, "naive")
    assert found.value == pytest.approx((0.6 + 0.7 + 0.8) / 3)
    assert found.stderr == pytest.approx(0.1 / math.sqrt(3))
    assert found.n == 3
    assert summary(made, "ewc").n == 2


@pytest.mark.slow
def test_runs_that_did_not_finish_are_shown_as_such(made):
    text = str(made)
    assert "3 of 5 (1 diverged, 1 interrupted)" in text
    assert "2 of 3 (1 interrupted)" in text
    for name, state in (("naive-3", "diverged"), ("naive-4", "interrupted"), ("ewc-2", "interr")):
        assert any(name in line and state in line for line in text.splitlines())


def test_one_run_keeps_its_spread_over_replicas(tmp_path):
    seeded(tmp_path / "a", 0, 0.6)
    made = capacity.compare(tmp_path / "a", seeded(tmp_path / "b", 0, 0.9, **EWC))
    found = summary(made, "ewc")
    assert (found.value, found.stderr, found.n) == (0.9, 0.01, 4)
    assert "over replicas" in made.headline


@pytest.mark.slow
def test_headline_names_the_best_and_whether_it_can_be_told_apart(made, tmp_path):
    assert made.headline.startswith("ewc ends best: final mean accuracy 91.5 ± 0.5 %")
    assert "points, beyond the spread over seeds" in made.headline
    for seed, (a, b) in enumerate([(0.6, 0.65), (0.8, 0.79)]):
        seeded(tmp_path / f"a{seed}", seed, a)
        seeded(tmp_path / f"b{seed}", seed, b, **EWC)
    assert "does not tell the two apart" in capacity.compare(tmp_path).headline


def test_gap_is_welchs():
    a, b = [0.6, 0.7, 0.8], [0.91, 0.95]
    gap = compared_measures.difference(from_samples(b), from_samples(a))
    truth = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.9)
    np.testing.assert_allclose(gap.interval, (truth.low, truth.high), rtol=1e-12)
    assert compared_measures.difference(from_samples([0.5]), from_samples(a)).interval is None


def test_the_same_recipe_and_seed_twice_is_no_second_sample(tmp_path):
    seeded(tmp_path / "a", 0, 0.6)
    seeded(tmp_path / "b", 1, 0.8)
    seeded(tmp_path / "c", 1, 0.8)
    made = capacity.compare(tmp_path)
    assert summary(made, "made up").n == 2
    assert "2 of 3 (1 repeated)" in str(made)


def test_twin_of_a_run_that_did_not_finish_counts(tmp_path):
    seeded(tmp_path / "a", 0, 0.1, "diverged")
    seeded(tmp_path / "b", 0, 0.8)
    assert len(capacity.compare(tmp_path).gathered.counted) == 1


@pytest.mark.slow
def test_course_is_the_mean_over_tasks_so_far(made):
    variant = next(v for v in made.gathered.variants if v.label == "naive")
    course = compared_measures.course(variant, "accuracy")
    # The fabricated accuracy falls by 0.12 per later task from 0.95.
    expected = [0.95, (0.95 + 0.83) / 2, (0.95 + 0.83 + 0.71) / 3]
    np.testing.assert_allclose([e.value for e in course], expected, rtol=1e-12)


def test_a_mean_over_other_tasks_is_not_compared(tmp_path):
    write(tmp_path / "a", "refusals")  # its second task has no inefficiency
    view = capacity.compare(tmp_path / "a").gathered.entries[0].view
    found = compared_measures.mean_inefficiency(view)
    assert found.value is None
    assert "1 of 3" in found.note


def test_regression_is_compared_by_loss(tmp_path):
    write(tmp_path / "a", "regression", seed=1)
    write(tmp_path / "b", "regression", seed=2)
    made = capacity.compare(tmp_path)
    assert "final loss" in str(made)
    assert "accuracy" not in str(made)
    assert "accuracy" not in made.headline


def test_nothing_finished_is_said(tmp_path):
    made = capacity.compare(write(tmp_path / "a", "interrupted"))
    assert made.headline.startswith("No run finished")
    assert made.report(tmp_path / "page.html").is_file()


def test_a_recipe_from_before_a_field_was_added_is_the_same_recipe(tmp_path):
    seeded(tmp_path / "a", 0, 0.6)
    old = seeded(tmp_path / "b", 1, 0.8) / "recipe.yaml"
    fields = yaml.safe_load(old.read_text())
    del fields["measure"]["closure_points"]
    old.write_text(yaml.safe_dump(fields))
    assert len(capacity.compare(tmp_path).gathered.variants) == 1


def test_labels_are_short_unique_and_name_the_first_fields_that_suffice():
    base = {"training.lr": 0.1, "training.epochs": 5, "model.hidden": [64]}
    grid = [base | {"training.lr": lr, "training.epochs": n} for lr in (0.1, 0.2) for n in (5, 9)]
    differ = recipe_differences.differing(grid)
    assert list(differ) == ["training.lr", "training.epochs"]
    assert recipe_differences.labels(differ, 4, "x") == [
        "lr = 0.1, epochs = 5",
        "lr = 0.1, epochs = 9",
        "lr = 0.2, epochs = 5",
        "lr = 0.2, epochs = 9",
    ]
    long = recipe_differences.differing([{"a": "x" * 40 + str(k)} for k in range(30)])
    names = recipe_differences.labels(long, 30, "x")
    assert len(set(names)) == 30
    assert max(map(len, names)) <= 28


@pytest.mark.slow
def test_runs_lists_and_paths_are_taken_alike(runs):
    run = capacity.open_run(runs / "ewc-0")
    made = capacity.compare([run, runs / "naive-0"], str(runs / "naive-1"))
    assert len(made.gathered.entries) == 3


def spoil(name, change):
    def do(folder):
        path = seeded(folder / "run", 0, 0.5) / name
        path.write_text(change(path.read_text()))
        return [folder / "run"]

    return do


def field(**changes):
    return lambda text: json.dumps(json.loads(text) | changes)


BAD = {
    "empty": (lambda folder: [], "runs is empty"),
    "empty list": (lambda folder: [[]], "runs is empty"),
    "no such path": (lambda folder: [folder / "nowhere"], "is no directory"),
    "empty folder": (lambda folder: [folder], "holds no run"),
    "a file": (lambda folder: [__file__], "is no directory"),
    "a number": (lambda folder: [3], "holds a int"),
    "twice": (
        lambda folder: [seeded(folder / "a", 0, 0.5), folder / "a" / ".." / "a"],
        "named twice",
    ),
    "newer schema": (spoil("result.json", field(schema_version=99)), "schema_version 99"),
    "foreign result": (spoil("result.json", field(schema="other")), "not of this program"),
    "cut result": (spoil("result.json", lambda text: text[:100]), "not readable as JSON"),
    "result list": (spoil("result.json", lambda text: "[1]"), "not a JSON object"),
    "recipe list": (spoil("recipe.yaml", lambda text: "- 1"), "not a mapping"),
    "recipe no yaml": (spoil("recipe.yaml", lambda text: "{"), "not readable"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_value_error_that_says_why(case, tmp_path):
    arguments, message = BAD[case]
    given = arguments(tmp_path)
    with pytest.raises(ValueError, match=message):
        capacity.compare(*given)


@pytest.mark.slow
def test_output_that_cannot_be_written_is_a_value_error(made, tmp_path):
    with pytest.raises(ValueError, match="is a directory"):
        made.report(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        made.report(tmp_path / "file" / "page.html")


@pytest.mark.slow
def test_different_tasks_and_machines_are_said(tmp_path):
    seeded(tmp_path / "a", 0, 0.6)
    write(tmp_path / "b", "one_task", seed=1)
    env = tmp_path / "b" / "env.json"
    env.write_text(json.dumps(json.loads(env.read_text()) | {"python": "3.12.0"}))
    page = capacity.compare(tmp_path).report(tmp_path / "page.html").read_text()
    assert "learn different tasks" in page
    assert "different Python: 3.11.7, 3.12.0" in page


def _own(folder, digest, name="mine", loss="1,1"):
    """A run of tasks and a network that only Python has."""
    taken = f"data:d network:{digest} named:n forward:1,1 loss:{loss} slope:1,1"
    tasks = {"dataset": "custom", "fingerprint": taken}
    return seeded(folder, 0, 0.5, tasks=tasks, model={"kind": "custom"}, name=name)


def test_runs_of_one_s_own_are_named_by_what_differs_and_not_by_a_fingerprint(tmp_path):
    for k, digest in enumerate(("aaaa", "bbbb")):
        _own(tmp_path / "called" / str(k), digest, name=f"width {k}")
        _own(tmp_path / "one name" / str(k), digest, loss=f"{k + 1},1")
        _own(tmp_path / "loss" / str(k), "aaaa", loss=f"{k + 1},1")
    made = capacity.compare(tmp_path / "called")
    assert list(made.variants) == ["width 0", "width 1"]
    made = capacity.compare(tmp_path / "one name")
    assert list(made.variants) == ["network 1", "network 2"]
    assert made.differences["tasks.fingerprint"] == {
        "network 1": "network 1",
        "network 2": "network 2",
    }
    assert list(capacity.compare(tmp_path / "loss").variants) == ["loss 1", "loss 2"]
    assert "aaaa" not in made.report(tmp_path / "page.html").read_text()
