"""Does the cost of many tasks, many runs and many steps grow no faster than they do?

Three parts, each a process of its own, so that its memory is its own; processor time, one thread.

tasks   One run of T tasks of 20 samples each (a network of 178 parameters, two epochs). The
        processor time of every task is split into what evaluates, forecasts or preserves other
        tasks and the rest; printed is the exponent with which each grows over the number of the
        task, over the last three quarters of the tasks. 0 is flat, 1 linear. The report is drawn at
        the end, and timed by itself.
runs    N copies of one small run, with a seed and digests each, through `load_runs` and a query,
        first without summaries, which it leaves, and then with them, and through `compare`:
        processor time and peak memory; and of N/4, N/2 and N the exponent with which they grow.
steps   S steps of SGD, without the tracker, with one that keeps no states, and with one that keeps
        1 MiB of them: resident memory after each tenth of the steps, and its growth over the
        second half.

    python benchmarks/reliability/load.py tasks [--count 40] [--full] [--old "last 5"] [--work DIR]
        [--save]
    python benchmarks/reliability/load.py runs [--count 1000]  [--work DIR] [--save]
    python benchmarks/reliability/load.py steps [--count 5000] [--work DIR] [--save]

With `--work` a part that was cut off goes on where it stopped: the run from its journal, the copies
from those that are there, the steps from the trackers that are done.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import capacity
from capacity.base.files import to_lines
from capacity.recipe import config
from capacity.results.manifest import Manifest
from capacity.runs import execute, run
from capacity.runs.before_task import BeforeTask
from capacity.runs.environment import describe

RESULTS = Path(__file__).parent / "results"
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--count", type=int, help="tasks, runs or steps")
    parser.add_argument("--full", action="store_true", help="tasks: with every measure of a run")
    parser.add_argument("--old", default="all", help="tasks: measure.old, as 'last 5'")
    parser.add_argument("--work", type=Path, help="where files are kept; a temporary folder")
    parser.add_argument("--save", action="store_true", help="write the table into results")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    part, count = PARTS[asked.part]
    with tempfile.TemporaryDirectory() as folder:
        work = asked.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        of_tasks = {"full": asked.full, "old": asked.old} if asked.part == "tasks" else {}
        made = part(asked.count or count, work, **of_tasks)
    machine = describe(torch.device("cpu"))["device_name"]
    head = f"{machine}, Python {platform.python_version()}, torch {torch.__version__}, one thread"
    text = "\n".join([head, "", *made]) + "\n"
    print(text)
    if asked.save:
        kind = f"{asked.part}-full" if asked.full else asked.part
        kind += "" if asked.old == "all" else f"-{asked.old.replace(' ', '-')}"
        (RESULTS / f"load-{kind}.txt").write_text(text, encoding="utf-8")


def apart(work: Callable[..., Any], *given: object) -> tuple[Any, float, float]:
    """Call a function in a process of its own: what it gives, its seconds, its peak memory."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, work, given))
    process.start()
    theirs.close()
    try:
        answer: tuple[Any, float, float] = ours.recv()
    except EOFError:
        raise SystemExit(f"{work.__name__} failed; its error stands above") from None
    process.join()
    return answer


def _answer(pipe: Any, work: Callable[..., Any], given: tuple[object, ...]) -> None:
    torch.set_num_threads(1)
    began = time.process_time()
    made = work(*given)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pipe.send((made, time.process_time() - began, peak))


# Many tasks


