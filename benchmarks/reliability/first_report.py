"""How long does a newcomer wait for the first report?

What the README says, step by step, in a fresh virtual environment: `pip install` of a checkout with
all dependencies from the package index, then `capacity run`, the main job. pip may find packages
in its cache; `--no-cache` takes it away.

    python benchmarks/reliability/first_report.py [--checkout DIR] [--no-cache] [--save]
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
HERE = Path(__file__).resolve().parents[2]


def timed(*words: str | Path, at: Path) -> float:
    """Run a command and time it; one that fails ends the measurement."""
    start = time.perf_counter()
    subprocess.run([str(word) for word in words], check=True, cwd=at, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkout", type=Path, default=HERE, help="the checkout to install")
    parser.add_argument("--no-cache", action="store_true", help="let pip download everything")
    parser.add_argument("--save", action="store_true", help="write results/first_report.txt")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        commands = place / "venv" / "bin"
        fresh = ["--no-cache-dir"] if asked.no_cache else []
        steps = {
            "python -m venv": timed(sys.executable, "-m", "venv", place / "venv", at=place),
            "pip install": timed(
                commands / "pip", "install", "-q", *fresh, asked.checkout.resolve(), at=place
            ),
            "capacity run": timed(commands / "capacity", "run", "--out", place / "run", at=place),
        }
        size = (place / "run" / "report.html").stat().st_size
    text = "\n".join([
        f"From nothing to the first report, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores ({platform.processor() or platform.machine()})",
        *(f"  {name:<28}{seconds:7.0f} s" for name, seconds in steps.items()),
        f"  {'in all':<28}{sum(steps.values()):7.0f} s, for a report of {size / 1e6:.1f} MB",
        f"pip's cache: {'not used' if asked.no_cache else 'used'}",
    ])
    print(text)
    if asked.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "first_report.txt").write_text(text + "\n")


if __name__ == "__main__":
    main()
