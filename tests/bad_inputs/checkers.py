"""What every bad input must end in: one clear error, and nothing touched that was there before."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from capacity.cli import main

TINY = (
    "tiny-digits",
    "tasks.samples=64",
    "model.hidden=[4]",
    "training.epochs=1",
    "replicas=1",
    "measure.tangents=2",
    "measure.top_values=2",
    "measure.sweeps=2",
    "measure.curvature_samples=16",
    "measure.capacity_probes=2",
    "measure.capacity_nodes=2",
    "measure.verdicts=false",
    "measure.sensitivity_eps=[]",
    "measure.closure_points=0",
    "measure.strategies=[replay]",
)
"""Words of `capacity run` for a whole run in a second."""


def fingerprint(folder: Path) -> dict[str, str]:
    """Digest every file of a folder.

    Args:
        folder: The folder.

    Returns:
        By path in the folder, the digest of the file, or `folder`.
    """
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


def copy_of(run: Path, folder: Path) -> Path:
    """Copy a run directory, to damage the copy.

    Args:
        run: The run directory.
        folder: Where the copy goes.

    Returns:
        The copy.
    """
    return Path(shutil.copytree(run, folder))


def check_said(message: str, expected: tuple[str, ...]) -> None:
    """Check the words of an error.

    Args:
        message: The error.
        expected: Parts that it must have, in any order.
    """
    missing = [part for part in expected if part not in message]
    assert not missing, f"{missing} not in: {message}"


def check_refused(capsys, words: list[str], *expected: str) -> None:
    """Check that the command line refuses some words in one line, and prints nothing else.

    Args:
        capsys: pytest's fixture.
        words: The arguments.
        *expected: Parts that the line must have.
    """
    capsys.readouterr()
    try:
        code = main(words)
    except SystemExit as stopped:  # argparse
        code = stopped.code
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("capacity")
    check_said(captured.err, expected)