def many_tasks(count: int, work: Path, *, full: bool, old: str) -> list[str]:
    """Run many tasks, and follow what each of them cost."""
    name = f"tasks-{count}-{'full' if full else 'lean'}-{old.replace(' ', '-')}"
    apart(run_tasks, count, work / name, full, old)
    seconds, peak = apart(draw, work / name)[1:]
    spent = [json.loads(line) for line in kept_seconds(work / name).read_text().splitlines()]
    size = (work / name / "result.json").stat().st_size
    # After the last task all are scored, whatever was chosen before.
    spent = spent if old == "all" else spent[:-1]
    last = spent[len(spent) // 4 :]
    rows = [
        ("evaluating and forecasting other tasks", [old for _, old in last]),
        ("everything else", [whole - old for whole, old in last]),
        ("together", [whole for whole, _ in last]),
    ]
    numbers = [math.log(len(spent) - len(last) + k + 1) for k in range(len(last))]
    lines = [
        f"One run of {count} tasks of 20 samples ({'every measure' if full else 'accuracies'}, old "
        f"tasks: {old}): "
        f"{sum(s for s, _ in spent):.0f} s of processor time, and {seconds:.0f} s for the report "
        f"with its imports, peak {peak:.0f} MiB; result.json {size / MIB:.1f} MiB",
        "",
        f"{'cost per task':<42}{'exponent':>9}{'first':>9}{'last':>9}  s, of the tasks counted",
    ]
    for label, costs in rows:
        ends = max(len(costs) // 5, 1)
        first, final = sum(costs[:ends]) / ends, sum(costs[-ends:]) / ends
        lines.append(f"{label:<42}{slope(numbers, costs):>9.2f}{first:>9.3f}{final:>9.3f}")
    return lines


def kept_seconds(out: Path) -> Path:
    return out.with_name(f"{out.name}.jsonl")


def draw(out: Path) -> None:
    capacity.open_run(out).report()


def run_tasks(count: int, out: Path, full: bool, chosen: str) -> None:
    """Carry out one run, and keep per task seconds in all and seconds spent on other tasks."""
    draw = torch.Generator().manual_seed(0)
    tasks = []
    for _ in range(count):
        x, direction = torch.randn(40, 8, generator=draw), torch.randn(8, generator=draw)
        y = (x @ direction > 0).long()
        tasks.append(((x[:20], y[:20]), (x[20:], y[20:])))
    measure = capacity.Measure(level="full", old=chosen)
    if not full:
        measure = capacity.Measure(forecast=False, old=chosen)
    kept, old = kept_seconds(out), [0.0]
    known = len(kept.read_text().splitlines()) if kept.exists() else 0

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            began = time.process_time()
            try:
                return function(*given, **named)
            finally:
                old[0] += time.process_time() - began

        return call

    def ended(self: execute.Execution, i: int) -> None:
        nonlocal at
        after(self, i)
        now = time.process_time()
        if i >= known:
            with kept.open("a", encoding="ascii") as file:
                file.write(f"[{now - at[0]}, {old[0] - at[1]}]\n")
        at = (now, old[0])

    after, at = execute.Execution._after, (time.process_time(), 0.0)
    execute.scores_of = timed(execute.scores_of)
    BeforeTask.forecast = timed(BeforeTask.forecast)  # type: ignore[method-assign]
    BeforeTask.room = timed(BeforeTask.room)  # type: ignore[method-assign]
    execute.Execution._after = ended  # type: ignore[method-assign]
    run.Run.report = lambda self, _=None: self.path  # type: ignore[method-assign]
    torch.manual_seed(0)  # a run that goes on begins with the same network
    capacity.run(
        tasks,
        model=torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2)),
        training=capacity.Training(lr=0.2, epochs=2, batch_size=10),
        measure=measure,
        replicas=2,
        out=out,
        quiet=True,
    )


def slope(x: list[float], costs: list[float]) -> float:
    """Fit the exponent of costs over the numbers of the tasks, by least squares of logarithms."""
    y = [math.log(max(cost, 1e-9)) for cost in costs]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    top = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return top / sum((a - mean_x) ** 2 for a in x)


# Many runs


