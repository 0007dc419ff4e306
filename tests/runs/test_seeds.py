"""Many seeds of a recipe: each in a process of its own, none of which takes the others down."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import capacity
from capacity.cli import main
from capacity.recipe import config
from capacity.runs.directory import RunDirectory
from capacity.runs.environment import command_line
from capacity.runs.jobs_progress import JobsProgress
from capacity.runs.seed_runs import run_seeds
from capacity.runs.seeds_folder import SeedsFolder, parse_seeds
from forked import forked

pytestmark = pytest.mark.slow

# One task has no transition to measure: what is tested here is who runs when.
LIGHT = ["training.epochs=1", "tasks.experiences=1", "measure.transport=false", "replicas=1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Seeds 0 and 1 run; seed 2 cannot: a directory stands where it wants to write a file."""
    folder = tmp_path_factory.mktemp("seeds") / "out"
    (folder / "seed-2").mkdir(parents=True)
    blocked = recipe().model_copy(update={"seed": 2})
    (folder / "seed-2" / "recipe.yaml").write_text(blocked.to_yaml())
    (folder / "seed-2" / "metrics.jsonl").mkdir()
    with forked():
        return run_seeds(recipe(), range(3), jobs=2, out=folder, quiet=True)


def recipe():
    return config.load("tiny-digits", LIGHT)


def test_seeds_that_work_are_finished_and_one_that_fails_is_reported(made):
    assert {seed: run.status for seed, run in made.runs.items()} == {0: "finished", 1: "finished"}
    assert list(made.failed) == [2]
    assert "cannot be written" in made.failed[2]
    assert RunDirectory.open(made.path / "seed-2").status()["state"] == "failed"


def test_a_seed_gives_what_the_run_alone_gives(made, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = capacity.run(recipe(), seed=1, out=tmp_path / "alone", quiet=True)
    assert alone.result == made.runs[1].result
    assert made.runs[0].result["accuracy"] != made.runs[1].result["accuracy"]


def test_the_command_of_a_seed_is_the_users(made):
    commands = [
        json.loads((run.path / "env.json").read_text())["command"] for run in made.runs.values()
    ]
    assert commands == [command_line()] * 2


def test_finished_seeds_are_not_run_again(made, capsys):
    before = (made.path / "seed-0" / "status.json").read_bytes()
    again = run_seeds(recipe(), [0, 1], out=made.path)
    assert (made.path / "seed-0" / "status.json").read_bytes() == before
    assert sorted(again.runs) == [0, 1]
    said = capsys.readouterr().err
    assert "2 seeds finished already" in said
    assert f"next: capacity compare {made.path}" in said


def test_compare_reads_the_folder(made):
    compared = capacity.compare(made.path)
    assert len(compared.gathered.counted) == 2
    assert "failed" in str(compared)


def test_another_recipe_in_the_folder_is_refused_by_the_field(made):
    other = config.load("tiny-digits", [*LIGHT, "training.lr=0.25"])
    with pytest.raises(ValueError, match=r"training\.lr was 0\.5, is 0\.25"):
        run_seeds(other, [0], out=made.path)


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-3", [0, 1, 2, 3]), ("7", [7]), ("0, 2,5-6", [0, 2, 5, 6])]
)
def test_seeds_are_read_from_text(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "0-", "1,,2", "0-3,2", "1.5", "0-3-5"])
def test_a_wrong_list_of_seeds_is_a_value_error(text):
    with pytest.raises(ValueError, match="seeds"):
        parse_seeds(text)


