"""Signals are noted at once and taken at the next check, wherever Python was when they came."""

import gc
import os
import signal
import threading

import pytest

from capacity.base import interruption

pytestmark = pytest.mark.slow


def stretch(*works):
    with interruption.deferred():
        for work in works:
            work()


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_waits_for_the_next_check():
    reached = []
    with pytest.raises(KeyboardInterrupt):
        stretch(interrupt, lambda: reached.append(1), interruption.check, lambda: reached.append(2))
    assert reached == [1]


def test_a_signal_in_a_garbage_collection_is_not_lost():
    def on_collection(phase, info):
        if phase == "start":  # not twice: the second signal raises, and is lost here
            interrupt()

    def collect():
        gc.callbacks.append(on_collection)
        gc.collect()
        gc.callbacks.remove(on_collection)

    with pytest.raises(KeyboardInterrupt):
        stretch(collect)


def test_the_end_of_the_stretch_is_a_check():
    with pytest.raises(KeyboardInterrupt):
        stretch(interrupt)
    interruption.check()  # the note is gone


def test_a_second_signal_raises_at_once():
    reached = []
    with pytest.raises(KeyboardInterrupt):
        stretch(interrupt, lambda: reached.append(1), interrupt, lambda: reached.append(2))
    assert reached == [1]


def test_handlers_are_put_back_and_defaults_left_alone():
    held = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        before = signal.getsignal(signal.SIGINT)
        with interruption.deferred():
            assert signal.getsignal(signal.SIGINT) is not before
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is before
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, held)


def test_other_threads_are_left_alone():
    seen = []

    def work():
        with interruption.deferred():
            seen.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