def many_runs(count: int, work: Path) -> list[str]:
    """Read many runs."""
    one, folder = work / "one", work / "many"
    if not (one / "report.html").is_file():
        apart(run_one, one)
    copy(one, folder, count)
    rows = []
    _, base, least = apart(queried, one, 1)
    ways = {
        "load_runs, no summaries": (queried, [count]),
        "load_runs, one query": (queried, [count // 4, count // 2, count]),
        "compare, printed": (compared, [count // 4, count // 2, count]),
    }
    for path in folder.glob("*/summary.parquet"):
        path.unlink()
    for label, (function, counts) in ways.items():
        costs = []
        for some in counts:
            said, seconds, peak = apart(function, folder, some)
            costs.append(seconds)
        grows = slope([math.log(n) for n in counts], costs) if len(counts) > 1 else None
        rows.append((label, seconds, peak, grows, said))
    lines = [
        f"{count} runs of tiny-digits ({size(one) / 1024:.0f} KiB each without report and "
        "checkpoints)",
        "",
        f"{'':<26}{'s':>8}{'ms a run':>10}{'exponent':>10}{'peak MiB':>10}{'KiB a run':>11}",
        f"{'one run (imports)':<26}{base:>8.1f}{'':>10}{'':>10}{least:>10.0f}",
    ]
    for label, seconds, peak, grows, said in rows:
        each = 1000 * (seconds - base) / count
        exponent = "" if grows is None else f"{grows:.2f}"
        kept = 1024 * (peak - least) / count
        lines.append(
            f"{label:<26}{seconds:>8.1f}{each:>10.2f}{exponent:>10}{peak:>10.0f}{kept:>11.1f}  "
            f"{said}"
        )
    return lines


def run_one(out: Path) -> None:
    capacity.run(config.load("tiny-digits"), out=out, quiet=True)


def copied(folder: Path) -> list[Path]:
    names = ("report.html", "manifest.json", "summary.parquet")
    return [path for path in sorted(folder.iterdir()) if path.is_file() and path.name not in names]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in copied(folder))


def copy(one: Path, folder: Path, count: int) -> None:
    """Copy a run, each copy with a seed of its own; those that are there stay."""
    for k in range(count):
        target = folder / f"seed-{k}"
        if target.is_dir():
            continue
        part = folder / f".part-{k}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for path in copied(one):
            shutil.copy(path, part / path.name)
        recipe = (one / "recipe.yaml").read_text(encoding="utf-8")
        (part / "recipe.yaml").write_text(recipe.replace("\nseed: 0", f"\nseed: {k}"), "utf-8")
        result = json.loads((one / "result.json").read_bytes()) | {"seed": k}
        result["recipe"] |= {"seed": k}
        (part / "result.json").write_bytes(to_lines(result))
        Manifest(part).begin([path.name for path in copied(one)])
        os.rename(part, target)


def _paths(folder: Path, count: int) -> list[Path]:
    return [folder] if count == 1 else [folder / f"seed-{k}" for k in range(count)]


def queried(folder: Path, count: int) -> str:
    tables = capacity.load_runs(_paths(folder, count))
    (row,) = tables.query("SELECT count(*), avg(accuracy) FROM runs").rows
    (rows,) = tables.query("SELECT count(*) FROM metrics").rows
    return f"{row[0]} runs, mean accuracy {row[1]:.3f}, {rows[0]} rows of metrics"


def compared(folder: Path, count: int) -> str:
    made = capacity.compare(_paths(folder, count))
    assert str(made)
    return f"{len(made.gathered.counted)} runs counted"


# Many steps


def many_steps(count: int, work: Path) -> list[str]:
    """Train with and without the tracker."""
    lines = [
        f"{count} steps of SGD on 8 samples, 18 parameters",
        "",
        f"{'':<28}{'us a step':>10}{'MiB after a tenth':>19}{'half':>8}{'all':>8}"
        f"{'bytes a step, second half':>27}",
    ]
    ways = {"no tracker": None, "tracker, no states": 0, "tracker, 1 MiB of states": MIB}
    for label, budget in ways.items():
        kept = work / f"steps-{count}-{budget}.json"
        if not kept.is_file():
            made, seconds, _ = apart(take_steps, count, budget)
            kept.write_text(json.dumps([made, seconds]), encoding="utf-8")
        memory, seconds = json.loads(kept.read_text(encoding="utf-8"))
        growth = (memory[-1] - memory[4]) / (count / 2)
        shown = "".join(f"{memory[k] / MIB:>{w}.1f}" for k, w in ((0, 19), (4, 8), (-1, 8)))
        lines.append(f"{label:<28}{1e6 * seconds / count:>10.0f}{shown}{growth:>27.1f}")
    return lines


def take_steps(count: int, budget: int | None) -> list[int]:
    """Train; resident bytes after each tenth of the steps."""
    torch.manual_seed(0)
    x, y = torch.randn(64, 8), torch.randint(2, (64,))
    model = torch.nn.Linear(8, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker = None
    if budget is not None:
        tracker = capacity.TransportTracker(
            model, "cross_entropy", optimizer, tangents=4, budget=budget
        )
    memory = []
    for k in range(count):
        batch = slice(8 * (k % 8), 8 * (k % 8) + 8)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        if tracker is not None:
            tracker.observe(x[batch], y[batch])
        optimizer.step()
        if (k + 1) % (count // 10) == 0:
            memory.append(resident())
    return memory


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


PARTS = {"tasks": (many_tasks, 40), "runs": (many_runs, 1000), "steps": (many_steps, 5000)}

if __name__ == "__main__":
    main()
