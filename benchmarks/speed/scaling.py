"""Is the time of J V proportional to K, steps and P, and its memory to a few copies of V?

Time: one process, one thread, float32, an MLP 256-h-h-10 trained with SGD on batches of 32; the
median of repeated products J V, in seconds of the processor. Printed for each of K, steps and P:
the exponent of a fit log(time) = a + exponent log(size) with its standard error; 1 is linear, less
is what the tangents share.

Memory: a fresh process per optimiser and P; its peak above what it held before, V included. Fitted:
peak = copies x (K P x 4) + vectors x (P x 4) + constant, the result being one of the copies; in
both directions, with all tangents at once (the worst case), and within a budget.

Large: P = 1e8 and K = 32 in place, so that one copy of V is all there is; where memory suffices.
With a GPU at hand: time per tangent and step, and peak memory, at P = 1e6, 1e7, 1e8 and K = 32.

    python benchmarks/speed/scaling.py [--save]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from capacity.jacobian.tracker import TransportTracker
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.jacobian.trajectory import Trajectory
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.from_recipe import from_training
from capacity.recipe.config import Training

RESULTS = Path(__file__).parent / "results"
INPUTS, CLASSES = 256, 10
OPTIMIZERS = ("sgd", "momentum", "adam")
BUDGET = 256 << 20

LARGE = 1e8, 32
LARGE_COPIES = 1.5
"""Of V: the memory to spare without which the large point is not tried."""

DIRECTIONS = ("forward", "adjoint")

TIMES = {
    "K": [(k, 8, 3e5) for k in (8, 16, 32, 64, 128)],
    "steps": [(16, steps, 3e5) for steps in (4, 8, 16, 32, 64)],
    "P": [(16, 8, p) for p in (1e5, 2e5, 5e5, 1e6, 2e6)],
}
MEMORY = {1e6: (8, 16, 32), 4e6: (8, 16, 32), 1e7: (8,)}


def width(parameters: float) -> int:
    """H of the MLP 256-h-h-10 with about so many parameters."""
    linear = INPUTS + CLASSES + 2
    return max(1, round((math.sqrt(linear**2 + 4 * parameters) - linear) / 2))


def network(parameters: float) -> nn.Module:
    """Build the MLP with about so many parameters."""
    torch.manual_seed(0)
    h = width(parameters)
    return nn.Sequential(
        nn.Linear(INPUTS, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(), nn.Linear(h, CLASSES)
    )  # fmt: skip


def trained(
    parameters: float, steps: int, *, optimizer: str = "sgd", batch: int = 32, device: str = "cpu"
) -> Trajectory:
    """Record a short training on random data."""
    model = FlatModel(network(parameters).to(device))

    def loss(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model.outputs(theta, x), y)

    training = Training(optimizer=optimizer, lr=0.01 if optimizer != "adam" else 1e-4)
    update = from_training(training)
    data = torch.randn(4 * batch, INPUTS), torch.randint(CLASSES, (4 * batch,))
    x, y = (part.to(device) for part in data)
    trajectory = Trajectory(loss, update, data=(x, y), budget=4 << 30)
    state = update.init(model.initial())
    for count in range(1, steps + 1):
        rows = torch.randint(len(y), (batch,), device=device)
        trajectory.record(state, x[rows], y[rows], training.lr, index=rows)
        with torch.no_grad():
            gradient = torch.func.grad(loss)(state[0], x[rows], y[rows])
            state = update.step(state, gradient, training.lr, count)
    return trajectory


def seconds(
    work: Callable[[], object], repeats: int, clock: Callable[[], float] = time.process_time
) -> float:
    """The median time of some work, warmed up."""
    work()
    times = []
    for _ in range(repeats):
        start = clock()
        work()
        times.append(clock() - start)
    return statistics.median(times)


def exponent(sizes: Sequence[float], times: Sequence[float]) -> str:
    """Fit log(time) = a + exponent log(size)."""
    fit = stats.linregress([math.log(s) for s in sizes], [math.log(t) for t in times])
    return f"{fit.slope:.3f} +- {fit.stderr:.3f}"


def measure_time(repeats: int) -> None:
    """Time against K, steps and P, one of them at a time."""
    print("\nTime of J V (SGD, batch 32, one thread, processor time)")
    for name, points in TIMES.items():
        sizes, times = [], []
        for k, steps, parameters in points:
            trajectory = trained(parameters, steps)
            jacobian = TrainingJacobian([trajectory])
            v = torch.randn(k, jacobian.size)
            sizes.append({"K": k, "steps": steps, "P": jacobian.size}[name])
            times.append(seconds(lambda j=jacobian, v=v: j.forward(v), repeats))
        k, steps, parameters = points[0]
        fixed = {"K": f"K = {k}", "steps": f"{steps} steps", "P": f"P = {parameters:.0e}"}
        others = ", ".join(text for key, text in fixed.items() if key != name)
        cells = "  ".join(f"{s}: {1e3 * t:.1f}" for s, t in zip(sizes, times, strict=True))
        print(f"  against {name} ({others}), ms   {cells}")
        print(f"    exponent {exponent(sizes, times)}")


def measure_riding(repeats: int) -> None:
    """What the tangents save by giving the training step its gradient."""
    print("\nA training step (momentum, batch 32, P = 3e+05) with K tangents, ms")
    for k in (1, 8, 32):
        model, data = network(3e5), (torch.randn(32, INPUTS), torch.randint(CLASSES, (32,)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        tracker = TransportTracker(model, "cross_entropy", optimizer, tangents=k, budget=0)

        def beside(model=model, data=data, optimizer=optimizer, tracker=tracker) -> None:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data[0]), data[1]).backward()
            tracker.observe(*data)
            optimizer.step()

        def riding(data=data, optimizer=optimizer, tracker=tracker) -> None:
            tracker.backward(*data)
            optimizer.step()

        ways = {"a pass of its own": beside, "sharing the tangents'": riding}
        for way in ways.values():
            seconds(way, 2)
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(5 * repeats):
            for name, way in ways.items():
                start = time.process_time()
                way()
                found[name].append(1e3 * (time.process_time() - start))
        cells = ", ".join(f"{name} {statistics.median(t):.2f}" for name, t in found.items())
        print(f"  K = {k:<4}{cells}")


def point(optimizer: str, parameters: float, tangents: Sequence[int]) -> None:
    """In a process of its own: print bytes of V, of a tangent, and above V."""
    torch.set_num_threads(1)
    trajectory = trained(parameters, 2, optimizer=optimizer, batch=8)
    for k in tangents:
        for limit in ({"chunk": k}, {"budget": BUDGET}):
            if "budget" in limit and (k, parameters) != (32, 1e6):
                continue
            jacobian = TrainingJacobian([trajectory], **limit)
            v = torch.randn(k, jacobian.size)
            for direction in DIRECTIONS:
                product = getattr(jacobian, direction)
                product(v[:1])  # traces the graph: once, whatever K
                # From here on: the peak since.
                Path("/proc/self/clear_refs").write_text("5")
                before = memory("VmRSS")
                product(v)
                taken = memory("VmHWM") - before
                print(next(iter(limit)), direction, v.nbytes, v[0].nbytes, taken)


def memory(name: str) -> int:
    """Read the process's memory now (VmRSS), or its peak (VmHWM), in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(name + ":")[1].split()[0])


