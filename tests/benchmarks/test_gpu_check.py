"""The script for a card: exercised on the CPU, cut off and gone on with."""

from __future__ import annotations

import argparse
import subprocess

import pytest
import torch
from gpu import check

from capacity.recipe import config

CPU = torch.device("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("part", ["products", "ensemble", "large", "dense", "finetuning"])
def test_every_part_runs_on_a_cpu_in_small(part):
    lines = list(check.PARTS[part](CPU, small=True))
    assert any(any(sign.isdigit() for sign in line) for line in lines)


@pytest.mark.slow
def test_parity_of_a_device_with_itself(monkeypatch):
    def no_tests(asked, **_):
        return subprocess.CompletedProcess(asked, 0, "2 passed", "")

    monkeypatch.setattr(check.subprocess, "run", no_tests)
    lines = list(check.parity(CPU, small=True))
    assert lines[0].endswith("largest difference 0.0e+00 (holds: 0.01)")
    assert lines[-1] == "tests marked device: 2 passed"


def test_the_recipe_of_the_fine_tuning_is_one():
    recipe = config.load("tiny-digits", check.MINILM)
    assert (recipe.model.kind, recipe.tasks.dataset) == ("pretrained", "text-topics")


def test_what_is_done_is_kept_and_the_rest_goes_on(tmp_path, monkeypatch, capsys):
    asked, limits = [], []

    def run(command, *, timeout, **_):
        part = command[command.index("--inside") - 1]
        asked.append(part)
        limits.append(timeout)
        if part == "large" and asked.count(part) == 1:
            raise subprocess.TimeoutExpired(command, timeout, output=b"half a table\n")
        broken = part == "ensemble" and asked.count(part) == 1
        return subprocess.CompletedProcess(command, broken, f"a table of {part}", "the error")

    monkeypatch.setattr(check.subprocess, "run", run)
    given = argparse.Namespace(device="cpu", small=True)
    check.carry_out(list(check.PARTS), tmp_path, given, 480.0)
    assert sum(limits[:1]) <= 480
    assert limits[0] == pytest.approx(480 * check.SHARES["parity"], rel=1e-3)
    said = capsys.readouterr().out
    assert "NOT DONE: the error" in said
    assert "half a table" in said
    assert "NOT DONE: cut off after its share" in said
    assert not {"ensemble.txt", "large.txt"} & {file.name for file in tmp_path.iterdir()}
    check.carry_out(list(check.PARTS), tmp_path, given, 480.0)
    assert asked == [*check.PARTS, "ensemble", "large"]
    assert {file.stem for file in tmp_path.iterdir()} == set(check.PARTS)
    assert sum(check.SHARES.values()) == pytest.approx(1)
