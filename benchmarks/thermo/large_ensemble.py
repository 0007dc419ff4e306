"""Does an ensemble that does not fit into memory stay within its budget?

50 replicas of 10 million parameters (2 GB of positions in float32, twice: start and end) move by
gradient descent within a memory budget of 512 MB, one at a time, positions on disk, and are judged.
What is printed is the largest private memory of the process, sampled while it works; pages of the
files that are mapped belong to the system, which takes them back at will.

    python benchmarks/thermo/large_ensemble.py [--save] [--replicas 50] [--size 10000000]
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path

import torch
from torch import Tensor

from capacity.optimizers.sgd import SGD
from capacity.thermo.ensemble import Ensemble
from capacity.thermo.landscape import Potential
from capacity.thermo.speed_limit import judge

RESULT = Path(__file__).parent / "results" / "large_ensemble.txt"
BUDGET, STEPS, LR = 512 << 20, 3, 0.1


def private_megabytes() -> float:
    """Memory that belongs to this process alone (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this script reads /proc/self/status, which Linux has")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name}")
    parser.add_argument("--replicas", type=int, default=50)
    parser.add_argument("--size", type=int, default=10_000_000)
    options = parser.parse_args()
    size, before = options.size, private_megabytes()
    largest, done = [before], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            largest[0] = max(largest[0], private_megabytes())

    def initial(replica: int) -> Tensor:
        return torch.randn(size, generator=torch.Generator().manual_seed(replica))

    bowl = Potential(energy=lambda x, _: 0.5 * (x - 1).square().sum(-1), batched=True)
    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    ensemble = Ensemble(initial, replicas=options.replicas, memory=BUDGET)
    made = judge(ensemble.learn(bowl, SGD(), [LR] * STEPS))
    took = time.perf_counter() - began
    done.set()
    watcher.join()
    positions = 2 * options.replicas * size * 4 / 2**20
    text = (
        f"N = {options.replicas}, P = {size:,}, {STEPS} steps; positions {positions:,.0f} MB, "
        f"budget {BUDGET / 2**20:.0f} MB\n"
        f"private memory: {before:.0f} MB before, {largest[0]:.0f} MB at most\n"
        f"verdict: {made.verdict}; inefficiency per replica {made.per_replica.value:.5f}\n"
        f"{took:.0f} s of wall time\n"
    )
    print(text, end="")
    if options.save:
        RESULT.write_text(text)


if __name__ == "__main__":
    main()
