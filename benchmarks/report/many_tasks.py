"""How large is the report of a run of very many tasks, every measure on?

The run is made up, after the schema of `result.json`, by what the tests make theirs with: 200 real
tasks with every measure take hours. Printed is what the page weighs, part by part.

    python benchmarks/report/many_tasks.py [--tasks 200] [--save]
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

from capacity.report.page import render

HERE = Path(__file__).parent
RESULT = HERE / "results" / "many_tasks.txt"
MOST_BYTES = 3_000_000
PARTS = {"figures": "svg", "tables": "table", "scripts and their data": "script"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--save", action="store_true", help=f"write results/{RESULT.name}")
    asked = parser.parse_args()
    sys.path.insert(0, str(HERE.parents[1] / "tests"))
    from report import fabricated_run

    fabricated_run.LONG = asked.tasks
    with tempfile.TemporaryDirectory() as folder:
        run = fabricated_run.write(Path(folder) / "run", "long")
        began = time.process_time()
        page = render(run, run / "report.html").read_text(encoding="utf-8")
    weight = len(page.encode())
    lines = [
        f"{asked.tasks} tasks, every measure: {weight / 1e6:.2f} MB "
        f"(aim: at most {MOST_BYTES / 1e6:.0f}), {time.process_time() - began:.0f} s of processor "
        "time without the process that draws"
    ]
    for name, tag in PARTS.items():
        found = re.findall(rf"<{tag}\b.*?</{tag}>", page, re.DOTALL)
        lines.append(f"{name:<24}{len(found):>4}{sum(map(len, found)) / 1e6:>8.2f} MB")
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if asked.save:
        RESULT.write_text(text, encoding="utf-8")
    assert weight <= MOST_BYTES, "the page is larger than it may be"


if __name__ == "__main__":
    main()