BAD = {
    "no seeds": ({"seeds": []}, "seeds is empty"),
    "text": ({"seeds": "0-9"}, "is no list"),
    "negative": ({"seeds": [-1]}, "whole number"),
    "jobs": ({"jobs": 0}, "jobs = 0"),
    "device": ({"device": "tpu"}, "device = 'tpu'"),
    "recipe": ({"recipe": "tiny-digit"}, "did you mean 'tiny-digits'"),
    "file": ({"out": __file__}, "is a file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_value_error_before_anything_runs(case, tmp_path):
    changes, message = BAD[case]
    arguments = {"recipe": recipe(), "seeds": [0], "out": tmp_path / "out"} | changes
    with pytest.raises(ValueError, match=message):
        run_seeds(**arguments)
    assert not (tmp_path / "out").exists()


def test_foreign_files_and_a_run_are_no_folder_for_seeds(made, tmp_path):
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="no run"):
        run_seeds(recipe(), [0], out=tmp_path)
    with pytest.raises(ValueError, match="itself a run"):
        run_seeds(recipe(), [0], out=made.path / "seed-0")


def test_custom_tasks_cannot_go_to_another_process():
    own = config.build({"name": "own", "tasks": {"dataset": "custom"}})
    with pytest.raises(ValueError, match="only Python has"):
        run_seeds(own, [0])


@pytest.mark.parametrize(
    "words",
    [
        ["tiny-digits", "--jobs", "2"],
        ["tiny-digits", "seed=3", "--seeds", "0-1"],
        ["tiny-digits", "--seeds", "x"],
    ],
)
def test_mistakes_on_the_command_line_are_one_line(words, capsys):
    assert main(["run", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_resume_goes_on_with_the_seeds_that_are_not_finished(made, tmp_path, capsys):
    folder = shutil.copytree(made.path, tmp_path / "out")
    before = (folder / "seed-0" / "status.json").read_bytes()
    words = ["run", "--resume", str(folder), "--jobs", "2", "--quiet"]
    assert main([*words, "training.lr=0.25"]) == 2
    assert "training.lr was 0.5, is 0.25" in capsys.readouterr().err
    with forked():
        assert main(words) == 1, "a directory still stands where seed 2 wants to write a file"
        (folder / "seed-2" / "metrics.jsonl").rmdir()
        assert main(words) == 0
    assert (folder / "seed-0" / "status.json").read_bytes() == before
    assert capacity.open_run(folder / "seed-2").status == "finished"
    assert SeedsFolder(folder).asked() == [0, 1, 2]


def test_seeds_that_were_not_begun_are_remembered(monkeypatch, tmp_path):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("capacity.runs.job_queue.JobQueue._look", stop)
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(KeyboardInterrupt):
        run_seeds(recipe(), range(4), out=tmp_path / "out", quiet=True)
    assert (tmp_path / "out" / "seed-0").is_dir()
    assert not (tmp_path / "out" / "seed-1").exists()
    assert SeedsFolder(tmp_path / "out").asked() == [0, 1, 2, 3]


@pytest.mark.parametrize("content", ["[]", '{"seeds": [0]}', "{", '{"schema": "capacity/seeds"}'])
def test_a_damaged_list_of_seeds_is_named(content, tmp_path, capsys):
    (tmp_path / "seeds.json").write_text(content)
    assert main(["run", "--resume", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "seeds.json: " in said


def test_a_seed_that_another_process_works_on_is_left_to_it(tmp_path):
    directory = RunDirectory(tmp_path / "out" / "seed-1")
    directory.claim(recipe().model_copy(update={"seed": 1}))
    directory.set_status("running")
    made = run_seeds(recipe(), [1], out=tmp_path / "out", quiet=True)
    assert "is in use by process" in made.failed[1]
    assert directory.status()["state"] == "running"
    directory.release()


def test_a_log_gets_plain_lines_with_the_seed_in_front():
    log = io.StringIO()
    progress = JobsProgress(2, unit="seed", stream=log)
    progress.started("seed 3", 0, 10)
    progress.told("seed 3", 0, "task 1/2 train ...")
    progress.reached(0, 5)
    progress.finished("seed 3", 0, "finished")
    progress.ended(1)
    progress.close()
    assert log.getvalue() == ("seed 3: started\nseed 3: task 1/2 train ...\nseed 3: finished\n")


def test_a_terminal_gets_one_bar_for_all_and_one_per_seed_at_work():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    progress = JobsProgress(4, unit="seed", stream=terminal)
    progress.ended(0)
    progress.started("seed 3", 0, 10)
    progress.reached(0, 5)
    progress.told("seed 3", 0, "task 1/2 train ...")
    progress.finished("seed 3", 0, "finished")
    progress.close()
    shown = terminal.getvalue()
    for said in ("seeds:", "0/4", "seed 3:", "5/10", "task 1/2 train", "seed 3: finished"):
        assert said in shown


def test_ctrl_c_ends_all_and_leaves_readable_runs(tmp_path):
    out = tmp_path / "out"
    words = ["tiny-digits", *LIGHT, "training.epochs=1000000", "--seeds", "0-2", "--jobs", "2"]
    command = [sys.executable, "-m", "capacity.cli", "run", *words, "--out", str(out)]

    def heed() -> None:  # where the tests themselves run in the background, SIGINT is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with (
        forked(),
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed) as process,
    ):
        try:
            deadline = time.monotonic() + 240
            while not all(training(out / f"seed-{k}") for k in (0, 1)):
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline, "training did not start"
                time.sleep(0.1)
            os.kill(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.rstrip().endswith("capacity: interrupted")
    for k in (0, 1):
        assert RunDirectory.open(out / f"seed-{k}").status()["state"] == "interrupted"
    assert not (out / "seed-2").exists()
    rows = [len(RunDirectory(out / f"seed-{k}").metrics()) for k in (0, 1)]
    time.sleep(0.5)
    assert rows == [len(RunDirectory(out / f"seed-{k}").metrics()) for k in (0, 1)], "still at work"
    assert "2 interrupted" in str(capacity.compare(out))


def test_seeds_whose_parent_is_killed_stop_and_can_go_on(tmp_path):
    out = tmp_path / "out"
    words = ["tiny-digits", *LIGHT, "training.epochs=1000000", "--seeds", "0"]
    command = [sys.executable, "-m", "capacity.cli", "run", *words, "--out", str(out)]
    directory = RunDirectory(out / "seed-0")
    with forked(), subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 240
            while not training(directory.path):
                assert process.poll() is None
                assert time.monotonic() < deadline, "training did not start"
                time.sleep(0.1)
        finally:
            process.kill()
    deadline = time.monotonic() + 120
    while directory.busy:
        assert time.monotonic() < deadline, "still at work"
        time.sleep(0.1)
    assert directory.status()["state"] == "interrupted"
    assert SeedsFolder(out).asked() == [0]


def training(path: Path) -> bool:
    return bool(RunDirectory(path).metrics())


def test_a_process_that_dies_is_reported_by_its_signal_or_last_line(tmp_path, monkeypatch):
    for name, body, message in (
        ("killed", "kill -9 $$", "ended by SIGKILL"),
        ("lost", "echo first >&2; echo last words >&2; exit 3", "exit code 3: last words"),
        ("asked", "echo $@ >&2; exit 3", "--device cpu --checkpoint-minutes 0.5"),
    ):
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
        made = run_seeds(
            recipe(),
            [4],
            out=tmp_path / f"{name}-out",
            device="cpu",
            quiet=True,
            checkpoint_minutes=0.5,
        )
        assert made.runs == {}
        assert message in made.failed[4]
