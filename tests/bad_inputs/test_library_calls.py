"""Calls from Python with arguments that will not do: a ValueError that names the argument."""

from __future__ import annotations

import pytest
from torch import nn

import capacity
from bad_inputs.checkers import check_said

RUN = {"tasks": "tiny-digits", "quiet": True}

CALLS = {
    # what is wrong: (the call, given a finished run and a folder; words of the error)
    "open nothing": (lambda run, new: capacity.open_run(None), "run is a NoneType", "path"),
    "open a number": (lambda run, new: capacity.open_run(3), "run is a int", "path"),
    "open what is not there": (
        lambda run, new: capacity.open_run(new), "is not a run directory", "capacity run"
    ),
    "resume nothing": (lambda run, new: capacity.resume(None), "run is a NoneType", "path"),
    "resume what is not there": (lambda run, new: capacity.resume(new), "not a run directory"),
    "report into a folder": (
        lambda run, new: capacity.open_run(run).report(run), "output = ", "is a directory"
    ),
    "compare nothing": (lambda run, new: capacity.compare(), "runs is empty", "at least one"),
    "compare a number": (lambda run, new: capacity.compare(run, 3), "runs holds a int", "paths"),
    "compare one run twice": (lambda run, new: capacity.compare(run, run), "named twice", "once"),
    "compare with what is not there": (
        lambda run, new: capacity.compare(run, new), "'new'", "is no directory", "capacity run"
    ),
    "ask nothing": (lambda run, new: capacity.query("", run), "sql = ''", "SELECT", "runs"),
    "ask a number": (lambda run, new: capacity.query(3, run), "sql = 3", "SELECT", "runs"),
    "ask no run": (lambda run, new: capacity.query("FROM runs"), "runs is empty"),
    "ask an unknown table": (
        lambda run, new: capacity.query("FROM rnus", run), "rnus", 'Did you mean "runs"'
    ),
    "ask for an unknown column": (
        lambda run, new: capacity.query("SELECT acuracy FROM runs", run), "acuracy", "accuracy"
    ),
    "question and run in the wrong order": (
        lambda run, new: capacity.query(str(run), "FROM runs"), "'FROM runs' is no directory"
    ),
    "export to an unknown tracker": (
        lambda run, new: capacity.export(run, to="tensorbord"), "did you mean 'tensorboard'"
    ),
    "export nothing": (
        lambda run, new: capacity.export(None, to="tensorboard"), "run is a NoneType", "path"
    ),
    "run nothing": (lambda run, new: capacity.run(None), "tasks is a NoneType", "accepted"),
    "run an unknown recipe": (
        lambda run, new: capacity.run("tiny-digit", out=new), "did you mean 'tiny-digits'"
    ),
    "run into a number": (lambda run, new: capacity.run(**RUN, out=3), "out is a int", "path"),
    "run into another run": (
        lambda run, new: capacity.run(**RUN, seed=3, out=run), "another recipe", "delete this one"
    ),
    "a network by name": (
        lambda run, new: capacity.run(**RUN, model="mlp", out=new), "model is a str", "Module"
    ),
    "a function that builds no network": (
        lambda run, new: capacity.run(**RUN, model=lambda: 3, out=new), "model builds a int"
    ),
    "a function that needs arguments": (
        lambda run, new: capacity.run(**RUN, model=lambda width: nn.Linear(64, width), out=new),
        "model is a function", "without arguments",
    ),
    "a class that needs arguments": (
        lambda run, new: capacity.run(**RUN, model=nn.Linear, out=new), "without arguments"
    ),
    "training with an unknown field": (
        lambda run, new: capacity.run(**RUN, training={"epocs": 3}, out=new),
        "training.epocs is not a field", "did you mean 'epochs'",
    ),
    "training as a number": (
        lambda run, new: capacity.run(**RUN, training=3, out=new), "training = 3 is no section"
    ),
    "no replica": (lambda run, new: capacity.run(**RUN, replicas=0, out=new), "replicas = 0"),
    "replicas as text": (
        lambda run, new: capacity.run(**RUN, replicas="2", out=new), "replicas = '2'", "number"
    ),
    "a seed as text": (lambda run, new: capacity.run(**RUN, seed="x", out=new), "seed = 'x'"),
    "a name that is none": (lambda run, new: capacity.run(**RUN, name=3, out=new), "name = 3"),
    "minutes as text": (
        lambda run, new: capacity.run(**RUN, checkpoint_minutes="x", out=new),
        "checkpoint_minutes = 'x'", "at least 0",
    ),
    "a rate as text": (lambda run, new: capacity.Training(lr="fast"), "lr", "valid number"),
    "an unknown argument": (lambda run, new: capacity.Training(rate=1), "rate", "is not a field"),
    "nothing to measure with": (lambda run, new: capacity.Measure(eps=()), "eps", "at least 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", CALLS)
def test_a_wrong_call_is_refused_by_its_argument(case, kept, tmp_path, monkeypatch):
    call, *said = CALLS[case]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r".") as caught:
        call(kept, "new")
    check_said(str(caught.value), tuple(said))
    assert list(tmp_path.iterdir()) == []
