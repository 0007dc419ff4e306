"""The types of a result, the JSON schema generated from them, and the check of a file."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import get_args

import pytest

import capacity
from capacity.records.estimate import Status
from capacity.results.estimate_schema import StatusWord
from capacity.results.schema import json_schema
from capacity.results.shape import check_row, check_shape

FILE = Path(capacity.__file__).parent / "results" / "result.schema.json"


def estimate():
    return {"value": 1.0, "status": "ok", "interval": [0.5, 1.5]}


def result():
    """One task learned, as an early version wrote it: with no optional part."""
    return {
        "schema": "capacity/result",
        "schema_version": 1,
        "name": "small",
        "status": "finished",
        "seed": 0,
        "replicas": 1,
        "model": {"description": "linear", "parameters": 3},
        "tasks": [
            {"name": "a", "status": "learned", "train_samples": 4, "test_samples": 2, "steps": 8}
        ],
        "accuracy": {"mean": [[0.5]]},
        "loss": None,
        "forgetting": {"loss": {"last": [[None]]}},
        "final": {"loss": estimate()},
        "transitions": [],
        "phases": [None],
        "scores": {"pairs": 0},
    }


def test_schema_file_is_what_the_types_generate():
    # Written anew by: json.dumps(json_schema(), indent=1) and an end of line.
    assert json.loads(FILE.read_text(encoding="utf-8")) == json_schema()


def test_words_of_a_status():
    assert get_args(StatusWord) == tuple(map(str, Status))


def test_optional_parts_may_be_missing_and_others_be_there():
    given = result() | {"later": [{}]}
    given["tasks"][0]["colour"] = "red"
    before = copy.deepcopy(given)
    assert check_shape(given) is given
    assert given == before


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda r: r["tasks"][0].pop("steps"), "tasks[0].steps is missing"),
        (lambda r: r["tasks"][0].update(steps=True), "tasks[0].steps is not a whole number"),
        (lambda r: r["tasks"][0].update(steps=8.0), "tasks[0].steps is not a whole number"),
        (lambda r: r["tasks"].append(None), "tasks[1] is not an object"),
        (lambda r: r.update(tasks={}), "tasks is not a list"),
        (lambda r: r.update(name=3), "name is not text"),
        (
            lambda r: r.update(status="done"),
            "status is not one of finished, diverged, interrupted, failed, running",
        ),
        (lambda r: r["final"]["loss"].update(value="1"), "final.loss.value is not a number"),
        (lambda r: r["final"]["loss"].update(sure=1), "final.loss.sure is no field of an estimate"),
        (
            lambda r: r["final"]["loss"].update(interval=[1, 2, 3]),
            "final.loss.interval is not a pair of numbers",
        ),
        (lambda r: r["accuracy"].update(mean=[]), "accuracy.mean is not a table of 1 by 1"),
        (lambda r: r.update(phases=[]), "phases is not a list of 1 or more"),
    ],
)
def test_the_first_wrong_place_is_named(spoil, said):
    given = result()
    spoil(given)
    with pytest.raises(ValueError, match=r"^\w") as refused:
        check_shape(given)
    assert str(refused.value).startswith(said)


def test_rows():
    check_row({"task": 0, "epoch": 1, "step": 2, "lr": None, "digest": "a"})
    with pytest.raises(ValueError, match=r"^test_loss\[1\] is not a number$"):
        check_row({"task": 0, "epoch": 1, "step": 2, "test_loss": [0.5, "low"]})
