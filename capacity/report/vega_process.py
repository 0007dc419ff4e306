"""The process that draws: a request per line comes in, an answer per line goes out.

It is started as a script and imports nothing of `capacity`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import sys
import threading
from typing import Any

import vl_convert

_IDLE = 60.0
"""Seconds after which a process that nobody asks anything ends."""


def main() -> None:
    """Answer until nobody asks any more; or write one bundle into a file that is named, and end."""
    if len(sys.argv) > 1:
        _bundle_into(*sys.argv[1:])
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks decides
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no answer
        while line := _next_line():
            answers.write(json.dumps(_answer(json.loads(line))).encode() + b"\n")
            answers.flush()


def _bundle_into(path: str, script: str) -> None:
    content = str(vl_convert.javascript_bundle(script)).encode()
    made = f"{path}.{os.getpid()}"
    with open(made, "wb") as file:
        file.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    os.replace(made, path)


def _next_line() -> bytes:
    timer = threading.Timer(_IDLE, os._exit, [0])
    timer.daemon = True
    timer.start()
    try:
        return sys.stdin.buffer.readline()
    finally:
        timer.cancel()


def _converted(svg: str, kind: str) -> bytes:
    if kind == "pdf":
        return bytes(vl_convert.svg_to_pdf(svg))
    return bytes(vl_convert.svg_to_png(svg, scale=3.0))


def _answer(request: dict[str, Any]) -> dict[str, str]:
    try:
        if "script" in request:
            return {"made": str(vl_convert.javascript_bundle(request["script"]))}
        if "svg" in request:
            return {"made": base64.b64encode(_converted(request["svg"], request["kind"])).decode()}
        return {"made": str(vl_convert.vegalite_to_svg(request["chart"]))}
    except ValueError as error:
        return {"error": " ".join(str(error).split())[:300]}


if __name__ == "__main__":
    main()
