"""`capacity sweep`: arguments in, exit code out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capacity.runs.sweep import Sweep

FAILED = 1


def add_sweep(commands: Any, printing: argparse.ArgumentParser) -> None:
    """Add the command to the parser.

    Args:
        commands: The subparsers of `capacity`.
        printing: Options of every command that prints a result.
    """
    made = commands.add_parser(
        "sweep", help="run a grid of recipes and seeds as one folder", parents=[printing]
    )
    made.add_argument("recipe", nargs="?", help="name of a bundled recipe, or a .yaml file")
    made.add_argument(
        "overrides", nargs="*", metavar="FIELD=VALUE,VALUE", help="as training.lr=0.01,0.1"
    )
    made.add_argument("--seeds", metavar="LIST", help="of every combination, as 0-9 or 0,2,5-7")
    made.add_argument(
        "--at-once",
        "--jobs",
        dest="jobs",
        type=int,
        default=1,
        metavar="N",
        help="at a time (default: 1)",
    )
    made.add_argument(
        "--on", default="local", metavar="WHERE", help="local (default) or slurm, by submitit"
    )
    made.add_argument("--partition", metavar="NAME", help="of the cluster")
    made.add_argument("--minutes", type=int, metavar="M", help="of a cluster's job (default: 60)")
    made.add_argument("--out", type=Path, metavar="DIR", help="folder (default: runs/NAME-sweep)")
    made.add_argument("--resume", type=Path, metavar="DIR", help="go on with a sweep")
    made.add_argument(
        "--status", type=Path, metavar="DIR", help="say what is done and what is left"
    )
    made.add_argument("--retry", type=Path, metavar="DIR", help="go on, and run what failed again")
    made.add_argument("--yes", action="store_true", help="also more than 10,000 runs")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    made.add_argument(
        "--no-report", action="store_true", help="of the runs; `capacity report` writes it later"
    )
    made.add_argument("--quiet", action="store_true", help="show no progress")
    made.add_argument(
        "--checkpoint-minutes", type=float, default=5.0, metavar="M", help="as in run"
    )


def run_sweep(parsed: argparse.Namespace) -> tuple[Sweep, int]:
    """Obey the command.

    Args:
        parsed: Its arguments.

    Returns:
        What to print, and the exit code.

    Raises:
        ValueError: If they will not do.
    """
    from capacity.runs.sweep_grid import MOST, parse_grid

    folders = [f for f in (parsed.resume, parsed.status, parsed.retry) if f is not None]
    if len(folders) > 1 or (folders and (parsed.recipe or parsed.seeds or parsed.out)):
        raise ValueError(
            "--resume, --status and --retry take a sweep as it is; pass one of them alone"
        )
    if not folders and parsed.recipe is None:
        raise ValueError("recipe is missing; name one, as capacity sweep split-digits --seeds 0-9")
    most = 1 << 30 if parsed.yes else MOST
    if parsed.status is not None:
        from capacity.runs.sweep import Sweep

        return Sweep.open(parsed.status), 0
    from capacity.runs.seeds_folder import parse_seeds
    from capacity.runs.sweep import Sweep, sweep

    retry, report = ["interrupted", "running"], not parsed.no_report
    if folders:
        there = Sweep.open(folders[0])
        recipe, grid, seeds, out = there.recipe, there.grid, there.seeds, there.path
        report = report and there.report
        most = 1 << 30  # it was allowed when it began
        retry += ["failed"] if parsed.retry is not None else []
    else:
        recipe, grid, out = parsed.recipe, parse_grid(parsed.overrides), parsed.out
        seeds = parse_seeds(parsed.seeds) if parsed.seeds is not None else []
    made = sweep(
        recipe, grid, seeds=seeds, jobs=parsed.jobs, on=parsed.on, partition=parsed.partition,
        minutes=parsed.minutes, out=out, device=parsed.device, retry=retry,
        most=most, quiet=parsed.quiet, checkpoint_minutes=parsed.checkpoint_minutes,
        report=report,
    )  # fmt: skip
    counts = made.counts
    return made, 0 if counts["finished"] == sum(counts.values()) else FAILED
