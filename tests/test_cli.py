"""The command line as a user meets it: exit codes, one-line errors, a frozen set of flags."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from capacity.cli import MAIN, _parse, main, parser
from capacity.runs.directory import RunDirectory
from forked import forked
from report.fabricated_runs import two_variants

BAD = {
    "recipe": ["run", "split-digit"],
    "override": ["run", "tiny-digits", "training.epocs=3"],
    "device": ["run", "tiny-digits", "--device", "tpu"],
    "not a run": ["report", "/nowhere"],
    "copy": ["recipes", "cp", "tiny-digit"],
    "compare": ["compare", "/nowhere"],
    "export": ["export", "/nowhere", "--to", "tensorboard"],
    "validate": ["validate", "tiny-digits", "replicas=0"],
    "forecast of nothing": ["forecast"],
    "forecast of two": ["forecast", "tiny-digits", "--trainer", "mine:later"],
    "no function": ["forecast", "--trainer", "mine"],
    "no such module": ["forecast", "--trainer", "nowhere_to_be:found"],
    "a task of a trainer": ["forecast", "--trainer", "mine:later", "--task", "2"],
    "no share": ["forecast", "tiny-digits", "--budget", "some"],
    "no such task": ["forecast", "tiny-digits", "--task", "3"],
    "no limit": ["gate", "tiny-digits"],
    "profile of seeds": ["run", "tiny-digits", "--seeds", "0-1", "--profile"],
    "no report of seeds": ["run", "tiny-digits", "--seeds", "0-1", "--no-report"],
    "threads of seeds": ["run", "tiny-digits", "--seeds", "0-1", "--threads", "2"],
}


FORESEEN = ["recipe", "overrides", "--trainer", "--task", "--budget", "--device", "--quiet"]


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_one_line_and_exit_code_2(case, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(BAD[case]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("capacity: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [[], ["rnu", "x"], ["run", "x", "--outt", "y"]])
def test_unknown_words_are_one_line_too(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_run_validate_list_copy_report(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["recipes", "ls"]) == 0
    assert "split-digits " in capsys.readouterr().out
    assert main(["recipes", "cp", "tiny-digits", "mine.yaml"]) == 0
    assert main(["recipes", "cp", "tiny-digits", "mine.yaml"]) == 2, "never overwrite"
    capsys.readouterr()
    assert main(["validate", "mine.yaml", "replicas=1"]) == 0
    assert "replicas: 1" in capsys.readouterr().out
    assert main(["run", "mine.yaml", "replicas=1", "--out", "r", "measure.transport=false"]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == "r/report.html"
    assert "\r" not in captured.err, "no bars where there is no terminal"
    assert "learned" in captured.err
    assert main(["report", "r", "-o", "again.html"]) == 0
    assert Path("again.html").stat().st_size > 10_000


def test_public_flags_are_these():
    found = {}

    def walk(node: argparse.ArgumentParser, name: str) -> None:
        flags = []
        for action in node._actions:
            if isinstance(action, argparse._SubParsersAction):
                for child, sub in action.choices.items():
                    walk(sub, f"{name} {child}".strip())
            elif action.dest != "help":
                flags.append((action.option_strings or [action.dest])[-1])
        found[name] = flags

    walk(parser(), "")
    assert found == {
        "": [],
        "run": [
            "--json",
            "recipe",
            "overrides",
            "--resume",
            "--checkpoint-minutes",
            "--out",
            "--device",
            "--threads",
            "--processes",
            "--quiet",
            "--no-report",
            "--profile",
            "--seeds",
            "--jobs",
        ],
        "sweep": [
            "--json",
            "recipe",
            "overrides",
            "--seeds",
            "--jobs",
            "--on",
            "--partition",
            "--minutes",
            "--out",
            "--resume",
            "--status",
            "--retry",
            "--yes",
            "--device",
            "--no-report",
            "--quiet",
            "--checkpoint-minutes",
        ],
        "report": ["--json", "run", "--output"],
        "compare": ["--json", "runs", "--output"],
        "export": ["--json", "run", "--to", "--out"],
        "recipes": [],
        "recipes ls": ["--json"],
        "recipes cp": ["--json", "name", "target"],
        "validate": ["--json", "recipe", "overrides"],
        "forecast": ["--json", *FORESEEN],
        "gate": ["--json", "--drop", "--rise", *FORESEEN],
        "completion": ["shell"],
    }


@pytest.mark.slow
def test_compare_and_export(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    two_variants(tmp_path / "runs")
    assert main(["compare", "runs/ewc-0", "runs/naive-0"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith("variant")
    assert out.splitlines()[-1] == "comparison.html"
    assert Path("comparison.html").stat().st_size > 10_000
    assert main(["export", "runs/naive-4", "--to", "tensorboard", "--out", "tb"]) == 0
    assert capsys.readouterr().out == "tb\n"


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_kill_leave_a_readable_run(sign, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "capacity.cli", "run", "tiny-digits", "training.epochs=100000"]

    def heed() -> None:  # where the tests themselves run in the background, SIGINT is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    # One signal to an interpreter of its own, the other to a fork of this one.
    beginning = forked() if sign == signal.SIGTERM else nullcontext()
    with (
        beginning,
        subprocess.Popen(
            [*command, "--out", out], stderr=subprocess.PIPE, text=True, preexec_fn=heed
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 120
            while not (out / "metrics.jsonl").is_file() or not RunDirectory(out).metrics():
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline, "training did not start"
                time.sleep(0.1)
            os.kill(process.pid, sign)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert RunDirectory.open(out).status()["state"] == "interrupted"
    assert RunDirectory.open(out).result()["tasks"][0]["status"] == "interrupted"


@pytest.mark.parametrize("words", [[], ["seed=3"], ["--quiet", "replicas=2"]])
def test_a_run_without_a_recipe_is_the_main_job(words):
    parsed = _parse(["run", *words])
    assert parsed.recipe == MAIN
    assert parsed.overrides == [word for word in words if "=" in word]
