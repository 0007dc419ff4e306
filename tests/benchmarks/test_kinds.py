"""The table of kinds of input: what it counts as working, refused and broken."""

import sys
from pathlib import Path

import pytest
import torch

import capacity

FOLDER = Path(__file__).parents[2] / "benchmarks" / "networks"
sys.path.insert(0, str(FOLDER))

import kinds  # noqa: E402
from kinds_of_input import KINDS  # noqa: E402

ESTIMATE = capacity.Estimate(value=1.0)


def _refusing(_):
    raise ValueError("no\n  such thing")


def _crashing(_):
    raise RuntimeError("deep inside")


def _writing(kind):
    with torch.no_grad():
        kind.model[0].weight += 1
    return ESTIMATE


@pytest.mark.parametrize(
    ("door", "said"),
    [
        (lambda _: ESTIMATE, ("works", "")),
        (lambda _: capacity.Estimate(value=None, note="too few"), ("undefined", "too few")),
        (_refusing, ("refuses", "no such thing")),
        (_crashing, ("CRASH", "RuntimeError: deep inside")),
        (_writing, ("CRASH", "the caller's 0.weight has changed")),
    ],
)
def test_a_cell_says_what_came(door, said):
    assert kinds._attempt("MLP", door, kinds._figure)[:2] == said


def test_the_committed_table_has_forty_kinds_and_no_crash():
    lines = (FOLDER / "results" / "kinds.txt").read_text().splitlines()
    rows = lines[3 : lines.index("", 3)]
    tried = [name for name in KINDS if any(row.startswith(f"{name}  ") for row in rows)]
    assert len(rows) >= 40
    assert f"{len(rows)} kinds" in lines[0]
    assert len(tried) >= 39, "the longest name has one blank behind it"
    assert not any("CRASH" in row for row in rows)
