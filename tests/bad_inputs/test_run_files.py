"""Damaged or foreign files in a run directory: named, and never written over."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

import capacity
from bad_inputs.checkers import check_refused, check_said, copy_of, fingerprint
from capacity.cli import main
from capacity.runs.directory import RunDirectory

pytestmark = pytest.mark.slow


def content(name, given):
    """Replace a file."""
    return lambda run: (run / name).write_bytes(given)


def changed(name, how):
    """Rewrite a file's text."""
    return lambda run: (run / name).write_text(how((run / name).read_text()))


def field(name, **fields):
    """Replace top-level fields of a JSON file."""
    return changed(name, lambda text: json.dumps(json.loads(text) | fields))


def half(name):
    """Keep the first half of a file."""

    def cut(run):
        data = (run / name).read_bytes()
        (run / name).write_bytes(data[: len(data) // 2])

    return cut


def torn(text):
    """Cut the second row, and keep its end of line."""
    first, second, *rest = text.splitlines(keepends=True)
    return "".join([first, second[:20] + "\n", *rest])


GONE = "nothing"


def part(place, given):
    """Replace, or take out, a part of a result that lies deeper: `transitions[0].old[0].task`."""
    *way, last = [int(w) if w.isdigit() else w for w in re.findall(r"\w+", place)]

    def how(text):
        result = json.loads(text)
        holder = result
        for name in way:
            holder = holder[name]
        if given is GONE:
            del holder[last]
        else:
            holder[last] = given
        return json.dumps(result)

    return changed("result.json", how)


WRONG = (
    ("model.parameters", GONE),
    ("model", GONE),
    ("phases", []),
    ("tasks[0].status", GONE),
    ("tasks[1].status", "learnt"),
    ("tasks[1].train_samples", "many"),
    ("accuracy.mean", []),
    ("loss.mean[1]", None),
    ("forgetting.loss.last[1][0].value", "0.5"),
    ("final.forgetting_last.interval", [0.0]),
    ("final.forgetting_last.status", "fine"),
    ("transitions[0].task", 7),
    ("transitions[0].old", []),
    ("transitions[0].old[0].measured.loss_increase", GONE),
    ("transitions[0].capacity.removed", "31"),
    ("transitions[0].capacity.by_eps[0].eps", GONE),
    ("phases[0].thermo.path_invariant", None),
    ("phases[0].transport.parts.bulk", 5),
    ("phases[1].transport.density.counts", [1.0]),
    ("scores.pairs", True),
)
"""Parts of a result in a form that no reader knows: (place, what stands there)."""

DAMAGE = {
    # what is wrong: (how the copy is damaged, words of the error)
    "truncated result": (half("result.json"), "result.json: not readable as JSON", "delete it"),
    "empty result": (content("result.json", b""), "result.json: not readable", "--resume"),
    "binary result": (content("result.json", b"\x00\xff" * 40), "result.json: not readable"),
    "result that is a list": (content("result.json", b"[1]"), "result.json: not a JSON object"),
    "result with NaN": (
        changed("result.json", lambda text: text.replace('"replicas": 1', '"replicas": NaN')),
        "result.json: not readable as JSON", "NaN",
    ),
    "foreign result": (content("result.json", b'{"accuracy": 0.9}'), "not of this program"),
    "another program's result": (field("result.json", schema="w"), "schema = 'w'", "capacity run"),
    "later version": (
        field("result.json", schema_version=99), "schema_version 99", "reads 1", "leave the run out"
    ),
    "version as text": (field("result.json", schema_version="1"), "schema_version '1'"),
    "tasks as text": (field("result.json", tasks="five"), "tasks is not a list", "delete it"),
    "tasks of text": (field("result.json", tasks=["a"]), "tasks[0] is not an object"),
    "accuracy as a number": (field("result.json", accuracy=0.9), "accuracy is not an object"),
    "transitions as text": (field("result.json", transitions="no"), "transitions is not a list"),
    "transition cut": (part("transitions[0].new", GONE), "transitions[0].new is missing"),
    "an estimate's own field": (
        part("final.loss.color", "red"), "result.json: final.loss.color is no field"
    ),
    "a row without a step": (
        changed("metrics.jsonl", lambda text: '{"task": 0, "epoch": 1}\n' + text),
        "metrics.jsonl: row 1: step is missing",
    ),
    "seconds as text": (field("status.json", seconds={"train": "long"}), "seconds.train is not"),
    "no result": (lambda run: (run / "result.json").unlink(), "result.json: missing", "--resume"),
    "torn middle row": (changed("metrics.jsonl", torn), "metrics.jsonl: line 2", "delete this"),
    "row of another kind": (
        changed("metrics.jsonl", lambda text: "[1]\n" + text), "line 1 is not a JSON object"
    ),
    "binary rows": (content("metrics.jsonl", b"\xff\xfe\n\xff\n"), "metrics.jsonl: line 1"),
    "cut spectra": (half("spectra.safetensors"), "spectra.safetensors", "not readable"),
    "foreign spectra": (content("spectra.safetensors", b"hello, hello, hello"), "safetensors"),
    "empty spectra": (content("spectra.safetensors", b""), "spectra.safetensors", "not readable"),
    "cut status": (half("status.json"), "status.json: not readable as JSON", "delete it"),
    "foreign status": (field("status.json", seconds="x"), "status.json: seconds is not an object"),
    "cut environment": (half("env.json"), "env.json: not readable as JSON", "delete it"),
    "environment as a list": (content("env.json", b"[]"), "env.json: not a JSON object"),
    "environment in another coding": (content("env.json", b'{"a": "\xff"}'), "env.json", "utf-8"),
    "cut recipe": (content("recipe.yaml", b"name: ["), "recipe.yaml", "expected"),
    "recipe as a list": (content("recipe.yaml", b"- a\n"), "recipe.yaml is not a mapping"),
    "recipe in another coding": (content("recipe.yaml", b"name: \xff"), "recipe.yaml", "utf-8"),
}  # fmt: skip


def unlisted(kept, bad):
    """Copy a run as an earlier version wrote it: without digests."""
    copy_of(kept, bad)
    (bad / "manifest.json").unlink()
    return bad


@pytest.mark.parametrize("digests", [True, False], ids=["digests", "earlier version"])
@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_run_is_named_by_every_reader(case, digests, kept, tmp_path, capsys, monkeypatch):
    damage, *said = DAMAGE[case]
    bad = (copy_of if digests else unlisted)(kept, tmp_path / "bad")
    damage(bad)
    if digests:
        (changed,) = [n for n, d in fingerprint(bad).items() if fingerprint(kept).get(n) != d] or [
            "result.json"
        ]
        how = "missing" if case == "no result" else "damaged (it is not as it was written"
        said = [f"{changed}: {how}", "delete it" if changed != "recipe.yaml" else "restore it"]
    before = fingerprint(tmp_path)
    monkeypatch.chdir(tmp_path)
    for words in (
        ["report", "bad"],
        ["report", "bad", "-o", "bad.html"],
        ["compare", str(kept), "bad", "-o", "both.html"],
        ["export", "bad", "--to", "tensorboard", "--out", "board"],
    ):
        check_refused(capsys, words, "bad", *said)
    with pytest.raises(ValueError, match="bad") as caught:
        capacity.query("FROM runs", kept, bad)
    check_said(str(caught.value), said)
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize("digests", [True, False], ids=["digests", "earlier version"])
@pytest.mark.parametrize(
    "command", ["report bad", "compare bad", "compare good bad", "export bad --to wandb"]
)
def test_a_damaged_run_is_refused_before_anything_slow_is_imported(
    command, digests, kept, tmp_path
):
    make = copy_of if digests else unlisted
    make(kept, tmp_path / "good")
    bad = make(kept, tmp_path / "bad")
    half("result.json")(bad)
    code = (
        "import sys; from capacity.cli import main; code = main(sys.argv[1:]); "
        "print(code, sorted({'torch', 'altair', 'wandb', 'duckdb'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", code, *command.split()]
    ended = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ended.stdout == "2 []\n"
    assert "result.json: " in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_finished_run_without_a_readable_result_is_not_said_to_be_finished(kept, tmp_path):
    bad = unlisted(kept, tmp_path / "bad")
    half("result.json")(bad)
    with pytest.raises(ValueError, match=r"result\.json: not readable as JSON"):
        capacity.resume(bad, quiet=True)


@pytest.mark.parametrize(("place", "given"), WRONG)
def test_a_part_of_a_result_in_another_form_is_named_by_its_place(
    place, given, kept, tmp_path, capsys
):
    bad = unlisted(kept, tmp_path / "bad")
    part(place, given)(bad)
    check_refused(capsys, ["report", str(bad)], f"result.json: {place} is ", "delete it")


TAKEN_UP = {
    # what is wrong: (how the copy is damaged, words of the error)
    "truncated result": (half("result.json"), "result.json", "delete it"),
    "later version": (field("result.json", schema_version=2), "schema_version 2"),
    "cut status": (half("status.json"), "status.json", "delete it"),
    "cut recipe": (content("recipe.yaml", b"name: ["), "recipe.yaml", "YAML"),
    "recipe of a later version": (
        changed("recipe.yaml", lambda text: text + "warmup: 3\n"), "recipe.yaml: warmup is not"
    ),
    "no recipe": (lambda run: (run / "recipe.yaml").unlink(), "is no run directory"),
    "empty recipe": (content("recipe.yaml", b""), "recipe.yaml", "empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", TAKEN_UP)
def test_a_damaged_run_is_not_taken_up(case, kept, tmp_path, capsys):
    damage, *said = TAKEN_UP[case]
    bad = unlisted(kept, tmp_path / "bad")
    damage(bad)
    before = fingerprint(bad)
    check_refused(capsys, ["run", "--resume", str(bad), "--quiet"], *said)
    assert fingerprint(bad) == before


JOURNAL = {
    # what is wrong: (content of a record, words of the error)
    "cut record": (b'{"schema": "capa', "not readable as JSON", "done anew"),
    "foreign record": (b'{"a": 1}', "it is no record of a stage", "done anew"),
    "later version": (
        b'{"schema": "capacity/journal", "schema_version": 9, "record": {}}', "schema_version = 9"
    ),
    "another recipe": (
        b'{"schema": "capacity/journal", "schema_version": 3, "recipe": "x", "record": {}}',
        "belongs to a run of another recipe",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", JOURNAL)
def test_a_damaged_record_of_a_cut_off_run_is_named(case, kept, tmp_path, capsys):
    given, *said = JOURNAL[case]
    bad = copy_of(kept, tmp_path / "bad")
    RunDirectory(bad).set_status("interrupted")
    (bad / "journal").mkdir()
    (bad / "journal" / "task0.learned.json").write_bytes(given)
    before = fingerprint(bad)
    check_refused(capsys, ["run", "--resume", str(bad), "--quiet"], "task0.learned.json", *said)
    assert fingerprint(bad) == before


def test_a_last_row_that_a_kill_cut_short_is_left_out(kept, tmp_path):
    bad = unlisted(kept, tmp_path / "bad")
    rows = (bad / "metrics.jsonl").read_text()
    (bad / "metrics.jsonl").write_text(rows[:-30])
    (bad / "metrics.parquet").unlink()
    assert main(["report", str(bad)]) == 0
    whole = [row["epoch"] for row in capacity.query("FROM metrics", kept)]
    short = [row["epoch"] for row in capacity.query("FROM metrics", bad)]
    assert 0 < len(short) < len(whole)


def test_a_changed_recipe_is_refused_by_field_when_a_run_is_taken_up(kept, capsys):
    check_refused(
        capsys,
        ["run", "--resume", str(kept), "training.lr=0.25", "--quiet"],
        "another recipe",
        "training.lr was 0.5, is 0.25",
        "name another directory",
    )


@pytest.mark.parametrize("command", [["report"], ["compare"], ["run", "--resume"]])
def test_what_is_no_run_is_refused(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", "file", "empty"):
        check_refused(capsys, [*command, name], repr(name), "pass")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]
