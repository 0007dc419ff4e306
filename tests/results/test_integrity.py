"""A file of a run that is not as it was written is never read as if it were."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess

import pytest
import torch
from reliability.corrupt import files_of, flipped

import capacity
from capacity.base.files import (
    as_rows,
    read_bytes,
    seal,
    sweep,
    to_json,
    to_row,
    unseal,
    write_atomically,
)
from capacity.cli import main
from capacity.recipe import config
from capacity.recipe.config import Recipe
from capacity.report.page import read, render
from capacity.results.gather import read_checked
from capacity.results.manifest import Manifest
from capacity.results.reader import RunReader
from capacity.results.recipe_of_result import SCHEMA, SCHEMA_VERSION
from capacity.runs import directory as directories
from capacity.runs import run as runs
from capacity.runs.directory import RunDirectory
from capacity.runs.journal import Journal
from capacity.runs.saving import Summary

RECIPE = config.load("tiny-digits", [
    "tasks.samples=32", "tasks.experiences=2", "model.hidden=[4]", "training.epochs=1",
    "replicas=1", "measure.forecast=false", "measure.capacity=false", "measure.verdicts=false",
    "measure.closure_points=0", "measure.tangents=2", "measure.top_values=2", "measure.sweeps=2",
])  # fmt: skip
FLIPS = 4


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("integrity") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runs.Run, "report", lambda self, _=None: self.path / "report.html")
        return capacity.run(RECIPE, out=path, quiet=True).path


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def bits(path, seed=0):
    size = path.stat().st_size
    # The first and the last bit, too: a brace, and the end of a line.
    return [0, 8 * size - 1, *random.Random(seed).sample(range(8 * size), FLIPS)]


def check_line(error, file):
    text = str(error)
    assert "\n" not in text
    assert file in text
    assert any(way in text for way in ("delete", "restore"))


@pytest.mark.slow
def test_every_flipped_bit_of_a_finished_run_is_refused_by_name(copy):
    names = [name for name in files_of(copy) if name != "report.html"]  # drawn from the others
    assert {"manifest.json", "metrics.parquet", "checkpoints/task1.safetensors"} < set(names)
    for name in names:
        for bit in bits(copy / name):
            with flipped(copy / name, bit):
                with pytest.raises(ValueError, match=r".") as caught:
                    RunReader.open(copy).check()
                check_line(caught.value, name)
                with pytest.raises(ValueError, match=r".") as caught:
                    capacity.resume(copy, quiet=True)
                check_line(caught.value, name)
                if not name.startswith("checkpoints/"):  # which these two do not read
                    with pytest.raises(ValueError, match=r".") as caught:
                        read_checked(copy)
                    check_line(caught.value, name)
    RunReader.open(copy).check()


@pytest.mark.slow
def test_every_flipped_bit_of_the_rows_of_a_run_at_work_is_noticed(tmp_path):
    rows = [{"task": 0, "loss": 0.1 + 0.2, "test": [1e-9, None]}, {"task": 1, "loss": 3.0}]
    content = b"".join(map(to_row, rows))
    path = tmp_path / "metrics.jsonl"
    assert as_rows(path, content, digests=True) == rows
    for bit in range(8 * len(content)):
        path.write_bytes(content)
        with flipped(path, bit), pytest.raises(ValueError, match=r"damaged|not a JSON object"):
            as_rows(path, path.read_bytes(), digests=True)
    assert as_rows(path, content[:-9], digests=True) == rows[:1], "a kill cut the last one short"


@pytest.mark.slow
def test_every_flipped_bit_of_a_record_is_noticed(tmp_path):
    journal = Journal(tmp_path / "journal", Recipe(name="x"))
    journal.put("task0.learned", {"steps": 3, "loss": 0.25}, {"theta": torch.ones(3)})
    assert journal.get("task0.learned").record == {"steps": 3, "loss": 0.25}
    for path in (tmp_path / "journal").iterdir():
        for bit in range(8 * path.stat().st_size):
            with flipped(path, bit), pytest.raises(ValueError, match=r"task0\.learned.*delete"):
                journal.check()


def test_a_sealed_object_is_read_back():
    record = {"a": [1.5, None, "ü"], "b": {"c": 1e-300}}
    assert unseal(seal(record)) == record


@pytest.mark.slow
def test_a_foreign_checkpoint_is_refused(copy, tmp_path):
    other = RunDirectory(tmp_path / "other")
    other.claim(Recipe(name="other"))
    theta = RunReader.open(copy).theta("task0")
    other.write({"checkpoints/task0.safetensors": {"theta": theta + 1.0}})
    foreign = (other.path / "checkpoints" / "task0.safetensors").read_bytes()
    for name in ("task0", "task7"):  # in place of a checkpoint, and beside them
        (copy / "checkpoints" / f"{name}.safetensors").write_bytes(foreign)
        with pytest.raises(ValueError, match=rf"{name}\.safetensors: damaged"):
            RunReader.open(copy).theta(name)
    with pytest.raises(ValueError, match=r"task0\.safetensors: damaged .*restore it"):
        capacity.run(RECIPE, out=copy, quiet=True)


@pytest.mark.slow
def test_a_missing_file_is_missed_and_the_run_measured_again(copy):
    before = (copy / "result.json").read_bytes()
    (copy / "spectra.safetensors").unlink()
    with pytest.raises(ValueError, match=r"spectra\.safetensors: missing; .*--resume"):
        RunReader.open(copy).check()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runs.Run, "report", lambda self, _=None: self.path / "report.html")
        capacity.resume(copy, quiet=True)
    RunReader.open(copy).check()
    assert (copy / "result.json").read_bytes() == before


@pytest.mark.slow
def test_a_run_of_an_earlier_version_is_read_and_called_unverified(copy, finished, tmp_path):
    (copy / "manifest.json").unlink()
    assert not read(copy).verified
    assert "Not verified" in render(copy, tmp_path / "old.html").read_text()
    assert "Not verified" not in render(finished, tmp_path / "new.html").read_text()
    asked = capacity.query("SELECT verified FROM runs ORDER BY run", copy, finished)
    assert asked.rows == [(False,), (True,)]
    page = capacity.compare(copy, finished, output=tmp_path / "both.html")
    assert "1 of 2 runs were written by an earlier version" in (tmp_path / "both.html").read_text()
    assert len(page.gathered.entries) == 2


def numbered(seed):
    empty = dict.fromkeys(("accuracy", "loss", "forgetting", "final", "scores"))
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "seed": seed,
        **empty,
        "name": "x",
        "status": "running",
        "replicas": 1,
        "tasks": [],
        "model": {"description": "", "parameters": 1},
        "transitions": [],
        "phases": [],
    }


@pytest.mark.parametrize("first", [True, False])
def test_a_kill_between_manifest_and_file_leaves_a_readable_run(first, tmp_path, monkeypatch):
    """Both the file that stands and the one that was to come are as announced, and no third."""
    path = tmp_path / "run"
    directory = RunDirectory(path)
    directory.claim(Recipe(name="x"))
    if not first:
        directory.write({"result.json": numbered(1)})

    def die(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(directories, "write_all", die)
        with pytest.raises(KeyboardInterrupt):
            directory.write({"result.json": numbered(2)})
    directory.release()
    assert (path / "result.json").is_file() is not first
    RunReader(path).verify()
    again = RunDirectory(path)
    assert not again.claim(Recipe(name="x"))
    again.write({"result.json": numbered(3)})
    RunReader(path).verify()
    (path / "result.json").write_bytes(to_json(numbered(4)))
    with pytest.raises(ValueError, match=r"result\.json: damaged"):
        RunReader(path).verify()


def test_what_was_replaced_is_forgotten_at_the_next_write(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.claim(Recipe(name="x"))
    for k in range(3):
        directory.write({"result.json": {"a": k}})
    assert len(Manifest(directory.path).listed()["result.json"]) == 2
    directory.settle()
    assert [len(d) for d in Manifest(directory.path).listed().values()] == [1, 1]


def test_folders_are_synced_after_a_rename(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, os.replace

    def fsync(file):
        done.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file")
        sync(file)

    def rename(source, target):
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr("os.fsync", fsync)
    monkeypatch.setattr("os.replace", rename)
    write_atomically(tmp_path / "new" / "file", b"x")
    assert done == ["folder", "file", "rename", "folder"]


@pytest.mark.slow
def test_leftovers_of_dead_processes_go_and_those_of_living_ones_stay(finished, tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    for process in (ended.pid, os.getppid()):
        (tmp_path / f".page.html.{process}.tmp").write_text("half a page")
    (tmp_path / f".other.html.{ended.pid}.tmp").write_text("another one's")
    sweep(tmp_path, "page.html")
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == sorted([f".page.html.{os.getppid()}.tmp", f".other.html.{ended.pid}.tmp"])
    render(finished, tmp_path / "other.html")
    assert [p.name for p in tmp_path.glob(".other*")] == []


def test_the_summary_is_written_ever_more_rarely(tmp_path):
    written = []

    class Directory:
        def set_status(self, _, files):
            written.append(bool(files))

    class Found:
        def result(self, status):
            return {"status": status}

    summary = Summary(Directory(), Found())
    for _ in range(800):
        summary.stage()
    assert all(written[:15]), "a short run is always current"
    last = max(k for k, now in enumerate(written) if now)
    assert 800 - last <= 800 // 16 + 1
    assert sum(written) < 160


@pytest.mark.slow
def test_a_directory_that_is_removed_at_work_is_made_anew(quick_run, tmp_path, monkeypatch, capsys):
    whole = capacity.run(RECIPE, out=tmp_path / "whole", quiet=True)
    path, learn = tmp_path / "run", capacity.runs.execute.Execution._learn

    def remove(self, i):
        if i == 1 and path.is_dir() and not done:
            done.append(shutil.rmtree(path))
        return learn(self, i)

    done = []
    monkeypatch.setattr("capacity.runs.execute.Execution._learn", remove)
    made = capacity.run(RECIPE, out=path)
    assert done == [None]
    assert "was removed while the run went on" in capsys.readouterr().err
    assert made.result == whole.result
    assert RunDirectory(path).metrics() == RunDirectory(whole.path).metrics()
    RunReader.open(path).check()
    assert made.spectra.keys() == whole.spectra.keys()
    assert main(["report", str(path)]) == 0


def test_a_directory_that_another_run_took_meanwhile_is_left_to_it(tmp_path):
    path = tmp_path / "run"
    first, second = RunDirectory(path), RunDirectory(path)
    first.claim(Recipe(name="x"))
    shutil.rmtree(path)
    second.claim(Recipe(name="x"))
    before = read_bytes(path / "manifest.json")
    with pytest.raises(ValueError, match="is in use by process"):
        first.write({"result.json": {}})
    assert read_bytes(path / "manifest.json") == before
    assert not (path / "result.json").exists()
