"""What does it cost to be handed something hostile: a line, or the machine?

Conditions: every input goes to `capacity` in a process of its own, on one thread, with at most
60 s of processor time. Recipes, run directories, names, questions in
SQL and shells; the run directories are copies of a small real run in which one thing was changed.

Asserted: no traceback, no signal, at most one line on stderr, and the exit code that stands in the
table below.

Printed, per input: exit code, lines on stderr, peak memory of the process, processor time.

    python benchmarks/reliability/hostile.py [--save]
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_CLI = [sys.executable, "-m", "capacity.cli"]
_ASK = [
    sys.executable,
    "-c",
    "import sys, capacity\ntry:\n    print(capacity.query(*sys.argv[1:]))\n"
    "except ValueError as error:\n    sys.exit(f'capacity: {error}'.replace(chr(10), ' '))",
]

_RUN = """
import sys, torch, capacity
x = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0))
splits = [capacity.Split(v, (v[:, 0] > 0).long()) for v in x]
off = dict.fromkeys(("forecast", "transport", "capacity", "verdicts"), False)
names = [f"task {k}\\x1b[31m\\0\\ufffe" for k in range(2)]
capacity.run(
    [capacity.Task(name=n, train=s, test=s) for n, s in zip(names, splits)],
    model=lambda: torch.nn.Linear(3, 2),
    training=capacity.Training(epochs=2),
    measure=capacity.Measure(closure_points=0, **off),
    replicas=2,
    quiet=True,
    out=sys.argv[1],
)
"""


@dataclass(frozen=True)
class Case:
    """One input: what it is, how it is called, which exit code is right."""

    name: str
    command: list[str]
    code: int


def recipes(folder: Path) -> list[Case]:
    """Recipes that are not what they seem."""
    bomb = ["x0: &x0 [a, a]"] + [
        f"x{k}: &x{k} [{', '.join([f'*x{k - 1}'] * 9)}]" for k in range(1, 9)
    ]
    texts = {
        "a key twice": "name: a\nseed: 1\nseed: 2\n",
        "an alias bomb": "\n".join([*bomb, "description: *x8"]),
        "5,000 levels": "name: " + "[" * 5000 + "]" * 5000,
        "a number of 31 digits": "name: a\nseed: 1" + "0" * 30 + "\n",
        "50 MB": "a: 1\n" * 10**7,
        "an object of Python": "name: !!python/object/apply:os.getcwd []\n",
        "itself inside": "&a\nname: x\ntasks: *a\n",
        "zeros": "\0" * 64,
    }
    cases = []
    for k, (name, text) in enumerate(texts.items()):
        path = folder / f"{k}.yaml"
        path.write_text(text)
        cases.append(Case(f"recipe: {name}", [*_CLI, "validate", str(path)], 2))
    return cases


def directories(run: Path, folder: Path) -> list[Case]:
    """Run directories of strangers."""

    def content(name: str, text: str) -> Callable[[Path], None]:
        return lambda copy: (copy / name).write_text(text) and None

    damages: dict[str, tuple[Callable[[Path], object], int]] = {
        "control characters in the names of its tasks": (lambda _: None, 0),
        "result.json of 100,000 brackets": (content("result.json", "[" * 100_000), 2),
        "status.json of 100,000 brackets": (content("status.json", '{"a":' * 100_000), 2),
        "a number of 10,000 digits": (content("result.json", '{"seed": ' + "9" * 10_000 + "}"), 2),
        "another program's result": (content("result.json", '{"schema": "x"}'), 2),
        "a recipe of 5,000 levels": (content("recipe.yaml", "[" * 5000), 2),
    }
    cases = []
    for k, (name, (damage, code)) in enumerate(damages.items()):
        copy = folder / f"copy-{k}"
        shutil.copytree(run, copy)
        damage(copy)
        cases.append(Case(f"directory: {name}", [*_CLI, "report", str(copy)], code))
    return cases


def questions(run: Path, folder: Path) -> list[Case]:
    """Names that are patterns, and SQL that is no question."""
    cases = []
    for name in ("lr=0.9", "run[12]", "*", "{a,b}", "~", "-rf"):
        shutil.copytree(run, folder / name)
        cases.append(
            Case(f"name: {name}", [*_ASK, "SELECT max(lr) FROM metrics", str(folder / name)], 0)
        )
    for sql in (
        "COPY runs TO 'stolen.csv'",
        "INSTALL httpfs",
        "SELECT 1; DROP TABLE runs",
        "FROM read_text('/etc/passwd')",
        "WITH gone AS (DELETE FROM runs RETURNING *) FROM gone",
    ):
        cases.append(Case(f"SQL: {sql}", [*_ASK, sql, str(run)], 1))
    return cases


def shells() -> list[Case]:
    """Streams and places that are gone."""
    call = f"{sys.executable} -m capacity.cli recipes ls"
    lines = {
        f"set -o pipefail; {call} | head -1": 0,
        f"{call} >&-": 0,
        f"{call} >/dev/full": 1,
        f"mkdir gone; cd gone; rmdir ../gone; {call}": 0,
        f"LC_ALL=C PYTHONIOENCODING=ascii {call}": 0,
        f"unset HOME; {call}": 0,
    }
    return [
        Case(f"shell: {line.replace(call, 'capacity recipes ls')}", ["bash", "-c", line], code)
        for line, code in lines.items()
    ]


def measured(case: Case, folder: Path) -> tuple[int, int, float, float]:
    """Exit code, lines on stderr, peak memory in MB, processor time in seconds."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))

    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            case.command, cwd=folder, stdout=subprocess.DEVNULL, stderr=said, preexec_fn=limited
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    text = (folder / "said").read_text(errors="replace")
    assert "Traceback" not in text, (case.name, text)
    assert process.returncode == case.code, (case.name, process.returncode, text)
    assert text.count("\n") <= 1, (case.name, text)
    return (
        process.returncode,
        text.count("\n"),
        used.ru_maxrss / 1024,
        used.ru_utime + used.ru_stime,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help="keep the table under results")
    save = parser.parse_args().save
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own: the peak of a child counts from what its parent had.
        subprocess.run([sys.executable, "-c", _RUN, str(folder / "run")], check=True)
        run = folder / "run"
        cases = [*recipes(folder), *directories(run, folder), *questions(run, folder), *shells()]
        lines = [
            f"{platform.machine()}, Python {platform.python_version()}, one thread; "
            f"{len(cases)} inputs, no traceback, no signal, at most one line on stderr",
            f"{'input':<64} {'exit':>4} {'lines':>5} {'peak MB':>8} {'CPU s':>6}",
        ]
        for case in cases:
            code, said, memory, seconds = measured(case, folder)
            lines.append(f"{case.name[:64]:<64} {code:>4} {said:>5} {memory:>8.0f} {seconds:>6.2f}")
    table = "\n".join(lines)
    print(table)
    if save:
        (Path(__file__).parent / "results" / "hostile.txt").write_text(table + "\n")


if __name__ == "__main__":
    main()
