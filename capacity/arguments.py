"""The command line's parser: which words it takes, and what they mean."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from capacity.base.completion import SHELLS
from capacity.runs.sweep_command import add_sweep

USER_ERROR = 2
MAIN = "mixed-digits"
"""The recipe of a run that names none."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other mistake is said."""

    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """Build the argument parser.

    Returns:
        The parser of `capacity`.
    """
    top = _Parser(
        prog="capacity",
        description="How much will a network forget, why, and what would it cost to avoid that?",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    printing = _Parser(add_help=False)
    printing.add_argument("--json", action="store_true", help="print the result as JSON")

    run = commands.add_parser(
        "run", help="learn a sequence of tasks, forecast, measure, report", parents=[printing]
    )
    run.add_argument(
        "recipe", nargs="?", help=f"name of a bundled recipe, or a .yaml file (default: {MAIN})"
    )
    run.add_argument(
        "overrides", nargs="*", metavar="FIELD=VALUE", help="as training.lr=0.05 replicas=4"
    )
    run.add_argument(
        "--resume", type=Path, metavar="DIR", help="go on with a run, or seeds, that were cut off"
    )
    run.add_argument(
        "--checkpoint-minutes",
        type=float,
        default=5.0,
        metavar="M",
        help="keep a training every M minutes between the ends of tasks (default: 5)",
    )
    run.add_argument("--out", type=Path, metavar="DIR", help="run directory (default: runs/...)")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    run.add_argument(
        "--threads", type=int, metavar="N", help="threads (default: 1 for a small network)"
    )
    run.add_argument(
        "--processes",
        type=int,
        default=2,
        metavar="N",
        help="1 measures everything in turn (default: 2, where the network is small)",
    )
    run.add_argument("--quiet", action="store_true", help="show no progress")
    run.add_argument("--no-report", action="store_true", help="`capacity report` writes it later")
    run.add_argument("--profile", action="store_true", help="say at the end what took the time")
    run.add_argument("--seeds", metavar="LIST", help="run many seeds, as 0-9 or 0,2,5-7")
    run.add_argument("--jobs", type=int, metavar="N", help="seeds at a time (default: 1)")

    add_sweep(commands, printing)
    report = commands.add_parser("report", help="write the report of a run", parents=[printing])
    report.add_argument("run", type=Path, metavar="RUN", help="run directory")
    report.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: RUN/report.html"
    )

    compare = commands.add_parser("compare", help="set many runs side by side", parents=[printing])
    compare.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="run directories, or folders of them"
    )
    compare.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("comparison.html"),
        metavar="FILE",
        help="default: comparison.html",
    )

    export = commands.add_parser(
        "export", help="hand a run to an experiment tracker", parents=[printing]
    )
    export.add_argument("run", type=Path, metavar="RUN", help="run directory")
    export.add_argument(
        "--to", required=True, metavar="TRACKER", help="tensorboard, mlflow or wandb"
    )
    export.add_argument(
        "--out", type=Path, metavar="DIR", help="where its files go (default: the tracker's own)"
    )

    recipes = commands.add_parser("recipes", help="list or copy the bundled recipes")
    actions = recipes.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("ls", help="list them", parents=[printing])
    copy = actions.add_parser("cp", help="copy one here, to change it", parents=[printing])
    copy.add_argument("name", help="name of a bundled recipe")
    copy.add_argument("target", nargs="?", type=Path, help="file to write (default: NAME.yaml)")

    validate = commands.add_parser(
        "validate", help="check a recipe without running it", parents=[printing]
    )
    validate.add_argument("recipe", help="name of a bundled recipe, or a .yaml file")
    validate.add_argument("overrides", nargs="*", metavar="FIELD=VALUE")

    _forecasts(commands, printing)
    completion = commands.add_parser("completion", help="print a completion script for a shell")
    completion.add_argument("shell", choices=SHELLS, help="which; evaluate what it prints")
    return top


def _forecasts(commands: argparse._SubParsersAction[_Parser], printing: _Parser) -> None:
    """Add the commands that forecast without measuring."""
    forecast = commands.add_parser(
        "forecast",
        help="forecast the last task of a recipe, or a training of yours",
        parents=[printing],
    )
    gate = commands.add_parser(
        "gate", help="forecast, and end with code 2 where too much is lost", parents=[printing]
    )
    gate.add_argument(
        "--drop", type=float, metavar="D", help="most accuracy that an old task may lose, as 0.05"
    )
    gate.add_argument(
        "--rise", type=float, metavar="L", help="most that the loss of an old task may rise, as 0.1"
    )
    for command in (forecast, gate):
        command.add_argument("recipe", nargs="?", help="name of a bundled recipe, or a .yaml file")
        command.add_argument("overrides", nargs="*", metavar="FIELD=VALUE")
        command.add_argument(
            "--trainer",
            metavar="MODULE:FUNCTION",
            help="a function that returns the arguments of capacity.forecast as a mapping: model "
            "(a trainer, too), old, ...",
        )
        command.add_argument(
            "--task", type=int, metavar="N", help="task of the recipe (default: the last)"
        )
        command.add_argument(
            "--budget",
            default="auto",
            metavar="SHARE",
            help="share of the training's operations, inf to rehearse it (default: auto)",
        )
        command.add_argument(
            "--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)"
        )
        command.add_argument("--quiet", action="store_true", help="show no progress")
