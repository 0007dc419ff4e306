"""A comparison of very many runs: nothing is kept that is not shown, and nothing shown is lost."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

import capacity
from capacity.base import files
from capacity.comparison.comparison_page import to_html
from capacity.results import query, reader, summary_file
from capacity.results.gather import read_checked, run_directories
from capacity.results.manifest import Manifest
from capacity.results.run_summary import summarised
from capacity.runs.directory import RunDirectory
from report.fabricated_run import write
from report.fabricated_runs import seeded, two_variants

pytestmark = pytest.mark.slow


@pytest.fixture
def runs(tmp_path):
    folder = two_variants(tmp_path / "runs")
    write(folder / "stopped", "stopped_early")
    return folder


def test_the_page_of_summaries_is_the_page_of_whole_runs(runs, monkeypatch):
    short = capacity.compare(runs)
    monkeypatch.setattr(summary_file, "summarised", lambda view: view)
    whole = capacity.compare(runs)
    assert str(short) == str(whole)
    assert to_html(short.gathered) == to_html(whole.gathered)


@pytest.mark.parametrize("case", ["regression", "stopped_early"])
def test_other_kinds_of_runs_lose_nothing_either(case, tmp_path, monkeypatch):
    folder = write(tmp_path / "a", case)
    short = to_html(capacity.compare(folder).gathered)
    monkeypatch.setattr(summary_file, "summarised", lambda view: view)
    assert short == to_html(capacity.compare(folder).gathered)


def test_what_is_kept_of_a_run_does_not_grow_with_pairs_of_tasks(runs):
    view = read_checked(runs / "naive-0")
    kept = summarised(view)
    assert max(len(t["old"]) for t in view.transitions) > 1
    assert {len(t["old"]) for t in kept.transitions} == {1}
    assert not kept.rows
    assert len(json.dumps(kept.result)) < len(json.dumps(view.result)) / 3


def test_every_file_of_every_run_is_read_and_parsed_once(runs, monkeypatch):
    (path, *_) = folders = run_directories([runs])
    RunDirectory(path).compact_metrics()
    for folder in folders:
        Manifest(folder).begin([file.name for file in folder.iterdir()])
    read, parsed = Counter(), Counter()
    take, understand = files.read_bytes, files.parse_json

    def counted_read(file, remedy=""):
        read[file] += 1
        return take(file, remedy)

    def counted_parse(content):
        parsed[content] += 1
        return understand(content)

    monkeypatch.setattr(files, "parse_json", counted_parse)
    monkeypatch.setattr(reader, "read_bytes", counted_read)
    assert read_checked(path).verified
    written = {file for file in path.iterdir() if file.is_file()} - {path / Manifest.NAME}
    assert {file for file in read if file.is_file()} == written
    assert {read[file] for file in written} == {1}
    result = (path / "result.json").read_bytes()
    rows = (path / "metrics.jsonl").read_bytes().splitlines()
    assert {parsed[content] for content in (result, *rows)} == {1}


def test_tables_are_the_same_whatever_moves_into_the_database_at_once(runs, monkeypatch):
    usual = capacity.load_runs(runs)
    monkeypatch.setattr(query, "_AT_ONCE", 1)
    single = capacity.load_runs(runs)
    for name in query.TABLES:
        assert getattr(usual, name) == getattr(single, name)
        assert len(getattr(usual, name)) > 0 or name == "strategies"


def test_a_repeated_run_is_counted_once_whatever_the_order(tmp_path):
    first = seeded(tmp_path / "a", 0, 0.5)
    shutil.copytree(first, tmp_path / "b")
    shutil.copytree(first, tmp_path / "c")
    (variant,) = capacity.compare(tmp_path / "b", tmp_path / "c", first).gathered.variants
    assert [entry.twin for entry in variant.entries] == [None, tmp_path / "b", tmp_path / "b"]
    assert len(variant.counted) == 1


def test_many_directories_are_told_apart_without_comparing_each_with_each(tmp_path, monkeypatch):
    for k in range(60):
        (tmp_path / f"r{k}").mkdir()
        (tmp_path / f"r{k}" / "recipe.yaml").touch()
    count, equal = 0, Path.__eq__

    def counted(self, other):
        nonlocal count
        count += 1
        return equal(self, other)

    monkeypatch.setattr(Path, "__eq__", counted)
    assert len(run_directories([tmp_path])) == 60
    assert count < 60


def test_very_many_seeds_are_no_list(tmp_path):
    for seed in range(41):
        seeded(tmp_path / f"r{seed}", seed, 0.5)
    made = capacity.compare(tmp_path)
    assert len(made.gathered.counted) == 41
    assert "with seeds from 0 to 40." in to_html(made.gathered)
