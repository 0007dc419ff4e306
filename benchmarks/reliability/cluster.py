"""Do jobs of a SLURM cluster give what the same runs give alone, whatever is killed?

A sweep of small runs is submitted by `capacity sweep --on slurm`. At random numbers of finished
runs, one of its jobs is killed or put back into the queue, the process that submits is killed, and,
with `--outages`, the controller ends and comes back 30 s later; `capacity sweep --retry` takes
over, until nothing is left. Asserted: every run ends with the `result.json` of the same recipe run
alone, one after the other, byte for byte.

    python benchmarks/reliability/cluster.py [--runs 200] [--kills 10] [--deaths 2] [--outages 0]
        [--work DIR] [--save]

needs a SLURM, of one node at least; for outages its controller is that of one's own machine. With
`--work` a check that was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
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
AWAY = 30.0
"""Seconds that the controller is away."""
KINDS = {"killed": "kills", "requeued": "kills", "deaths": "deaths", "outages": "outages"}


class Chaos:
    """What is ended, and when: drawn from a seed, and kept in a file.

    Args:
        file: Where it is kept.
        asked: Arguments of the command.
    """

    def __init__(self, file: Path, asked: argparse.Namespace) -> None:
        self._file, self._draw = file, random.Random(asked.seed)
        if file.is_file():
            self._kept = json.loads(file.read_text())
            return
        kinds = [("killed", "requeued")[k % 2] for k in range(asked.kills)]
        kinds += ["deaths"] * asked.deaths + ["outages"] * asked.outages
        self._draw.shuffle(kinds)
        moments = sorted(self._draw.sample(range(asked.runs), len(kinds)))
        self._kept = {"left": list(zip(moments, kinds, strict=True)), "done": [], "rounds": 0}
        self._kept["seconds"] = 0.0

    @property
    def record(self) -> dict[str, float]:
        """How often each kind happened, the rounds and the seconds."""
        done = self._kept["done"]
        counts = {kind: done.count(kind) for kind in KINDS}
        return counts | {name: self._kept[name] for name in ("rounds", "seconds")}

    def due(self, finished: int) -> str | None:
        """Say what is due after so many runs."""
        left = self._kept["left"]
        return left[0][1] if left and finished >= left[0][0] else None

    def happened(self) -> None:
        """What was due happened."""
        self._kept["done"].append(self._kept["left"].pop(0)[1])
        self.keep()

    def keep(self, *, rounds: int = 0, seconds: float = 0.0) -> None:
        """Write it down, with further rounds and seconds."""
        self._kept["rounds"] += rounds
        self._kept["seconds"] += seconds
        self._file.write_text(json.dumps(self._kept))

    def chosen(self, jobs: list[str]) -> str:
        """Draw a job."""
        return self._draw.choice(jobs)


def submitting(arguments: list[str], jobs: int) -> subprocess.Popen[bytes]:
    """Start a process that submits.

    Args:
        arguments: Those of `capacity sweep`.
        jobs: Jobs at a time.

    Returns:
        The process.
    """
    command = [sys.executable, "-m", "capacity.cli", "sweep", *arguments, "--no-report"]
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


def finished(sweep: Path) -> int:
    """Count the runs that ended, without reading their recipes."""
    return sum('"finished"' in file.read_text() for file in sweep.glob("*/status.json"))


def end(kind: str, job: str, process: subprocess.Popen[bytes]) -> bool:
    """End a job, put it back into the queue, end who submits, or the controller for a while.

    Args:
        kind: Which of these.
        job: The job's number.
        process: Who submits.

    Returns:
        Whether it was done; a job may end by itself just before.
    """
    ways = {
        "killed": ["scancel", "--signal", "KILL", "--full", job],
        "requeued": ["scontrol", "requeue", job],
    }
    if kind in ways:
        return subprocess.run(ways[kind], check=False).returncode == 0
    if kind == "deaths":
        process.kill()
        process.wait()
    else:
        subprocess.run(["scontrol", "shutdown", "slurmctld"], check=True)
        time.sleep(AWAY)
        subprocess.run(["slurmctld"], check=True)
    return True


def carry_out(path: Path, chaos: Chaos, asked: argparse.Namespace) -> None:
    """Submit, end what is due, and take over, until every run is there."""
    begin = ["tiny-digits", *FIELDS, "--seeds", f"0-{asked.runs - 1}", "--out", str(path)]
    again = ["--retry", str(path)]
    process = submitting(again if (path / "sweep.json").is_file() else begin, asked.jobs)
    said = time.monotonic()
    while True:
        time.sleep(2)
        now, ended = time.monotonic(), finished(path)
        if now - said > 60:
            chaos.keep(seconds=now - said)
            print(f"{ended} of {asked.runs} {chaos.record}", flush=True)
            said = now
        if process.poll() is not None:
            if Sweep.open(path).counts["finished"] == asked.runs:
                return
            chaos.keep(rounds=1)
            process = submitting(again, asked.jobs)
            continue
        kind = chaos.due(ended)
        if kind is None:
            continue
        time.sleep(random.Random(ended).uniform(0, 6))  # somewhere in a run
        jobs = running()
        if jobs and end(kind, chaos.chosen(jobs), process):
            chaos.happened()


def same_alone(path: Path, alone: Path) -> int:
    """Run every recipe alone, and count the results that are the same bytes."""
    same = 0
    for label, run in Sweep.open(path).runs.items():
        made = capacity.run(run.path / "recipe.yaml", out=alone / label, quiet=True, report=False)
        ends = [each / "result.json" for each in (run.path, made.path)]
        same += ends[0].read_bytes() == ends[1].read_bytes()
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10, help="of jobs")
    parser.add_argument("--deaths", type=int, default=2, help="of the process that submits")
    parser.add_argument("--outages", type=int, default=0, help="of the controller")
    parser.add_argument("--jobs", type=int, default=2, help="at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="where files are kept; a temporary folder")
    parser.add_argument("--save", action="store_true", help=f"write results/{RESULT.name}")
    asked = parser.parse_args()
    if shutil.which("sbatch") is None:
        parser.error("there is no sbatch here; run this on a machine of a SLURM cluster")
    with tempfile.TemporaryDirectory() as folder:
        work = asked.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        chaos = Chaos(work / "chaos.json", asked)
        carry_out(work / "sweep", chaos, asked)
        same = same_alone(work / "sweep", work / "alone")
    found = chaos.record
    text = (
        f"{asked.runs} runs as SLURM jobs, {asked.jobs} at a time: {found['killed']} jobs killed, "
        f"{found['requeued']} put back into the queue, the submitting process killed "
        f"{found['deaths']} times, the controller away {found['outages']} times, "
        f"the sweep taken up again {found['rounds']} times\n"
        f"{same} of {asked.runs} results are those of the same runs alone, byte for byte\n"
        f"{found['seconds']:.0f} s, until all were there\n"
    )
    print(text, end="")
    if asked.save:
        RESULT.write_text(text)
    assert same == asked.runs, "a run ended otherwise than alone"


if __name__ == "__main__":
    main()