def measure_memory() -> None:
    """Peak memory against K x P x bytes."""
    if not Path("/proc/self/clear_refs").exists():
        print("\nPeak memory: measured on Linux only")
        return
    print("\nPeak memory of a product above V (batch 8, 2 steps, all tangents at once)")
    bounded = []
    for optimizer in OPTIMIZERS:
        found: dict[tuple[str, str], list[tuple[int, ...]]] = {}
        for parameters, tangents in MEMORY.items():
            command = [sys.executable, __file__, "--point", optimizer, parameters, *tangents]
            done = subprocess.run(
                list(map(str, command)),
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                # What is freed goes back to the system at once, or it would hide what is taken.
                env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(4 << 20)},
            )
            for line in done.stdout.splitlines():
                limit, direction, *numbers = line.split()
                found.setdefault((limit, direction), []).append(tuple(map(int, numbers)))
        for direction in DIRECTIONS:
            print(f"  {optimizer:<9}{direction:<8} {copies(found['chunk', direction])}")
            ((size, _, taken),) = found["budget", direction]
            bounded.append(f"{optimizer} {direction} {(taken - size) / 2**20:.0f}")
    print(f"With budget = {BUDGET >> 20} MiB, K = 32, P = 1e6, MiB above V and the result:")
    print("  " + ", ".join(bounded))


def copies(points: list[tuple[int, ...]]) -> str:
    """Fit peak = copies x (K P x 4) + vectors x (P x 4) + constant."""
    rows = np.array(points, dtype=float)
    design = np.column_stack([rows[:, 0], rows[:, 1], np.full(len(rows), 2.0**20)])
    found, *_ = np.linalg.lstsq(design, rows[:, 2])
    left = rows[:, 2] - design @ found
    variance = float(left @ left) / (len(rows) - 3)
    errors = np.sqrt(variance * np.diag(np.linalg.inv(design.T @ design)))
    names = ("copies of V", "vectors of P", "MiB")
    cells = zip(found, errors, names, strict=True)
    return ", ".join(f"{value:.2f} +- {error:.2f} {name}" for value, error, name in cells)


