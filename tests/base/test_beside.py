"""A process beside gives what the function would have given here."""

from __future__ import annotations

import os
import signal
import time

import pytest

from capacity.base import beside, interruption
from capacity.base.beside import Beside

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is copied here")


def test_it_works_elsewhere_and_changes_nothing_here():
    seen = [1]

    def work():
        seen.append(2)
        return os.getpid(), list(seen)

    pid, there = Beside(work).result()
    assert pid != os.getpid()
    assert there == [1, 2]
    assert seen == [1]


def test_what_it_raises_is_raised_here():
    def work():
        raise ValueError("lr = -1")

    with pytest.raises(ValueError, match="lr = -1"):
        Beside(work).result()


def test_what_was_killed_is_done_here():
    here = os.getpid()

    def work():
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"

    assert Beside(work).result() == "done"


def test_a_stop_that_was_asked_for_ends_the_waiting_and_the_process():
    waiting = Beside(lambda: time.sleep(60))
    pid = waiting._pid

    def interrupted():
        with interruption.deferred():
            signal.raise_signal(signal.SIGINT)
            waiting.result()

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_it_ends_with_the_process_that_began_it():
    read, write = os.pipe()
    first = os.fork()
    if not first:
        os.close(read)
        Beside(lambda: time.sleep(60))
        os._exit(0)
    os.close(write)
    os.waitpid(first, 0)
    with open(read, "rb") as stream:
        assert stream.read() == b""  # the pipe closes with the last process that holds it


def test_one_core_is_no_place_for_two(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert not beside.possible()


def test_it_says_when_there_is_an_answer():
    read, write = os.pipe()
    waiting = Beside(lambda: os.read(read, 1))
    assert not waiting.done()
    os.write(write, b"x")
    deadline = time.monotonic() + 60
    while not waiting.done():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert waiting.result() == b"x"
    os.close(read)
    os.close(write)
