"""Is a single flipped bit in a file of a run noticed?

Conditions: one small recipe (`victims.RECIPES`), once left to end and once ended by SIGKILL in its
second task. In each file of both directories, bits are flipped one at a time, at random places, and
put right again; after each flip the run is taken up as `capacity run --resume` takes it up, and
read as by `capacity report` and as by `compare`, `query` and `load_runs`.

Asserted: every flip is refused in one line, by whoever reads the file; where a reader does not
refuse, what it has read is what the run wrote, number by number (it does not read the file).

Printed, by file: bits flipped, how many of them each reader refused, how many it did not and read
the same as before, and how many went by in silence (a reader was given something else).

    python benchmarks/reliability/corrupt.py [--flips 120] [--seed 0] [--save]
"""

from __future__ import annotations

import argparse
import platform
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from reliability.victims import recipe_of, server, start

from capacity.networks.models import build_model
from capacity.recipe.config import Recipe
from capacity.report.page import read
from capacity.results.gather import read_checked
from capacity.results.reader import RunReader
from capacity.runs.directory import RunDirectory
from capacity.runs.execute import Execution
from capacity.runs.progress import Progress
from capacity.tasks.build import build_tasks

RESULTS = Path(__file__).parent / "results" / "corrupt.txt"
READERS = ("resume", "report", "compare, query")
RECIPE = "strategy"
KILLED_AT = "task1.learned.json"

Reader = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of the flips in one file.

    Attributes:
        file: Its path below the run directory.
        size: Its bytes.
        refused: By reader, how many flips it refused.
        same: By reader, how many it let pass and read the same as before.
        silent: By reader, how many it let pass and read something else, or did not say in a line.
    """

    file: str
    size: int
    refused: dict[str, int]
    same: dict[str, int]
    silent: dict[str, int]


def readers(path: Path, recipe: Recipe) -> dict[str, Reader]:
    """Give what reads a run directory, by name.

    Args:
        path: The directory.
        recipe: The recipe of the run.

    Returns:
        Functions that give what was read, or raise a ValueError.
    """
    tasks, device = build_tasks(recipe.tasks), torch.device("cpu")

    def new_model(seed: int) -> torch.nn.Module:
        return build_model(recipe.model, tasks.input_shape, tasks.n_outputs, seed)

    directory, quiet = RunDirectory(path), Progress(quiet=True)
    execution = Execution(recipe, tasks, new_model, directory, device, quiet)

    def resume() -> object:
        if directory.claim(recipe):
            return "finished"
        try:
            return execution.prepare()
        finally:
            directory.release()

    def report() -> object:
        RunReader.open(path).check()
        return read(path)

    return dict(zip(READERS, (resume, report, lambda: read_checked(path)), strict=True))


@contextmanager
def flipped(path: Path, bit: int) -> Iterator[None]:
    """Flip one bit of a file for as long as the block runs.

    Args:
        path: The file.
        bit: Which one, from 0.

    Yields:
        Nothing.
    """
    content = path.read_bytes()
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(changed)
    try:
        yield
    finally:
        path.write_bytes(content)


def files_of(path: Path) -> list[str]:
    """List the files of a run.

    Args:
        path: The directory.

    Returns:
        Paths below it, without those that hold nothing.
    """
    found = (p for p in path.rglob("*") if p.is_file() and p.stat().st_size)
    return sorted(str(p.relative_to(path)) for p in found)


def torture(path: Path, recipe: Recipe, flips: int, source: random.Random) -> list[Outcome]:
    """Flip bits in each file of a run.

    Args:
        path: The directory.
        recipe: The recipe of the run.
        flips: How many per file.
        source: Chooses the places.

    Returns:
        What became of them, by file.
    """
    asked = readers(path, recipe)
    whole = {name: reader() for name, reader in asked.items()}
    found = []
    for file in files_of(path):
        size = (path / file).stat().st_size
        refused, same, silent = (dict.fromkeys(READERS, 0) for _ in range(3))
        for _ in range(flips):
            with flipped(path / file, source.randrange(8 * size)):
                for name, reader in asked.items():
                    try:
                        made = reader()
                    except ValueError as error:
                        kind = refused if "\n" not in str(error) else silent
                    else:
                        kind = same if made == whole[name] else silent
                    kind[name] += 1
        found.append(Outcome(file=file, size=size, refused=refused, same=same, silent=silent))
    return found


def runs(folder: Path, recipe: Recipe) -> dict[str, Path]:
    """Make a run that ended, and one that was killed.

    Args:
        folder: Where they go.
        recipe: The recipe.

    Returns:
        The directories by how they ended.
    """
    context = server()
    paths = {"finished": folder / "finished", "killed": folder / "killed"}
    whole = start(context, recipe, paths["finished"], minutes=5.0)
    whole.join()
    killed = start(context, recipe, paths["killed"], minutes=0.0, writes=1, name=KILLED_AT)
    killed.join()
    assert (whole.exitcode, killed.exitcode) == (0, -signal.SIGKILL)
    return paths


def table(outcomes: list[Outcome], flips: int) -> list[str]:
    """Write what became of the flips.

    Args:
        outcomes: By file.
        flips: How many per file.

    Returns:
        Lines.
    """
    width = max(len(outcome.file) for outcome in outcomes)
    lines = [
        f"{'file':<{width}}    bytes  flips  " + "  ".join(f"{name:>24}" for name in READERS),
        f"{'':<{width}}                  " + "  ".join(["refused / same / silent"] * len(READERS)),
    ]
    for o in outcomes:
        cells = [f"{o.refused[n]:>7} / {o.same[n]:>4} / {o.silent[n]:>6}" for n in READERS]
        lines.append(f"{o.file:<{width}} {o.size:>8} {flips:>6}  " + "  ".join(cells))
    return lines


def unnoticed(outcomes: list[Outcome], flips: int) -> list[str]:
    """List the files in which a flip went by: in silence, or refused by nobody.

    Args:
        outcomes: By file.
        flips: How many per file.

    Returns:
        Their paths; without the tensors of a record that the kill left unwritten, which go when its
        stage is done anew.
    """
    records = {o.file.removesuffix(".json") for o in outcomes}
    return [
        o.file
        for o in outcomes
        if any(o.silent.values())
        or (
            max(o.refused.values()) < flips
            and not (o.file.startswith("journal/") and o.file.rsplit(".", 2)[0] not in records)
        )
    ]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}")
    arguments = parser.parse_args()
    source, begun = random.Random(arguments.seed), time.monotonic()
    recipe, lines, left = recipe_of(RECIPE), [], []
    with tempfile.TemporaryDirectory(prefix="capacity-corrupt-") as folder:
        for state, path in runs(Path(folder), recipe).items():
            outcomes = torture(path, recipe, arguments.flips, source)
            lines += [f"{state} run", *table(outcomes, arguments.flips), ""]
            left += [f"{state}: {file}" for file in unnoticed(outcomes, arguments.flips)]
    lines += [
        f"files in which a flip went by: {len(left)}",
        "harmless, and not in the table: .lock (what counts is the kernel's lock), report.html "
        "(nothing reads it; `capacity report` writes it anew)",
        f"{time.monotonic() - begun:.0f} s, {platform.machine()}, one thread, "
        f"seed {arguments.seed}",
    ]
    print("\n".join(lines))
    if arguments.save:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert not left, f"flips went by in {', '.join(left)}"


if __name__ == "__main__":
    main()
