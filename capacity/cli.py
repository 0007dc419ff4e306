"""The command line: arguments in, exit code out. All work is done elsewhere."""

from __future__ import annotations

import argparse
import io
import json
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from capacity.arguments import MAIN, USER_ERROR, parser
from capacity.base import interruption
from capacity.base.checks import positive_int
from capacity.base.console import Lenient, nowhere
from capacity.base.printable import visible
from capacity.runs.sweep_command import run_sweep

FAILED = 1
INTERRUPTED = 130


class _NoOutputError(Exception):
    """Nobody can read what was made."""


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
        "sweep": _sweep,
        "report": _report,
        "compare": _compare,
        "export": _export,
        "recipes": _recipes,
        "validate": _validate,
        "forecast": _forecast,
        "gate": _gate,
        "completion": _completion,
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

    began = time.monotonic()
    if parsed.resume is not None:
        _take_up(parsed)
    if parsed.seeds is not None:
        return _run_seeds(parsed)
    if parsed.jobs is not None:
        raise ValueError("--jobs says how many seeds run at a time; name them with --seeds, as 0-9")
    recipe = config.load(parsed.recipe, parsed.overrides)
    if not parsed.no_report:
        from capacity.report.renderer import bundle_ahead

        bundle_ahead()
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
            report=not parsed.no_report,
        )
    except RunFailedError as error:
        if not error.passing:
            raise  # ours: the traceback says where
        return _failed(error)
    page = made.path / "report.html"
    whole = (
        page.is_file() or parsed.no_report
    ) and made.status != "diverged"  # reading a damaged run says so, alone
    record = {"run": made.path, "status": made.status, "report": page if page.is_file() else None}
    _show(parsed, record["report"] or made.path, record)
    if parsed.profile:
        from capacity.runs.directory import RunDirectory
        from capacity.runs.shares import shares

        spent = RunDirectory.open(made.path).status()["seconds"]
        Lenient(sys.stderr).write(shares(spent, time.monotonic() - began) + "\n")
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
    if parsed.profile:
        raise ValueError("--profile is for one run; leave --seeds out")
    if parsed.no_report:
        raise ValueError("--no-report is for one run; capacity sweep RECIPE --seeds takes it, too")
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
    record = {"runs": made.path, "failed": sorted(made.failed), "diverged": sorted(made.diverged)}
    _show(parsed, made.path, record)
    return FAILED if made.failed or made.diverged else 0


def _sweep(parsed: argparse.Namespace) -> int:
    made, code = run_sweep(parsed)
    _show(parsed, made, {"sweep": made.path, "counts": made.counts, "states": made.states})
    return code


def _report(parsed: argparse.Namespace) -> int:
    from capacity.report.renderer import RenderingError
    from capacity.runs.report_door import write_report

    try:
        page = write_report(parsed.run, parsed.output)
        _show(parsed, page, {"report": page})
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
    record = {
        "headline": made.headline,
        "variants": made.variants,
        "differences": made.differences,
        "report": path,
    }
    _show(parsed, f"{made}\n\n{path}", record)
    return 0


def _export(parsed: argparse.Namespace) -> int:
    from capacity.exporters.export import export

    where = export(parsed.run, to=parsed.to, out=parsed.out)
    _show(parsed, where, {"export": where})
    return 0


def _recipes(parsed: argparse.Namespace) -> int:
    from capacity.recipe import config

    if parsed.action == "ls":
        names = config.recipe_names()
        width = max(map(len, names), default=0)
        listed = {name: config.load(name).description for name in names}
        text = "\n".join(f"{name:<{width}}  {said}" for name, said in listed.items())
        _show(parsed, text, listed)
        return 0
    source = config.recipe_path(parsed.name)
    target = parsed.target or Path(source.name)
    if target.exists():
        raise ValueError(f"target = {str(target)!r} exists; name another file")
    try:
        target.write_bytes(source.read_bytes())
    except OSError as error:
        raise ValueError(f"target = {str(target)!r} cannot be written ({error.strerror})") from None
    _show(parsed, target, {"recipe": target})
    return 0


def _validate(parsed: argparse.Namespace) -> int:
    from capacity.recipe import config

    recipe = config.load(parsed.recipe, parsed.overrides)
    _show(parsed, recipe.to_yaml().rstrip("\n"), recipe.model_dump(mode="json"))
    return 0


def _forecast(parsed: argparse.Namespace) -> int:
    names, made = _foreseen(parsed)
    from capacity.forecasting.table import table_of

    _show(parsed, table_of(made, names), {"old": names, "forecast": made.to_dict()})
    return 0


def _gate(parsed: argparse.Namespace) -> int:
    limits = {"accuracy_drop": parsed.drop, "loss_increase": parsed.rise}
    if all(limit is None for limit in limits.values()):
        raise ValueError("the gate has no limit; pass --drop 0.05, or --rise 0.1")
    names, made = _foreseen(parsed)
    from capacity.forecasting.curve import exceeded
    from capacity.forecasting.table import line_of

    lost = [k for k, above in enumerate(exceeded(made, **limits)) if above]
    line = line_of(made, names, lost)
    _show(parsed, line, {"passed": not lost, "lost": [names[k] for k in lost], "said": line})
    return USER_ERROR if lost else 0


def _foreseen(parsed: argparse.Namespace) -> tuple[list[str], Any]:
    """Forecast as the arguments ask for it; give the names of the old tasks, too."""
    if (parsed.recipe is None) == (parsed.trainer is None):
        raise ValueError(
            f"capacity {parsed.command} forecasts a recipe, or what --trainer module:function "
            "returns; pass one of them"
        )
    if parsed.trainer is not None and parsed.task is not None:
        raise ValueError("--task names a task of a recipe; leave it out with --trainer")
    from capacity.base.checks import resolve_device
    from capacity.recipe import config

    try:
        budget = parsed.budget if parsed.budget == "auto" else float(parsed.budget)
    except ValueError:
        raise ValueError(
            f"--budget {parsed.budget!r} is no share; pass 0.05, inf or auto"
        ) from None
    where = resolve_device(parsed.device)
    recipe = None if parsed.recipe is None else config.load(parsed.recipe, parsed.overrides)
    from capacity.forecasting.forecast import forecast
    from capacity.runs.ahead import arguments_from, before_task
    from capacity.runs.progress import Progress

    given: dict[str, Any]
    if recipe is None:
        given = {"device": where, "budget": budget} | arguments_from(parsed.trainer)
        names = list(given["old"]) if isinstance(given["old"], dict) else None
    else:
        progress = Progress(quiet=parsed.quiet)
        given = before_task(recipe, parsed.task, device=where, on_task=progress.line)
        given |= {"device": where, "budget": budget}
        names = [task.name for task in given["old"]]
    made = forecast(given.pop("model"), **given)
    return names or [f"old task {k + 1}" for k in range(len(made.old))], made


def _completion(parsed: argparse.Namespace) -> int:
    from capacity.base.completion import script
    from capacity.recipe import config

    _say(script(parser(), parsed.shell, config.recipe_names()), end="")
    return 0


def _failed(error: Exception) -> int:
    _complain(error)
    return FAILED


def _complain(error: Exception | str) -> None:
    Lenient(sys.stderr).write(visible(f"capacity: {' '.join(str(error).split())}") + "\n")


def _show(parsed: argparse.Namespace, text: object, record: object) -> None:
    """Print a result: for people, or as JSON where that is asked for."""
    if parsed.json:
        text = json.dumps(record, indent=1, default=str, ensure_ascii=False)
    _say(text)


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
