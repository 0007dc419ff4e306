"""Directories that a run must not take, and disks that do not let it write."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bad_inputs.checkers import TINY, check_refused, copy_of, fingerprint
from capacity.cli import main
from capacity.runs.directory import RunDirectory
from capacity.runs.lock import DirectoryLock

pytestmark = pytest.mark.slow

NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
READ_ONLY = OSError(errno.EROFS, os.strerror(errno.EROFS))


def fails(error):
    """Something that raises an error whatever it is called with."""

    def fail(*arguments, **options):
        raise error

    return fail


def thesis(folder):
    folder.mkdir()
    (folder / "thesis.tex").write_text("five years")


def folder_for_a_file(folder):
    (folder / "result.json").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(recipe_text())


def file_for_a_folder(folder):
    folder.mkdir()
    (folder / "recipe.yaml").write_text(recipe_text())
    (folder / "journal").write_text("dear diary")


def unreadable_recipe(folder):
    folder.mkdir()
    (folder / "recipe.yaml").write_text("name: [")


def recipe_text():
    from capacity.recipe import config

    return config.load(TINY[0], TINY[1:]).to_yaml()


TAKEN = {
    # what is there: (how it comes to be, what --out says, words of the error)
    "foreign files": (thesis, "out", "holds files that are no run", "new or empty directory"),
    "a file": (lambda out: out.write_text("x"), "out", "is a file", "name a directory"),
    "a file on the way": (lambda out: out.write_text("x"), "out/run", "cannot be written"),
    "a folder in place of a file": (folder_for_a_file, "out", "result.json is a directory"),
    "a file in place of a folder": (file_for_a_folder, "out", "journal is a file"),
    "a recipe that cannot be read": (unreadable_recipe, "out", "holds a recipe that cannot"),
    "a link that leads nowhere": (lambda out: out.symlink_to("nowhere/else"), "out", "out = "),
    "a name too long": (lambda out: None, "a" * 300, "cannot be written", "too long"),
}  # fmt: skip


@pytest.mark.parametrize("case", TAKEN)
def test_a_directory_that_is_taken_is_left_alone(case, kept, tmp_path, capsys, monkeypatch):
    make, out, *said = TAKEN[case]
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "out")
    before = fingerprint(tmp_path)
    check_refused(capsys, ["run", *TINY, "--quiet", "--out", out], "out = ", *said)
    assert fingerprint(tmp_path) == before


def test_a_run_of_another_recipe_is_left_alone(kept, capsys):
    words = ["run", *TINY, "seed=5", "--quiet", "--out", str(kept)]
    check_refused(capsys, words, "seed was 0, is 5", "name another directory")


def test_a_finished_run_of_the_same_recipe_is_left_alone(kept, capsys):
    assert main(["run", *TINY, "--quiet", "--out", str(kept)]) == 0
    assert capsys.readouterr().out == f"{kept / 'report.html'}\n"


def test_a_run_is_no_folder_of_seeds(kept, capsys):
    words = ["run", *TINY, "--seeds", "0-1", "--quiet", "--out", str(kept)]
    check_refused(capsys, words, str(kept))


def test_a_directory_in_use_is_left_alone(kept, tmp_path, capsys):
    run = copy_of(kept, tmp_path / "run")
    RunDirectory(run).set_status("interrupted")
    lock = DirectoryLock(run)
    lock.acquire()
    try:
        before = fingerprint(run)
        for words in (["run", *TINY, "--out", str(run)], ["run", "--resume", str(run)]):
            said = f"is in use by process {os.getpid()}", "wait for it to end"
            check_refused(capsys, [*words, "--quiet"], *said)
        assert fingerprint(run) == before
    finally:
        lock.release()


DISKS = {
    # what fails: (where, the error, words of the message)
    "full disk": ("os.fsync", NO_SPACE, "No space left on device"),
    "full disk at once": ("pathlib.Path.mkdir", NO_SPACE, "No space left on device"),
    "read-only disk": ("pathlib.Path.mkdir", READ_ONLY, "Read-only file system"),
    "read-only directory": ("os.open", READ_ONLY, "Read-only file system"),
}


@pytest.mark.parametrize("case", DISKS)
def test_a_disk_that_cannot_be_written_is_named_before_any_work(
    case, kept, tmp_path, capsys, monkeypatch
):
    where, error, said = DISKS[case]
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(where, fails(error))
        words = ["run", *TINY, "--quiet", "--out", str(out)]
        check_refused(capsys, words, "out = ", said, "name another directory")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]


def test_a_disk_that_fills_up_keeps_what_was_measured(kept, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    monkeypatch.setattr("capacity.runs.directory.RunDirectory.append_metrics", fails(NO_SPACE))
    assert main(["run", *TINY, "--quiet", "--out", str(out)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "No space left on device" in captured.err
    assert f"--resume {out}" in captured.err
    assert RunDirectory.open(out).status()["state"] == "failed"


OUTPUTS = {
    # what is wrong: (the command, where it writes, words of the error)
    "report into a directory": (["report", "RUN"], "folder", "output = 'folder'", "directory"),
    "report below a file": (["report", "RUN"], "file/x.html", "cannot be written", "another file"),
    "comparison into a directory": (["compare", "RUN"], "folder", "output = 'folder'", "directory"),
    "comparison below a file": (["compare", "RUN"], "file/x.html", "cannot be written"),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_a_page_that_cannot_be_written_is_named(case, kept, tmp_path, capsys, monkeypatch):
    words, output, *said = OUTPUTS[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("capacity.report.page.to_html", lambda *_: "a page")  # in no time
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    before = fingerprint(tmp_path)
    words = [str(kept) if word == "RUN" else word for word in words]
    check_refused(capsys, [*words, "-o", output], *said)
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize("error", [NO_SPACE, READ_ONLY])
def test_a_report_on_a_disk_that_cannot_be_written(error, kept, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("capacity.report.page.to_html", lambda *_: "a page")  # in no time
        patch.setattr("os.fsync", fails(error))
        check_refused(capsys, ["report", str(kept)], "cannot be written", error.strerror)


COMMANDS = {
    # what is wrong: (the words, words of the error)
    "an export into a file": (
        ["export", "RUN", "--to", "tensorboard", "--out", "file"], "out = 'file' is a file"
    ),
    "an unknown tracker": (["export", "RUN", "--to", "tensorbord"], "did you mean 'tensorboard'"),
    "a copy over a file": (["recipes", "cp", "tiny-digits", "file"], "exists; name another"),
    "a copy to nowhere": (["recipes", "cp", "tiny-digits", "no/x.yaml"], "cannot be written"),
    "a run twice": (["compare", "RUN", "RUN"], "is named twice", "once"),
    "nothing to compare": (["compare", "folder"], "holds no run", "capacity run"),
}  # fmt: skip


@pytest.mark.parametrize("case", COMMANDS)
def test_other_commands_refuse_in_one_line(case, kept, tmp_path, capsys, monkeypatch):
    words, *said = COMMANDS[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    Path("file").write_text("x")
    before = fingerprint(tmp_path)
    check_refused(capsys, [str(kept) if word == "RUN" else word for word in words], *said)
    assert fingerprint(tmp_path) == before
