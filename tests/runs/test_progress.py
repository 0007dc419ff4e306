"""What a run says of the time that is left."""

from __future__ import annotations

import io

import pytest

from capacity.runs import progress
from capacity.runs.progress import Progress, spell


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_tells_the_time_left_once_every_kind_of_stage_was_seen(clock):
    stream = io.StringIO()
    made = Progress(stream=stream)
    made.plan(["train", "train", "forecast", "train", "forecast"])
    for label, kind, seconds in [
        ("a", "train", 10), ("b", "forecast", 4), ("c", "train", 20), ("d", "forecast", 5),
    ]:  # fmt: skip
        made.start(label, 1, kind)
        clock[0] += seconds
    made.start("e", 1, "train")
    made.close()
    # c: itself as a, then a forecast as b and a training as a; d: itself as b, a training as c.
    assert stream.getvalue().splitlines() == [
        "a ...",
        "b ...",
        "c ... about 24 s left",
        "d ... about 24 s left",
        "e ... about 20 s left",
    ]


def test_what_was_done_before_takes_no_time(clock):
    stream = io.StringIO()
    made = Progress(stream=stream)
    made.plan(["train", "train", "train"])
    made.passed("train")
    made.start("a", 1, "train")
    clock[0] += 200
    made.start("b", 1, "train")
    made.close()
    assert stream.getvalue().splitlines()[-1] == "b ... about 3 min left"


def test_a_bar_moves_within_a_stage_that_has_no_units(clock):
    stream = Terminal()
    made = Progress(stream=stream)
    made.plan(["train", "train"])
    made.start("task 1", 2, "train")
    clock[0] += 5
    made.advance("loss 0.5")
    assert "task 1  50%" in stream.getvalue()
    assert "5 s, loss 0.5" in stream.getvalue()
    clock[0] += 5
    made.start("task 2", 1, "train")
    clock[0] += 5
    made._tick()
    made.close()
    assert "task 2  75%" in stream.getvalue()
    assert "15 s, about 5 s left" in stream.getvalue()
    assert "?" not in stream.getvalue()


def test_durations_are_for_people():
    assert [spell(s) for s in (8.2, 150, 9000)] == ["8 s", "2 min", "2.5 h"]
