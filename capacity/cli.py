"""The command line: arguments in, exit code out. All work is done elsewhere."""

from __future__ import annotations

import argparse
import io
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from capacity.base import interruption
from capacity.base.checks import positive_int
from capacity.base.console import Lenient, nowhere
from capacity.base.printable import visible

FAILED = 1
USER_ERROR = 2
INTERRUPTED = 130
MAIN = "mixed-digits"
"""The recipe of a run that names none."""


class _NoOutputError(Exception):
    """Nobody can read what was made."""


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

    run = commands.add_parser("run", help="learn a sequence of tasks, forecast, measure, report")
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
    run.add_argument("--seeds", metavar="LIST", help="run many seeds, as 0-9 or 0,2,5-7")
    run.add_argument("--jobs", type=int, metavar="N", help="seeds at a time (default: 1)")

    report = commands.add_parser("report", help="write the report of a run")
    report.add_argument("run", type=Path, metavar="RUN", help="run directory")
    report.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: RUN/report.html"
    )

    compare = commands.add_parser("compare", help="set many runs side by side")
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

    export = commands.add_parser("export", help="hand a run to an experiment tracker")
    export.add_argument("run", type=Path, metavar="RUN", help="run directory")
    export.add_argument(
        "--to", required=True, metavar="TRACKER", help="tensorboard, mlflow or wandb"
    )
    export.add_argument(
        "--out", type=Path, metavar="DIR", help="where its files go (default: the tracker's own)"
    )

    recipes = commands.add_parser("recipes", help="list or copy the bundled recipes")
    actions = recipes.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("ls", help="list them")
    copy = actions.add_parser("cp", help="copy one here, to change it")
    copy.add_argument("name", help="name of a bundled recipe")
    copy.add_argument("target", nargs="?", type=Path, help="file to write (default: NAME.yaml)")

    validate = commands.add_parser("validate", help="check a recipe without running it")
    validate.add_argument("recipe", help="name of a bundled recipe, or a .yaml file")
    validate.add_argument("overrides", nargs="*", metavar="FIELD=VALUE")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Command-line arguments; None takes those of the process.

    Returns:
        0 when it worked, 1 when the run diverged, or it or a seed failed, 2 for a mistake of the
        user, 130 when it was interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an ASCII terminal shows escapes, and no error
            stream.reconfigure(errors="backslashreplace")
    try:
        return _obey(arguments)
    except _NoOutputError as error:
        _complain(error)
        return FAILED
    finally:
        Lenient(sys.stdout).flush()


def _obey(arguments: Sequence[str] | None) -> int:
    parsed = _parse(arguments)
    # `kill` ends a run the way Ctrl-C does: with a readable run directory.
    signal.signal(signal.SIGTERM, _interrupt)
    interruption.end_with_stdin()
    # What our dependencies deprecate is no news to somebody who looks at a progress bar.
    warnings.simplefilter("ignore")
    command = {
        "run": _run,
        "report": _report,
        "compare": _compare,
        "export": _export,
        "recipes": _recipes,
        "validate": _validate,
    }
    try:
        return command[parsed.command](parsed)
    except ValueError as error:
        _complain(error)
        return USER_ERROR
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    top = parser()
    parsed, rest = top.parse_known_args(arguments)
    # argparse stops collecting overrides at the first option; those behind it are meant, too.
    late = hasattr(parsed, "overrides") and all(
        "=" in word and not word.startswith("-") for word in rest
    )
    if rest and not late:
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if late:
        parsed.overrides += rest
    if parsed.command == "run" and parsed.resume is None:
        if parsed.recipe is not None and "=" in parsed.recipe:
            # With no recipe before it, the first override stands where the recipe does.
            parsed.recipe, parsed.overrides = None, [parsed.recipe, *parsed.overrides]
        parsed.recipe = parsed.recipe or MAIN
    return parsed


def _run(parsed: argparse.Namespace) -> int:
    from capacity.recipe import config

    if parsed.resume is not None:
        _take_up(parsed)
    if parsed.seeds is not None:
        return _run_seeds(parsed)
    if parsed.jobs is not None:
        raise ValueError("--jobs says how many seeds run at a time; name them with --seeds, as 0-9")
    recipe = config.load(parsed.recipe, parsed.overrides)
    # torch takes seconds to import; a wrong recipe should not
    from capacity.runs.run import RunFailedError, run

    try:
        made = run(
            recipe,
            out=parsed.out,
            device=parsed.device,
            quiet=parsed.quiet,
            checkpoint_minutes=parsed.checkpoint_minutes,
            threads=parsed.threads,
            processes=parsed.processes,
        )
    except RunFailedError as error:
        if not isinstance(error.__cause__, OSError):
            raise  # ours: the traceback says where
        return _failed(error)
    page = made.path / "report.html"
    whole = page.is_file() and made.status != "diverged"  # reading a damaged run says so, alone
    _say(page if page.is_file() else made.path)
    return 0 if whole else FAILED


