"""Forecasts, gates and completion in the shell, and results as JSON."""

from __future__ import annotations

import json
import shutil
import subprocess
import textwrap

import pytest

from capacity.arguments import parser
from capacity.base.completion import script, words_of
from capacity.cli import main
from capacity.recipe import config


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_users_own.py").write_text(
        textwrap.dedent("""
            import torch, capacity

            def later():
                torch.manual_seed(0)
                x, net = torch.randn(60, 4), torch.nn.Linear(4, 2)
                old, new = (x, (x[:, 0] > 0).long()), (x, (x[:, 0] < 0).long())
                plan = capacity.Training(lr=1.0, epochs=20)
                return {"model": net, "old": {"first": old}, "new": new, "training": plan,
                        "strategies": ["naive", "replay"], "budget": None}

            def nothing():
                return 3

            def misspelt():
                return later() | {"budge": 0.05}
        """)
    )
    return "a_users_own:later"


@pytest.mark.slow
def test_a_forecast_is_a_table_and_json(mine, capsys):
    assert main(["forecast", "--trainer", mine]) == 0
    shown = capsys.readouterr().out
    assert "first" in shown
    assert "accuracy lost, points" in shown
    assert main(["forecast", "--trainer", mine, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["old"] == ["first"]
    assert set(found["forecast"]["by_strategy"]) == {"naive", "replay"}
    assert found["forecast"]["old"][0]["loss_increase"]["value"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "code"), [("1e9", 0), ("1e-6", 2)])
def test_a_gate_says_one_line_and_stops_what_loses_too_much(mine, limit, code, capsys):
    assert main(["gate", "--trainer", mine, "--rise", limit]) == code
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 1
    assert shown.out.startswith("stopped: first" if code else "passed: first")
    assert shown.err == ""


@pytest.mark.slow
def test_a_recipe_is_learned_up_to_a_task_and_forecast_there(capsys):
    words = ["tiny-digits", "training.epochs=2", "tasks.samples=60", "measure.strategies=[replay]"]
    assert main(["forecast", *words, "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["old"] == ["classes 0-4"]
    assert list(found["forecast"]["by_strategy"]) == ["replay"]
    assert "task 1/2" in shown.err


@pytest.mark.parametrize(
    "named", ["a_users_own:nothing", "a_users_own:missing", "a_users_own:misspelt"]
)
def test_what_a_function_returns_is_checked(mine, named, capsys):
    assert main(["forecast", "--trainer", named]) == 2
    assert capsys.readouterr().err.startswith("capacity: --trainer")


def test_recipes_are_listed_as_json(capsys):
    assert main(["recipes", "ls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mixed-digits"].startswith("Digits six ways")
    assert main(["validate", "tiny-digits", "replicas=3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["replicas"] == 3


def test_every_command_completes(capsys):
    known = dict(words_of(parser()))
    assert {"run", "forecast", "gate", "completion"} <= set(known[()])
    assert "--threads" in known["run",]
    assert known["recipes",] == ["--help", "ls", "cp"]
    assert main(["completion", "fish"]) == 0
    shown = capsys.readouterr().out
    assert "-l budget" in shown
    assert "mixed-digits" in shown


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("capacity r", "run report recipes"),
        ("capacity run --thr", "--threads"),
        ("capacity recipes c", "cp"),
        ("capacity run mixed-digits --se", "--seeds"),
        ("capacity gate mix", "mixed-digits"),
    ],
)
def test_bash_completes(line, wanted):
    words = line.split()
    made = script(parser(), "bash", config.recipe_names())
    asked = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _capacity; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(
        ["bash", "-c", f"{made}\n{asked}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == wanted.split()
