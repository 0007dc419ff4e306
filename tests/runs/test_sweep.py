"""A grid of recipes and seeds: which runs it has, and what becomes of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import capacity
from capacity.cli import main
from capacity.recipe import config
from capacity.runs.sweep import STATES, Sweep
from capacity.runs.sweep_grid import parse_grid, recipes_of_grid
from forked import forked

LIGHT = ["training.epochs=1", "tasks.experiences=1", "measure.transport=false", "replicas=1"]
FIXED = {name: [value] for name, _, value in (word.partition("=") for word in LIGHT)}


def test_commas_inside_brackets_and_quotes_belong_to_a_value():
    grid = parse_grid(["a.b=1, 2", "c=[x,y],[x]", "d={p: [1,2]}", "e='u,v',w"])
    assert grid == {
        "a.b": ["1", "2"], "c": ["[x,y]", "[x]"], "d": ["{p: [1,2]}"], "e": ["'u,v'", "w"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["training.lr"], "is no field with values"),
        (["training.lr=0.1,"], "is no field with values"),
        (["=1"], "is no field with values"),
        (["a=1", "a=2"], "'a' is named twice"),
        (["a=1,2,1"], "a has the value 1 twice"),
        (["seed=1,2"], "--seeds 0-9"),
    ],
)
def test_a_grid_that_is_none_is_refused(words, said):
    with pytest.raises(ValueError, match=said):
        parse_grid(words)


def test_every_combination_is_one_run_named_by_what_differs():
    grid = parse_grid(["training.lr=0.1,0.2", "model.hidden=[8],[8,8]", "replicas=1"])
    recipes = recipes_of_grid("tiny-digits", grid, [0, 3])
    assert len(recipes) == 8
    plain = recipes_of_grid("tiny-digits", {"training.lr": ["0.1", "0.2"]}, [3])
    assert list(plain) == ["lr=0.1,seed=3", "lr=0.2,seed=3"]
    assert [(r.training.lr, r.seed) for r in plain.values()] == [(0.1, 3), (0.2, 3)]
    for label, recipe in recipes.items():
        assert f"seed={recipe.seed}" in label
        assert recipe.replicas == 1
        assert "replicas" not in label
        assert "/" not in label
        assert "[" not in label


def test_a_field_that_is_called_as_the_seeds_are_is_named_in_full():
    grid = parse_grid(["tasks.seed=0,1"])
    labels = list(recipes_of_grid("tiny-digits", grid, [5]))
    assert labels == ["tasks.seed=0,seed=5", "tasks.seed=1,seed=5"]


def test_a_sweep_of_too_many_runs_is_refused_before_anything_is_built():
    with pytest.raises(ValueError, match=r"100000000 runs, more than 10000; .* --yes"):
        recipes_of_grid("tiny-digits", {"replicas": ["1"] * 10**4}, range(10**4))


def test_one_wrong_recipe_of_a_grid_stops_all(tmp_path):
    with pytest.raises(ValueError, match=r"training\.lr"):
        capacity.sweep("tiny-digits", {"training.lr": ["0.1", "-1"]}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_sweep_is_refused(tmp_path, capsys):
    assert main(["sweep", "--status", str(tmp_path)]) == 2
    assert "holds no sweep" in capsys.readouterr().err
    (tmp_path / "sweep.json").write_text(json.dumps({"schema": "capacity/sweep"}))
    assert main(["sweep", "--resume", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "sweep.json" in said


def test_a_command_says_what_goes_with_what(capsys, tmp_path):
    assert main(["sweep"]) == 2
    assert "recipe is missing" in capsys.readouterr().err
    assert main(["sweep", "tiny-digits", "--status", str(tmp_path)]) == 2
    assert "pass one of them alone" in capsys.readouterr().err


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two rates and two seeds; one of the four cannot run, as a directory is in its way."""
    folder = tmp_path_factory.mktemp("sweep") / "out"
    grid = {"training.lr": ["0.1", "0.5"], **FIXED}
    recipe = recipes_of_grid("tiny-digits", grid, [1])["lr=0.5,seed=1"]
    blocked = folder / "lr=0.5,seed=1"
    blocked.mkdir(parents=True)
    (blocked / "recipe.yaml").write_text(recipe.to_yaml())
    (blocked / "metrics.jsonl").mkdir()
    with forked():
        return capacity.sweep(
            "tiny-digits", grid, seeds=[0, 1], jobs=2, out=folder, quiet=True, report=False
        )


@pytest.mark.slow
def test_one_run_that_fails_does_not_end_the_others(made):
    assert made.counts == {**dict.fromkeys(STATES, 0), "finished": 3, "failed": 1}
    assert "lr=0.5,seed=1" in str(made)
    assert list(made.runs) == ["lr=0.1,seed=0", "lr=0.1,seed=1", "lr=0.5,seed=0"]


@pytest.mark.slow
def test_a_run_of_a_sweep_is_the_run_alone(made, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    recipe = config.load("tiny-digits", [*LIGHT, "training.lr=0.5"])
    alone = capacity.run(recipe, seed=0, out=tmp_path / "alone", quiet=True)
    assert alone.result == made.runs["lr=0.5,seed=0"].result


@pytest.mark.slow
def test_status_says_what_is_done_and_retry_runs_what_failed_again(made, capsys):
    assert main(["sweep", "--status", str(made.path)]) == 0
    assert "3 finished" in capsys.readouterr().out
    results = {label: run.path / "result.json" for label, run in made.runs.items()}
    before = {label: path.stat().st_mtime_ns for label, path in results.items()}
    (made.path / "lr=0.5,seed=1" / "metrics.jsonl").rmdir()
    assert main(["sweep", "--resume", str(made.path), "--quiet"]) == 1
    assert Sweep.open(made.path).counts["failed"] == 1  # a failure is kept until it is asked for
    with forked():
        assert main(["sweep", "--retry", str(made.path), "--quiet"]) == 0
    assert Sweep.open(made.path).counts["finished"] == 4
    assert not list(made.path.glob("*/report.html"))  # as it was begun
    for label, stamp in before.items():
        assert results[label].stat().st_mtime_ns == stamp


@pytest.mark.slow
def test_another_sweep_or_recipe_in_the_folder_is_refused(made):
    with pytest.raises(ValueError, match="holds another sweep"):
        capacity.sweep("tiny-digits", {"training.lr": ["0.7"]}, out=made.path, quiet=True)
    with pytest.raises(ValueError, match="a sweep of another recipe"):
        capacity.sweep("split-digits", made.grid, seeds=made.seeds, out=made.path, quiet=True)


@pytest.mark.slow
def test_nothing_is_lost_when_the_submitting_process_is_killed(tmp_path):
    """With interpreters of their own, as a user's shell and the queue start them."""
    out = tmp_path / "out"
    words = [
        sys.executable, "-m", "capacity.cli", "sweep", "tiny-digits", "training.lr=0.1,0.5",
        "training.epochs=40", *LIGHT[1:], "--seeds", "0", "--out", str(out), "--quiet",
    ]  # fmt: skip
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 240
        while not (out / "lr=0.1,seed=0" / "metrics.jsonl").is_file():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline, "training did not start"
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    killed = Sweep.open(out)
    assert killed.counts["left"] >= 1
    while "running" in killed.states.values() and time.monotonic() < deadline:
        time.sleep(0.2)  # its worker notices that nobody waits for it
    with forked():
        assert main(["sweep", "--resume", str(out), "--quiet"]) == 0
    assert Sweep.open(out).counts["finished"] == 2
