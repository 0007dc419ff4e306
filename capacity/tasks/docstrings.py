"""Texts with topics that every installation has: what docstrings of Python and its packages say.

A text is the first paragraph of a docstring, its topic the package that it stands in; the code
below it is a second text on the same topic. Files are read, never imported. Another version of a
package has other texts, so figures on them are compared within one installation.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

TOPICS: dict[str, tuple[str, ...]] = {
    "statistics": ("scipy.stats",),
    "signals": ("scipy.signal",),
    "sparse matrices": ("scipy.sparse",),
    "machine learning": ("sklearn",),
    "neural networks": ("torch.nn",),
    "distributed computing": ("torch.distributed",),
    "plotting": ("matplotlib",),
    "internet": ("http", "email", "urllib", "xmlrpc", "smtplib", "ssl", "imaplib", "ftplib"),
    "concurrency": ("asyncio", "concurrent", "multiprocessing", "threading"),
    "continual learning": ("avalanche",),
}
"""Topics, and the packages or modules that write about them."""

MOST = 240
"""Texts per topic; the smallest topic has some more."""
_SHORTEST = 30
"""Characters of the shortest text that is taken."""


class Snippet(NamedTuple):
    """One function or class.

    Attributes:
        text: First paragraph of its docstring, in one line.
        code: Its code without the docstring.
        topic: Number of its topic, in the order of `TOPICS`.
    """

    text: str
    code: str
    topic: int


@lru_cache(maxsize=1)
def snippets() -> tuple[Snippet, ...]:
    """Read the texts of this installation.

    Returns:
        At most `MOST` of each topic, topic by topic.

    Raises:
        ValueError: If a topic's packages are not installed.
    """
    found: list[Snippet] = []
    for number, (topic, packages) in enumerate(TOPICS.items()):
        own: dict[str, Snippet] = {}
        for snippet in _of_packages(packages, number):
            own.setdefault(snippet.text, snippet)
            if len(own) == MOST:
                break
        if not own:
            raise ValueError(
                f"no texts about {topic}: the sources of {', '.join(packages)} are not installed"
            )
        found += own.values()
    return tuple(found)


def _of_packages(packages: tuple[str, ...], number: int) -> Iterator[Snippet]:
    files = [file for package in packages for file in _files(package)]
    # Files in an order that has nothing to do with their names: the first texts are a sample.
    for file in sorted(files, key=lambda f: hashlib.sha256(f.name.encode()).digest()):
        yield from _of_file(file, number)


def _files(package: str) -> list[Path]:
    top, *inner = package.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return []
    origin = Path(spec.origin)
    if origin.name != "__init__.py":
        return [origin]
    folder = origin.parent.joinpath(*inner)
    return [file for file in sorted(folder.rglob("*.py")) if "tests" not in file.parts]


def _of_file(file: Path, number: int) -> Iterator[Snippet]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, OSError):  # a template, or a file that went away
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            if len(text) >= _SHORTEST:
                yield Snippet(text, _code(node), number)


def _code(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    body = "\n".join(ast.unparse(part) for part in node.body[1:4])
    return f"{node.name}\n{body}"
