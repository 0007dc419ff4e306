"""Files are written whole, what killed processes left is swept, and large objects are in lines."""

from __future__ import annotations

import json
import subprocess

import pytest

import capacity
from capacity.base.files import parse_json, sweep, to_lines
from capacity.runs.directory import RunDirectory
from capacity.runs.seeds_folder import SeedsFolder
from report.fabricated_run import write


@pytest.mark.slow
def test_leftovers_of_killed_comparisons_and_studies_go(tmp_path):
    run = write(tmp_path / "run")
    ended = subprocess.Popen(["true"])
    ended.wait()
    study = SeedsFolder(tmp_path / "study")
    study.path.mkdir()
    leftovers = [
        tmp_path / f".page.html.{ended.pid}.tmp",
        study.path / f".seeds.json.{ended.pid}.tmp",
        study.path / f".{study.recipe_path.name}.{ended.pid}.tmp",
    ]
    for path in leftovers:
        path.write_text("half a file")
    capacity.compare(run, output=tmp_path / "page.html")
    study.begin(RunDirectory(run).recipe(), [0])
    assert not any(path.exists() for path in leftovers)


def test_a_sweep_takes_folders_and_follows_no_link(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    kept, made = tmp_path / "kept", tmp_path / "made"
    for folder in (kept, made / f".part.a.{ended.pid}.tmp"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    (made / f".part.b.{ended.pid}.tmp").symlink_to(kept)
    sweep(made, "part")
    assert not list(made.iterdir())
    assert (kept / "file").is_file()


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"name": "x", "empty": [], "none": None, "half": "\ud800", "lines": "a\n", "é": "日"},
        {"a": [[1.5, None, {"b": [True, {}]}], []], "c": {"d": {"e": {"f": {"g": [1, 2]}}}}},
    ],
)
def test_a_large_object_is_written_in_lines_and_read_as_it_was(record):
    assert parse_json(to_lines(record)) == record
    assert to_lines(record).endswith(b"}\n")


def test_lines_of_a_large_object_are_indented_at_its_first_levels():
    cell = {"value": 0.5, "notes": ["x"]}
    lines = to_lines({"rows": [{"old": [cell, cell]}], "n": 1}).decode().splitlines()
    said = json.dumps(cell)
    shown = ["{", ' "rows": [', "  {", '   "old": [', f"    {said},", f"    {said}"]
    assert lines == [*shown, "   ]", "  }", " ],", ' "n": 1', "}"]


def test_no_number_of_a_large_object_is_other_than_json_has():
    with pytest.raises(ValueError, match="Out of range float"):
        to_lines({"a": [[[[[float("nan")]]]]]})
