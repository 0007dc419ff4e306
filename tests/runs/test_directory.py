"""The run directory: readable at any moment, never silently taken over."""

from __future__ import annotations

import duckdb
import pytest

from capacity.base.files import write_atomically
from capacity.recipe.config import Recipe
from capacity.runs.directory import RunDirectory


def test_claim_a_new_directory(tmp_path):
    directory = RunDirectory(tmp_path / "a" / "b")
    assert directory.claim(Recipe(name="x")) is False
    assert directory.recipe() == Recipe(name="x")


def test_another_recipe_is_refused_by_field(tmp_path):
    RunDirectory(tmp_path / "run").claim(Recipe(name="x"))
    with pytest.raises(ValueError, match=r"another recipe \(seed was 0, is 3\)"):
        RunDirectory(tmp_path / "run").claim(Recipe(name="x", seed=3))
    assert RunDirectory.open(tmp_path / "run").recipe().seed == 0


def test_foreign_files_are_refused_and_kept(tmp_path):
    (tmp_path / "thesis.tex").write_text("five years")
    with pytest.raises(ValueError, match="holds files that are no run"):
        RunDirectory(tmp_path).claim(Recipe(name="x"))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        RunDirectory(tmp_path / "out").claim(Recipe(name="x"))


def test_a_finished_run_is_recognised_and_an_interrupted_one_goes_on(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.claim(Recipe(name="x"))
    directory.set_status("interrupted")
    directory.write({"result.json": {}})
    directory.release()
    assert directory.claim(Recipe(name="x")) is False
    directory.release()
    directory.set_status("finished")
    assert directory.claim(Recipe(name="x")) is True


def test_a_broken_recipe_is_an_error(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: [")
    with pytest.raises(ValueError, match="cannot be read"):
        RunDirectory(tmp_path).claim(Recipe(name="x"))


def test_open_needs_a_run(tmp_path):
    with pytest.raises(ValueError, match="is not a run directory"):
        RunDirectory.open(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_metrics_survive_a_cut_line_and_compact(tmp_path):
    directory = RunDirectory(tmp_path)
    first = {"task": 0, "epoch": 0, "step": 0, "test_loss": [1.0, None]}
    second = {"task": 1, "epoch": 0, "step": 4, "test_loss": [0.5, 2.0]}
    directory.append_metrics(first)
    directory.append_metrics(second)
    directory.compact_metrics()
    rows = duckdb.read_parquet(str(tmp_path / "metrics.parquet")).fetchall()
    assert rows == [tuple(first.values()), tuple(second.values())]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"task": 2, "te')
    assert [row["task"] for row in directory.metrics()] == [0, 1]
