"""Where runs go that are given no directory, which of them were cut off, and how to go on."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path

from capacity.recipe.config import Recipe
from capacity.results.reader import UNFINISHED
from capacity.runs.directory import RunDirectory

FOLDER = Path("runs")


def safe_name(name: str) -> str:
    """Make a file name of any text.

    Args:
        name: The name of a recipe.

    Returns:
        The same with a dash for everything that could mean something to a file system.
    """
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


def fresh_directory(name: str) -> Path:
    """Name a directory that does not exist yet.

    Args:
        name: The name of the recipe.

    Returns:
        As `runs/NAME-20260801-120000`.
    """
    stem = f"{safe_name(name)}-{datetime.now():%Y%m%d-%H%M%S}"
    path, n = FOLDER / stem, 1
    while path.exists():
        n += 1
        path = FOLDER / f"{stem}-{n}"
    return path


def left_unfinished(recipe: Recipe) -> Path | None:
    """Find a run of a recipe that was cut off and that nobody works on.

    Args:
        recipe: The recipe.

    Returns:
        The latest such directory that was given no name; None where there is none.
    """
    for saved in sorted(FOLDER.glob(f"{safe_name(recipe.name)}-*/recipe.yaml"), reverse=True):
        directory = RunDirectory(saved.parent)
        try:
            state = directory.status().get("state", "running")
            cut_off = state in UNFINISHED and not directory.busy
            if cut_off and directory.recipe() == directory.as_kept(recipe):
                return directory.path
        except ValueError:
            continue  # what cannot be read is no run to go on with
    return None


def how_to_resume(recipe: Recipe, path: Path) -> str:
    """Say how to go on with a run.

    Args:
        recipe: Its recipe.
        path: Its directory.

    Returns:
        A clause that names the command, or the call where only Python has the tasks or the model.
    """
    if "custom" in {recipe.tasks.dataset, recipe.model.kind}:
        return f"capacity.run as before, with out={str(path)!r}, goes on"
    return f"`{shell_call('capacity', 'run', '--resume', path)}` goes on"


def shell_call(*words: str | Path) -> str:
    """Write a command for a shell.

    Args:
        words: The command and its arguments.

    Returns:
        The words, quoted where they need it.
    """
    return shlex.join(map(str, words))
