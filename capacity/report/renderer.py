"""Charts are drawn in a process of their own: what aborts there takes nobody along."""

from __future__ import annotations

import atexit
import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from capacity.base.files import write_atomically

_SCRIPT = Path(__file__).with_name("vega_process.py")
_GLOBALS = "window.vegaEmbed = vegaEmbed;"
"""What the page's script calls; the bundle itself exports nothing."""
_PATIENCE = 60.0
"""Seconds for a bundle that is on its way."""
_AHEAD: list[subprocess.Popen[bytes]] = []


class RenderingError(RuntimeError):
    """A chart could not be drawn."""


class _Renderer:
    """Asks the drawing process, which is started when it is needed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, request: dict[str, Any]) -> str:
        """Have something made.

        Args:
            request: What the process understands.

        Returns:
            What it made.

        Raises:
            RenderingError: If it refuses, or ended over it.
        """
        line = json.dumps(request).encode() + b"\n"
        with self.lock:
            answer, code = self._exchange(line)
            if code == 0:  # it had been idle for long, and left just now
                answer, code = self._exchange(line)
        if not answer:
            raise RenderingError(f"the process that draws charts ended with exit code {code}")
        record = json.loads(answer)
        if "error" in record:
            raise RenderingError(f"a chart cannot be drawn: {record['error']}")
        return str(record["made"])

    def _exchange(self, line: bytes) -> tuple[bytes, int | None]:
        """Send a line; the answer, or nothing and the exit code."""
        process = self.running()
        assert process.stdin is not None
        assert process.stdout is not None
        answer = b""
        try:
            with suppress(OSError):
                process.stdin.write(line)
                process.stdin.flush()
                answer = process.stdout.readline()
        except BaseException:
            # An answer that nobody waited for would be taken for that of the next question.
            self._drop()
            raise
        if answer.endswith(b"\n"):
            return answer, None
        return b"", self._drop(ended=True)

    def running(self) -> subprocess.Popen[bytes]:
        """Give the process, started if there is none."""
        if self._owner != os.getpid():  # a fork must not talk over its parent's pipe
            self._process = None
        if self._process is None or self._process.poll() is not None:
            self._drop()
            self._owner = os.getpid()
            try:
                self._process = subprocess.Popen(
                    # -P: this folder holds modules that are named like others'.
                    [sys.executable, "-P", str(_SCRIPT)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    cwd=_SCRIPT.parent,  # ours may be gone
                )
            except OSError as error:
                raise RenderingError(
                    f"the process that draws charts cannot start ({error.strerror})"
                ) from None
        return self._process

    def _drop(self, *, ended: bool = False) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        if not ended:
            process.kill()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        return process.wait()

    def close(self) -> None:
        """End the process."""
        if self._owner == os.getpid():
            self._drop()


_RENDERER = _Renderer()
atexit.register(_RENDERER.close)


def ahead() -> None:
    """Start the process, so that it is there when a chart comes."""
    with suppress(RenderingError), _RENDERER.lock:  # else the first chart says what is wrong
        _RENDERER.running()


def draw(chart: dict[str, Any]) -> str:
    """Draw a chart.

    Args:
        chart: A Vega-Lite specification.

    Returns:
        An `<svg>` element. What cannot be drawn is a RenderingError.
    """
    return _RENDERER.ask({"chart": chart})


def convert(svg: str, kind: str) -> bytes:
    """Turn a picture into a file for print.

    Args:
        svg: An `<svg>` element.
        kind: pdf or png; a PNG has three pixels for each of the picture.

    Returns:
        The file. What cannot be converted is a RenderingError.
    """
    return base64.b64decode(_RENDERER.ask({"svg": svg, "kind": kind}))


def bundle() -> str:
    """Bundle the libraries that draw in a browser.

    It takes seconds, and depends on one version alone: what was made once is kept in the user's
    cache.

    Returns:
        JavaScript.
    """
    if _AHEAD:
        with suppress(subprocess.TimeoutExpired):
            _AHEAD.pop().wait(_PATIENCE)
    with suppress(OSError):
        digest, _, content = _bundle_file().read_bytes().partition(b"\n")
        if digest == _digest(content):
            return content.decode()
    made = _RENDERER.ask({"script": _GLOBALS})
    with suppress(OSError):  # without a folder to keep it in, it is made anew each time
        kept = _bundle_file()
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, _digest(made.encode()) + b"\n" + made.encode())
    return made


def bundle_ahead() -> None:
    """Begin to bundle the libraries in a process beside, where that was never done."""
    with suppress(OSError):  # then `bundle` makes it, and says what is wrong
        kept = _bundle_file()
        if _AHEAD or kept.is_file():
            return
        kept.parent.mkdir(parents=True, exist_ok=True)
        nowhere = subprocess.DEVNULL
        _AHEAD.append(
            subprocess.Popen(
                [sys.executable, "-P", str(_SCRIPT), str(kept), _GLOBALS],
                stdin=nowhere, stdout=nowhere, stderr=nowhere, cwd=_SCRIPT.parent,
            )
        )  # fmt: skip


def _bundle_file() -> Path:
    known = hashlib.sha256(f"{version('vl-convert-python')} {_GLOBALS}".encode()).hexdigest()[:16]
    try:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise FileNotFoundError(str(error)) from None
    return Path(caches) / "capacity" / f"vega-{known}.js"


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
