"""Interpreters that are forked from this one, which has imported torch, in place of started anew.

Starting one takes ten times as long as the small runs that tests give it. A fork has its own
process number, pipes, session and signals: it can be told, waited for and killed as any process.
Where the start itself is tested, `subprocess` is used as it is.
"""

from __future__ import annotations

import gc
import os
import runpy
import signal
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import pytest
import torch


class Forked(subprocess.Popen):
    """`subprocess.Popen`, forking where this interpreter is asked for our commands or for code."""

    def _execute_child(self, args: Any, *rest: Any) -> None:
        words = [args] if isinstance(args, str) else [str(word) for word in args]
        doing = _doing(words[1:]) if words[0] == sys.executable else None
        if doing is None:
            super()._execute_child(args, *rest)
            return
        _, prepare, _, _, cwd, env, _, _, _, *further = rest
        # Ours, and the child's, of stdin, stdout and stderr.
        taken, given, out_given, out_taken, err_given, err_taken = further[:6]
        session = further[11]
        gc.collect()  # nothing of ours is to be finalised in the child
        sys.stdout.flush(), sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            if session:
                os.setsid()
            _become(doing, (taken, out_taken, err_taken), prepare, cwd, env)
        self._child_created = True
        self._close_pipe_fds(taken, given, out_given, out_taken, err_given, err_taken)


def _doing(words: list[str]) -> Callable[[], int] | None:
    """Say what an interpreter would do; None where it is to be a real one."""
    first, further = words[0], words[1:]
    if first == "-u":
        return _doing(further)
    if first == "-m":
        ours = further[0] == "capacity.cli"
        return lambda: _command(further[1:]) if ours else _module(further)
    if first == "-c":
        return lambda: _code(further)
    if first.endswith(".py"):
        return lambda: _script(words)
    return None


def _command(words: list[str]) -> int:
    from capacity.cli import main

    sys.argv = ["capacity", *words]
    return main(words)


def _module(words: list[str]) -> int:
    sys.argv = words
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    return 0


def _code(words: list[str]) -> int:
    sys.argv = ["-c", *words[1:]]
    exec(words[0], {"__name__": "__main__"})
    return 0


def _script(words: list[str]) -> int:
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
    return 0


def _become(
    doing: Callable[[], int], ends: tuple[int, ...], prepare: Any, cwd: Any, env: Any
) -> NoReturn:
    """Be the process of a command, in a fork."""
    code = 1
    try:
        gc.freeze()
        for number, end in enumerate(ends):
            if end != -1:
                os.dup2(end, number)
        _let_go_of_pipes()
        sys.stdin = os.fdopen(0, "r", closefd=False)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", closefd=False) for n in (1, 2))
        sys.stderr.reconfigure(line_buffering=True, errors="replace")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if prepare is not None:
            prepare()
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as an interpreter begins
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if cwd is not None:
            os.chdir(cwd)
        if env is not None:
            os.environ.clear()
            os.environ.update(env)
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        code = doing()
    except SystemExit as end:
        code = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)


def _let_go_of_pipes() -> None:
    """Leave every pipe of the parent, some of which are read to their end by others.

    Their numbers stay taken: what was inherited may close them yet.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        try:
            mode = os.fstat(number).st_mode
        except OSError:  # the listing's own
            continue
        if number > 2 and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            os.dup2(nothing, number)


@contextmanager
def forked() -> Iterator[None]:
    """Fork commands of ours, for a while, as far as the system can.

    Yields:
        Nothing.
    """
    with pytest.MonkeyPatch.context() as patch:
        if sys.platform == "linux":
            patch.setattr(subprocess, "Popen", Forked)
        yield
