"""How much does one exact Hessian-vector product cost, next to the obvious ways of getting it?

Conditions: one thread, one process, float32, the methods in turn within every round; the figure is
time per tangent over time per gradient (torch.autograd, same batch), the median over rounds and,
in brackets, the range of its middle half. Time is the processor time of the process, which other
work on the machine disturbs least. Every method's products are checked against each other first.
Peak memory is what a process of its own, which computes K products after a gradient, holds at most
beyond what it held before them (the tangents themselves are held before). curvlinops and PyHessian
take part where they are installed (`pip install -e '.[bench]'`).

    python benchmarks/speed/hessian_products.py [--rounds 15] [--tangents 1 8 32] [--save]

`--save` writes a table per kind of processor to benchmarks/speed/results/.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from processor import in_file_name, processor
from torch import Tensor, nn
from torch.func import grad, jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from capacity.networks.flat_model import FlatModel
from capacity.products.hessian_products import HessianProducts

Product = Callable[[Tensor], Tensor]


def mlp(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1024, 96), nn.ReLU(), nn.Linear(96, 10),
    )  # fmt: skip


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
    return nn.Sequential(
        nn.Unflatten(1, (16, 64)),
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        nn.Flatten(),
        nn.Linear(1024, 10),
    )


CASES = {
    "MLP 64-64-10, batch 64": (lambda: mlp(64, 64, 10), 64, (64,)),
    "MLP 784-400-400-10, batch 128": (lambda: mlp(784, 400, 400, 10), 128, (784,)),
    "CNN on 3x32x32, batch 64": (cnn, 64, (3, 32, 32)),
    "two-layer transformer, 16 tokens, batch 64": (transformer, 64, (1024,)),
}


def methods(model: FlatModel, x: Tensor, y: Tensor) -> dict[str, Product]:
    """The ways to get H V for rows V (K, P)."""
    theta = model.initial()

    def loss(t: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model.outputs(t, x), y)

    def gradient(t: Tensor) -> Tensor:
        return grad(loss)(t, x, y)

    def loop(v: Tensor) -> Tensor:
        point = theta.detach().requires_grad_()
        (g,) = torch.autograd.grad(loss(point, x, y), point, create_graph=True)
        rows = [torch.autograd.grad(g, point, row, retain_graph=True)[0] for row in v]
        return torch.stack(rows)

    ours = HessianProducts(loss)
    held: dict[int, Tensor] = {}

    def capacity(v: Tensor) -> Tensor:
        # Into the same memory at each step, as training Jacobians do it.
        return ours(theta, x, y, v, out=held.setdefault(len(v), torch.empty_like(v)))

    return {
        "capacity": capacity,
        "double backward, loop": loop,
        "vmap(vjp(grad))": lambda v: vmap(lambda r: vjp(gradient, theta)[1](r)[0])(v),
        "vmap(jvp(grad))": lambda v: vmap(lambda r: jvp(gradient, (theta,), (r,))[1])(v),
        **peers(model, x, y),
    }


def peers(model: FlatModel, x: Tensor, y: Tensor) -> dict[str, Product]:
    """Other libraries, where they are installed."""
    found: dict[str, Product] = {}
    module = model._module
    parameters = [p for p in module.parameters() if p.requires_grad]
    try:
        from curvlinops import HessianLinearOperator

        operator = HessianLinearOperator(
            module, nn.CrossEntropyLoss(), parameters, [(x, y)], check_deterministic=False
        )
        found[f"curvlinops {version('curvlinops-for-pytorch')}"] = lambda v: (operator @ v.T).T
    except ImportError:
        pass
    try:
        from pyhessian import hessian
        from pyhessian.utils import hessian_vector_product

        def pyhessian(v: Tensor) -> Tensor:
            # Built anew, as every training step needs it: the graph is part of the price.
            module.zero_grad()  # it reads its gradients from .grad, where they add up
            held = hessian(module, nn.CrossEntropyLoss(), data=(x, y), cuda=False)
            rows = []
            for row in v:
                parts = [
                    p.view_as(q) for p, q in zip(row.split(model.sizes), parameters, strict=True)
                ]
                made = hessian_vector_product(held.gradsH, held.params, parts)
                rows.append(torch.cat([m.reshape(-1) for m in made]))
            return torch.stack(rows)

        found["PyHessian"] = pyhessian
    except ImportError:
        pass
    return found


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def problem(name: str) -> tuple[nn.Module, FlatModel, Tensor, Tensor]:
    build, batch, shape = CASES[name]
    torch.manual_seed(0)
    module = build()
    return module, FlatModel(module), torch.randn(batch, *shape), torch.randint(10, (batch,))


def measure(name: str, tangents: list[int], rounds: int, say: Callable[[str], None]) -> None:
    module, model, x, y = problem(name)
    parameters = list(module.parameters())

    def gradient() -> object:
        return torch.autograd.grad(nn.functional.cross_entropy(module(x), y), parameters)

    say(f"\n{name}, P = {model.size}")
    head = "".join(f"{f'K = {k}':>20}" for k in tangents)
    say(f"  {'time per tangent / time per gradient':<38}{head}{f'peak at K = {tangents[-1]}':>18}")
    table: dict[str, list[str]] = {}
    against: dict[str, list[float]] = {}
    for k in tangents:
        v = torch.randn(k, model.size)
        ways = methods(model, x, y)
        results = {way: work(v) for way, work in ways.items()}  # warms up, traces, and checks
        truth = results["double backward, loop"]
        wrong = {
            way: float((result - truth).norm() / truth.norm()) for way, result in results.items()
        }
        del results
        times: dict[str, list[float]] = {way: [] for way in ways}
        base = []
        for _ in range(rounds):
            base.append(statistics.median(seconds(gradient) for _ in range(5)))
            for way, work in ways.items():
                # Warm, as the gradient is, where a repetition is cheap.
                spent = [seconds(lambda work=work, v=v: work(v))]
                if spent[0] < 0.02:
                    spent += [seconds(lambda work=work, v=v: work(v)) for _ in range(4)]
                times[way].append(statistics.median(spent) / k)
        for way, spent in times.items():
            low, middle, high = statistics.quantiles(
                [t / b for t, b in zip(spent, base, strict=True)], n=4
            )
            cell = f"{middle:.2f} [{low:.2f}, {high:.2f}]"
            table.setdefault(way, []).append(
                cell if wrong[way] <= 1e-2 else f"off by {wrong[way]:.0e}"
            )
            against[way] = [t / o for t, o in zip(spent, times["capacity"], strict=True)]
    for way, cells in table.items():
        peak = peak_memory(name, way, tangents[-1])
        say(f"  {way:<38}" + "".join(f"{cell:>20}" for cell in cells) + f"{peak:>14.0f} MiB")
    say(f"  time at K = {tangents[-1]} over capacity's:")
    for way, ratios in against.items():
        low, middle, high = statistics.quantiles(ratios, n=4)
        if way != "capacity":
            say(f"  {way:<38}{f'{middle:.2f} [{low:.2f}, {high:.2f}]':>20}")


def peak_memory(name: str, way: str, k: int) -> float:
    """Ask a process of its own, in MiB."""
    asked = subprocess.run(
        [sys.executable, __file__, "--peak", name, way, str(k)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(asked.stdout.splitlines()[-1])


def print_peak(name: str, way: str, k: int) -> None:
    module, model, x, y = problem(name)
    work = methods(model, x, y)[way]
    v = torch.randn(k, model.size)
    loss = nn.functional.cross_entropy(module(x), y)
    torch.autograd.grad(loss, list(module.parameters()))
    work(v[:1])  # what a library loads when it is first used is not what its products need
    before, seen, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.0005):
            seen.append(resident())

    thread = threading.Thread(target=watch)
    thread.start()
    work(v)
    done.set()
    thread.join()
    print((max(seen) - before) / 2**20)


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--tangents", type=int, nargs="+", default=[1, 8, 32])
    arguments.add_argument("--save", action="store_true", help="keep the table in results/")
    arguments.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    # Fused attention has no second derivative: everybody gets the kernel that has one.
    with sdpa_kernel(SDPBackend.MATH):
        if chosen.peak:
            name, way, k = chosen.peak
            print_peak(name, way, int(k))
            return
        say(
            f"torch {torch.__version__}, Python {platform.python_version()}, "
            f"{processor()}, "
            f"one of {os.cpu_count()} cores, {chosen.rounds} rounds"
        )
        for name in CASES:
            measure(name, chosen.tangents, chosen.rounds, say)
    if chosen.save:
        folder = Path(__file__).parent / "results"
        folder.mkdir(exist_ok=True)
        (folder / f"hessian-products-{in_file_name()}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
