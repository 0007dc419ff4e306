"""Does a run that is killed end with the same result as one that is not?

Conditions: three small recipes (`victims.RECIPES`); runs in processes of their own, each ended by
SIGKILL at a random moment between its start and the time that a whole run takes, up to five times,
then left to end; a training is kept every 0.12 s. After every kill the directory is opened and
its report is made, and a copy of it is resumed and left to end. Processes are forked from one that
has imported everything, on one thread.

Asserted: every resumed copy, and every run that was killed again and again, ends with the
`result.json`, the rows of `metrics.parquet`, the spectra and the checkpoints of a run that was
never killed, byte for byte; no directory is ever unreadable.

Printed, by what the process was at when it was killed (a file half-written, or the end of the run
being written, counts as writing): kills, copies that ended the same, directories that could be
read; below, the same by recipe.

    python benchmarks/reliability/kill.py [--kills 200] [--seed 0] [--save]
"""

from __future__ import annotations

import argparse
import platform
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).parents[1]))

from reliability.victims import RECIPES, recipe_of, server, start

from capacity.base.files import is_temporary
from capacity.report import render
from capacity.runs.run import open_run

RESULTS = Path(__file__).parent / "results" / "kill.txt"
MOST_PER_RUN = 5
MINUTES = 0.002
WRITING = "writing"
STAGES = {
    "begin": "starting",
    "task0.learned": "training",
    "task0.scores": "measuring",
    "task0.spectrum": "measuring",
    "task1.forecast": "forecast",
    "task1.capacity": "measuring",
    "task1.learned": "training",
    "task1.scores": "measuring",
    "task1.spectrum": "measuring",
}
"""Records of the journal in the order in which they are written, and what a run is at before."""


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill.

    Attributes:
        recipe: Name of the recipe.
        stage: What the process was at.
        readable: Whether the directory could be read.
        same: Whether its copy, resumed, ended as a run that was never killed.
    """

    recipe: str
    stage: str
    readable: bool
    same: bool


def contents(path: Path) -> dict[str, object]:
    """Read what must be the same, by file."""
    rows = duckdb.read_parquet(str(path / "metrics.parquet")).fetchall()
    kept = ["result.json", "spectra.safetensors"]
    kept += sorted(f"checkpoints/{p.name}" for p in (path / "checkpoints").iterdir())
    return {"metrics.parquet": rows, **{name: (path / name).read_bytes() for name in kept}}


def stage_of(path: Path, composed: bool) -> str:
    """Say what a killed run was at: a write, or else the first stage that is not done."""
    if not (path / "recipe.yaml").is_file():
        return STAGES["begin"]
    if any(is_temporary(p.name) for p in path.rglob(".*")):
        return WRITING
    if open_run(path).result.get("status", "running") != "running":
        return WRITING
    names = {p.stem for p in (path / "journal").glob("*.json")}
    for stage, words in STAGES.items():
        if stage not in names:
            return words
    return "measuring" if composed and "composed" not in names else WRITING


def look(path: Path) -> bool:
    """Say whether a directory can be read, by everything that reads one."""
    if not (path / "recipe.yaml").is_file():
        return not path.exists() or all(p.name.startswith(".") for p in path.iterdir())
    try:
        run = open_run(path)
        _ = run.result, run.spectra, run.measured
        render(path, path.parent / "report.html")
    except Exception as error:  # whatever it is, a reader would have met it
        print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    return True


def torture(name: str, kills: int, folder: Path, source: random.Random) -> tuple[list[Kill], int]:
    """Kill runs of one recipe, again and again.

    Args:
        name: The recipe.
        kills: How many kills.
        folder: Where the runs go.
        source: Chooses the moments.

    Returns:
        The kills, and how many of the runs that were killed several times ended otherwise.
    """
    context, recipe = server(), recipe_of(name)
    composed = recipe.measure.composed_spectrum

    def carry_on(path: Path) -> bool:
        """Let a run end, and say whether it ended as it should."""
        process = start(context, recipe, path, minutes=MINUTES)
        process.join()
        return process.exitcode == 0 and contents(path) == expected

    for k in range(2):  # the first start waits for the server
        whole = folder / f"whole-{k}"
        begun = time.monotonic()
        process = start(context, recipe, whole, minutes=MINUTES)
        process.join()
        took = time.monotonic() - begun
    expected = contents(whole)
    found: list[Kill] = []
    runs = different = 0
    while len(found) < kills:
        path, copy = folder / f"run-{runs}", folder / f"copy-{runs}"
        runs += 1
        for _ in range(min(source.randint(1, MOST_PER_RUN), kills - len(found))):
            process = start(context, recipe, path, minutes=MINUTES)
            process.join(source.uniform(0, took))
            if not process.is_alive():
                break
            process.kill()
            process.join()
            stage = stage_of(path, composed)
            if path.is_dir():
                shutil.copytree(path, copy)
            same = carry_on(copy)
            found.append(Kill(recipe=name, stage=stage, readable=look(path), same=same))
            shutil.rmtree(copy)
        different += not carry_on(path)
        shutil.rmtree(path)
        print(f"{name}: {len(found)} kills, {runs} runs", file=sys.stderr)
    return found, different


def table(kills: list[Kill], by: str, names: list[str]) -> list[str]:
    """Count kills and what became of them.

    Args:
        kills: The kills.
        by: What makes a row: `stage` or `recipe`.
        names: The rows.

    Returns:
        Lines.
    """
    lines = [f"{by:<12} kills  same result  readable"]
    for name in names:
        mine = [kill for kill in kills if getattr(kill, by) == name]
        same, readable = sum(kill.same for kill in mine), sum(kill.readable for kill in mine)
        lines.append(f"{name:<12} {len(mine):>5} {same:>12} {readable:>9}")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}")
    arguments = parser.parse_args()
    source, begun = random.Random(arguments.seed), time.monotonic()
    shares = [
        arguments.kills // len(RECIPES) + (k < arguments.kills % len(RECIPES))
        for k in range(len(RECIPES))
    ]
    kills: list[Kill] = []
    different = 0
    with tempfile.TemporaryDirectory(prefix="capacity-kill-") as folder:
        for name, share in zip(RECIPES, shares, strict=True):
            found, otherwise = torture(name, share, Path(folder) / name, source)
            kills += found
            different += otherwise
    stages = ["starting", "forecast", "training", "measuring", WRITING]
    lines = [*table(kills, "stage", stages), "", *table(kills, "recipe", list(RECIPES))]
    same, readable = sum(kill.same for kill in kills), sum(kill.readable for kill in kills)
    lines += [
        "",
        f"{len(kills)} kills: {same} identical results, {len(kills) - readable} unreadable "
        f"directories; {different} of the runs killed up to {MOST_PER_RUN} times ended otherwise",
        f"{time.monotonic() - begun:.0f} s, {platform.machine()}, one thread, "
        f"seed {arguments.seed}",
    ]
    print("\n".join(lines))
    if arguments.save:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert same == readable == len(kills), "a kill was not survived"
    assert not different, "a run that was killed several times ended otherwise"


if __name__ == "__main__":
    main()