def _take_up(parsed: argparse.Namespace) -> None:
    """Fill in what --resume leaves out: the recipe, the directory and the seeds."""
    folder = parsed.resume
    if parsed.out is not None:
        raise ValueError("--resume and --out both name the directory; leave --out out")
    if parsed.recipe is not None and "=" in parsed.recipe:
        # With no recipe before it, the first override stands where the recipe does.
        parsed.recipe, parsed.overrides = None, [parsed.recipe, *parsed.overrides]
    parsed.out = folder
    saved = folder / "recipe.yaml"
    if not saved.is_file():
        from capacity.runs.seeds_folder import SeedsFolder

        seeds = SeedsFolder(folder)
        asked = seeds.asked()
        if not asked:
            raise ValueError(
                f"--resume {str(folder)!r} is no run directory and no folder of seeds; pass what "
                "`capacity run` printed"
            )
        saved = seeds.recipe_path
        parsed.seeds = parsed.seeds or ",".join(map(str, asked))
    parsed.recipe = parsed.recipe or saved


def _run_seeds(parsed: argparse.Namespace) -> int:
    from capacity.recipe import config

    if any(word.partition("=")[0].strip() == "seed" for word in parsed.overrides):
        raise ValueError("seed=... and --seeds name the seed twice; leave one of them out")
    recipe = config.load(parsed.recipe, parsed.overrides)
    from capacity.runs.seeds_folder import parse_seeds

    seeds = parse_seeds(parsed.seeds)
    if parsed.threads is not None:
        raise ValueError("--threads is for one run; seeds share the cores by --jobs")
    jobs = positive_int("jobs", 1 if parsed.jobs is None else parsed.jobs)
    from capacity.runs.seed_runs import run_seeds

    made = run_seeds(
        recipe,
        seeds,
        jobs=jobs,
        out=parsed.out,
        device=parsed.device,
        quiet=parsed.quiet,
        checkpoint_minutes=parsed.checkpoint_minutes,
    )
    _say(made.path)
    return FAILED if made.failed or made.diverged else 0


def _report(parsed: argparse.Namespace) -> int:
    from capacity.report.renderer import RenderingError
    from capacity.runs.report_door import write_report

    try:
        _say(write_report(parsed.run, parsed.output))
    except RenderingError as error:
        return _failed(error)
    return 0


def _compare(parsed: argparse.Namespace) -> int:
    from capacity.results.gather import run_directories

    run_directories(parsed.runs)
    from capacity.comparison.compare import compare
    from capacity.report.renderer import RenderingError

    made = compare(*parsed.runs)
    try:
        path = made.report(parsed.output)
    except RenderingError as error:
        return _failed(error)
    _say(made)
    _say()
    _say(path)
    return 0


def _export(parsed: argparse.Namespace) -> int:
    from capacity.exporters.export import export

    _say(export(parsed.run, to=parsed.to, out=parsed.out))
    return 0


def _recipes(parsed: argparse.Namespace) -> int:
    from capacity.recipe import config

    if parsed.action == "ls":
        names = config.recipe_names()
        width = max(map(len, names), default=0)
        for name in names:
            _say(f"{name:<{width}}  {config.load(name).description}")
        return 0
    source = config.recipe_path(parsed.name)
    target = parsed.target or Path(source.name)
    if target.exists():
        raise ValueError(f"target = {str(target)!r} exists; name another file")
    try:
        target.write_bytes(source.read_bytes())
    except OSError as error:
        raise ValueError(f"target = {str(target)!r} cannot be written ({error.strerror})") from None
    _say(target)
    return 0


def _validate(parsed: argparse.Namespace) -> int:
    from capacity.recipe import config

    _say(config.load(parsed.recipe, parsed.overrides).to_yaml(), end="")
    return 0


def _failed(error: Exception) -> int:
    _complain(error)
    return FAILED


def _complain(error: Exception | str) -> None:
    Lenient(sys.stderr).write(visible(f"capacity: {' '.join(str(error).split())}") + "\n")


def _say(text: object = "", end: str = "\n") -> None:
    """Print a result; a reader that left has seen what it wanted."""
    if sys.stdout is None:  # closed by whoever started us
        return
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        nowhere(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            raise _NoOutputError(
                f"standard output cannot be written ({error.strerror}); send it elsewhere"
            ) from None


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
