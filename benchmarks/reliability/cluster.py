"""Do jobs of a SLURM cluster give what the same runs give alone, whatever is killed?

A sweep of small runs is submitted by `capacity sweep --on slurm`. At random moments one of its jobs
is cancelled or put back into the queue, and the process that submits is killed; `capacity sweep
--resume` takes over, until nothing is left. Asserted: every run ends with the `result.json` of the
same recipe run alone, byte for byte.

    python benchmarks/reliability/cluster.py [--runs 200] [--kills 10] [--deaths 2] [--save]

needs a SLURM, of one node at least; its controller may be that of one's own machine.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import capacity
from capacity.runs.sweep import Sweep

RESULT = Path(__file__).parent / "results" / "cluster.txt"
FIELDS = [
    "training.epochs=2", "tasks.experiences=2", "tasks.samples=64", "measure.level=forecast",
    "replicas=1",
]  # fmt: skip


def submitting(arguments: list[str], jobs: int) -> subprocess.Popen[bytes]:
    """Start a process that submits.

    Args:
        arguments: Those of `capacity sweep`.
        jobs: Jobs at a time.

    Returns:
        The process.
    """
    command = [sys.executable, "-m", "capacity.cli", "sweep", *arguments]
    command += ["--on", "slurm", "--jobs", str(jobs), "--minutes", "10", "--quiet"]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def running() -> list[str]:
    """List the jobs that the cluster works on.

    Returns:
        Their numbers.
    """
    asked = ["squeue", "--noheader", "--states", "RUNNING", "--format", "%A"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10, help="of jobs")
    parser.add_argument("--deaths", type=int, default=2, help="of the process that submits")
    parser.add_argument("--jobs", type=int, default=2, help="at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help=f"write results/{RESULT.name}")
    asked = parser.parse_args()
    if shutil.which("sbatch") is None:
        parser.error("there is no sbatch here; run this on a machine of a SLURM cluster")
    began, draw = time.monotonic(), random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sweep"
        begin = ["tiny-digits", *FIELDS, "--seeds", f"0-{asked.runs - 1}", "--out", str(path)]
        again = ["--retry", str(path)]
        process = submitting(begin, asked.jobs)
        cancelled = requeued = deaths = rounds = 0
        while True:
            time.sleep(draw.uniform(1, 8))
            if process.poll() is not None:
                if Sweep.open(path).counts["finished"] == asked.runs:
                    break
                rounds += 1
                process = submitting(again, asked.jobs)
                continue
            jobs = running()
            if cancelled + requeued < asked.kills and jobs:
                job = draw.choice(jobs)
                if (cancelled + requeued) % 2:
                    subprocess.run(["scontrol", "requeue", job], check=False)
                    requeued += 1
                else:
                    subprocess.run(["scancel", "--signal", "KILL", "--full", job], check=False)
                    cancelled += 1
            elif deaths < asked.deaths and jobs:
                process.kill()
                process.wait()
                deaths += 1
        same = 0
        for label, run in Sweep.open(path).runs.items():
            alone = capacity.run(
                run.path / "recipe.yaml", out=Path(folder) / "alone" / label, quiet=True
            )
            ends = [each / "result.json" for each in (run.path, alone.path)]
            same += ends[0].read_bytes() == ends[1].read_bytes()
    text = (
        f"{asked.runs} runs as SLURM jobs, {asked.jobs} at a time: {cancelled} jobs killed, "
        f"{requeued} put back into the queue, the submitting process killed {deaths} times, "
        f"the sweep taken up again {rounds} times\n"
        f"{same} of {asked.runs} results are those of the same runs alone, byte for byte\n"
        f"{time.monotonic() - began:.0f} s\n"
    )
    print(text, end="")
    if asked.save:
        RESULT.write_text(text)
    assert same == asked.runs, "a run ended otherwise than alone"


if __name__ == "__main__":
    main()
