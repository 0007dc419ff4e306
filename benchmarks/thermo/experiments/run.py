"""The experiments on the thermodynamics of learning: run them, print them, write their page.

    python benchmarks/thermo/experiments/run.py                # the page, from the saved records
    python benchmarks/thermo/experiments/run.py gaussian cnn   # run these, save their records, page
    python benchmarks/thermo/experiments/run.py all
    python benchmarks/thermo/experiments/run.py cnn --data cifar10 --root DIR

Each takes a few minutes of one core at most. Seeds are fixed: a record changes only when the code
does, up to rounding. Records lie in `results/` beside this file, the page in `reports/`. Runs on
other data than the digits are printed; they are saved and drawn only where `--save` and `--page`
say so.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import angles
import anisotropy
import cnn_shown
import cnn_study
import curriculum
import ensemble_size
import ensemble_size_shown
import gaussian_toy
import implicit_steps
import irreversibility_routes
import learning_rate
import noise_level
import quadratic
import reachable_study
import regularisers
import torch
from thermo_claims import Section
from thermo_drawing import printed
from thermo_page import write
from thermo_records import RESULTS, load, rounded, save

PAGE = Path(__file__).parents[3] / "reports" / "thermodynamics.html"


@dataclass(frozen=True)
class Experiment:
    """An experiment by name.

    Attributes:
        kind: Class of its record.
        measured: Runs it.
        section: Shows it.
    """

    kind: type
    measured: Callable[..., Any]
    section: Callable[[Any], Section]


EXPERIMENTS = {
    "gaussian": Experiment(gaussian_toy.Findings, gaussian_toy.measured, gaussian_toy.section),
    "angles": Experiment(angles.Findings, angles.measured, angles.section),
    "quadratic": Experiment(quadratic.Findings, quadratic.measured, quadratic.section),
    "learning-rate": Experiment(
        learning_rate.Findings, learning_rate.measured, learning_rate.section
    ),
    "curriculum": Experiment(curriculum.Findings, curriculum.measured, curriculum.section),
    "ensemble-size": Experiment(
        ensemble_size.Findings, ensemble_size.measured, ensemble_size_shown.section
    ),
    "noise-level": Experiment(noise_level.Findings, noise_level.measured, noise_level.section),
    "cnn": Experiment(cnn_study.Findings, cnn_study.measured, cnn_shown.section),
    "fcn": Experiment(
        cnn_study.Findings,
        partial(cnn_study.measured, **cnn_study.FULLY_CONNECTED),
        cnn_shown.section,
    ),
    "reachable": Experiment(
        reachable_study.Findings, reachable_study.measured, reachable_study.section
    ),
    "anisotropy": Experiment(anisotropy.Findings, anisotropy.measured, anisotropy.section),
    "regularisers": Experiment(regularisers.Findings, regularisers.measured, regularisers.section),
    "irreversibility": Experiment(
        irreversibility_routes.Findings,
        irreversibility_routes.measured,
        irreversibility_routes.section,
    ),
    "implicit-steps": Experiment(
        implicit_steps.Findings, implicit_steps.measured, implicit_steps.section
    ),
}
"""In the order of the page."""


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; bad input is one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(EXPERIMENTS)} or all")
    parser.add_argument("--data", default="digits", choices=["digits", "cifar10"], help="for cnn")
    parser.add_argument("--root", help="where CIFAR-10 lies, or is to be downloaded to")
    parser.add_argument("--save", type=Path, help="folder of the records")
    parser.add_argument("--page", type=Path, help="where the page is written")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    names = list(EXPERIMENTS) if chosen.names == ["all"] else chosen.names
    try:
        ran = _run(names, chosen.data, chosen.root)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    apart = chosen.data != "digits"
    folder = chosen.save or (None if apart else RESULTS)
    for name, record in ran.items():
        if folder is not None:
            save(record, folder / f"{name}.json")
        _print(EXPERIMENTS[name].section(record))
    if apart and chosen.page is None:
        return 0
    try:
        records = _records(ran, folder or RESULTS)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    sections = [EXPERIMENTS[name].section(record) for name, record in records.items()]
    write(sections, chosen.page or PAGE)
    print(f"wrote {chosen.page or PAGE}", file=sys.stderr)
    return 0


def _run(names: list[str], data: str, root: str | None) -> dict[str, Any]:
    unknown = [name for name in names if name not in EXPERIMENTS]
    if unknown:
        raise ValueError(
            f"NAME = {unknown[0]!r} is not known; accepted: {', '.join(EXPERIMENTS)}, all"
        )
    if data != "digits" and names != ["cnn"]:
        raise ValueError(f"--data {data} goes with the experiment cnn alone")
    ran = {}
    for name in names:
        started = time.perf_counter()
        more = {}
        if name == "cnn" and data != "digits":
            more = {"task": cnn_study.images(data, root=root), "data": data}
        ran[name] = rounded(EXPERIMENTS[name].measured(**more))
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return ran


def _records(ran: dict[str, Any], folder: Path) -> dict[str, Any]:
    found = {}
    for name, experiment in EXPERIMENTS.items():
        path = folder / f"{name}.json"
        if name in ran:
            found[name] = ran[name]
        elif path.is_file():
            found[name] = load(experiment.kind, path)
    return found


def _print(section: Section) -> None:
    print(f"{section.title}\n")
    for table in section.tables:
        print("\n".join(printed(table)))
    print(*section.told, "", sep="\n")


if __name__ == "__main__":
    sys.exit(main())