def measure_large() -> None:
    """One step at P = 1e8 with 32 tangents, the products in the tangents' place."""
    parameters, k = LARGE
    needed = LARGE_COPIES * k * parameters * 4
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if not Path("/proc/self/clear_refs").exists() or pages < needed:
        print(
            f"\nP = {parameters:.0e}, K = {k}: not tried; it needs {needed / 1e9:.0f} GB to spare"
        )
        return
    print(
        f"\nP = {parameters:.0e}, K = {k}: SGD, one step, batch 32, J V in the place of V, float32"
    )
    command = [sys.executable, __file__, "--large"]
    print(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout, end="")


def large() -> None:
    """In a process of its own: print time and peak memory, and check a tangent by itself."""
    torch.set_num_threads(1)
    parameters, k = LARGE
    jacobian = TrainingJacobian([trained(parameters, 1)])
    v = torch.empty(k, jacobian.size)
    for row in v:
        row.normal_()
    alone = jacobian.forward(v[k - 1 :])[0]
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    start = time.process_time()
    jacobian.forward(v, out=v)
    elapsed = time.process_time() - start
    taken, held = memory("VmHWM") - before, memory("VmHWM")
    error = float((v[k - 1] - alone).norm() / alone.norm())
    print(
        f"  P = {jacobian.size}: {elapsed / k:.2f} s per tangent and step; "
        f"V is {v.nbytes / 1e9:.1f} GB, {taken / 1e9:.2f} GB above it, {held / 1e9:.1f} GB in "
        f"all; the last tangent against the same alone: {error:.1e}",
    )


def measure_cuda() -> None:
    """Time and peak memory on a GPU, up to P = 1e8."""
    name = torch.cuda.get_device_name()
    total = torch.cuda.mem_get_info()[1]
    print(f"\n{name}, {total / 1e9:.0f} GB, K = 32, SGD, batch 128, 4 steps")
    for parameters in (1e6, 1e7, 1e8):
        for precision in (torch.float32, torch.bfloat16):
            trajectory = trained(parameters, 4, batch=128, device="cuda")
            jacobian = TrainingJacobian([trajectory], precision=precision)
            v = torch.randn(32, jacobian.size, device="cuda")

            def product(j: TrainingJacobian = jacobian, v: Tensor = v) -> None:
                j.forward(v)
                torch.cuda.synchronize()

            elapsed = seconds(product, 3, time.perf_counter)
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            product()
            taken = torch.cuda.max_memory_allocated() - before
            error = jacobian.precision_error(tangents=2)
            print(
                f"  P = {jacobian.size:<10} products in {precision!s:<15} "
                f"{1e6 * elapsed / 32 / 4:9.1f} us per tangent and step, peak above V "
                f"{taken / 1e9:6.2f} GB = {taken / v.nbytes:.2f} copies, relative error "
                f"{error.value:.1e}"
            )
            del trajectory, jacobian, v, product
            torch.cuda.empty_cache()


def hardware() -> str:
    """What the numbers belong to, in words."""
    cores = os.cpu_count()
    return (
        f"{platform.machine()} CPU with {cores} cores, {platform.system()}; "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--save", action="store_true", help="write results/scaling-DEVICE.txt")
    arguments.add_argument("--point", nargs="+", help=argparse.SUPPRESS)
    arguments.add_argument("--large", action="store_true", help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.point:
        optimizer, parameters, *tangents = chosen.point
        point(optimizer, float(parameters), list(map(int, tangents)))
        return
    if chosen.large:
        large()
        return
    torch.set_num_threads(1)
    kept = io.StringIO()
    with contextlib.redirect_stdout(Both(kept)) if chosen.save else contextlib.nullcontext():
        print(hardware())
        measure_time(chosen.repeats)
        measure_riding(chosen.repeats)
        measure_memory()
        measure_large()
        if torch.cuda.is_available():
            measure_cuda()
        else:
            print("\nNo GPU at hand: nothing was measured there.")
    if chosen.save:
        RESULTS.mkdir(exist_ok=True)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        (RESULTS / f"scaling-{device}.txt").write_text(kept.getvalue())


class Both(io.TextIOBase):
    """Prints, and keeps what was printed."""

    def __init__(self, kept: io.StringIO) -> None:
        self._kept, self._shown = kept, sys.stdout

    def write(self, text: str) -> int:
        """Print, and keep."""
        self._shown.write(text)
        self._shown.flush()
        return self._kept.write(text)


if __name__ == "__main__":
    main()
