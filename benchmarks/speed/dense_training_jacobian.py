"""How fast is the dense training Jacobian, next to the same in JAX?

All P columns of d theta_t / d theta_0 of two digits networks, 64-64-10 (P = 4810) and 64-16-10
(P = 1210; alone with `--small`), over one epoch of 25 steps of 64: the cost is linear in steps. JAX
takes part in two formulations, both jitted: `jax.jvp` through the whole scanned training loop,
vmapped over tangents, which is how arXiv 2412.07003 computed it (all P at once), and a scan that
carries (theta, moments, V) with a vmapped JVP of the gradient per step. Every method pushes its
tangents in chunks of the size that a first look finds best for it; all P at once is among them.

Conditions: one process on one core (affinity, one torch thread, XLA without threads), float32, the
same parameters, batches and rates; the methods in turn within every round. Time is the processor
time of the process, all its threads together, which other work on the machine disturbs least: for
the whole Jacobian the median over rounds and, in brackets, the range of its middle half. Tracing
and compiling are reported apart. The results are compared first: they must agree to 1e-3 of
|J - 1|.

    python benchmarks/speed/dense_training_jacobian.py [--small] [--rounds 5] [--save]

`--save` writes the tables of this kind of processor to benchmarks/speed/results/.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if hasattr(os, "sched_setaffinity"):  # before the libraries count the cores
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_PLATFORMS"] = "cpu"

import torch
from processor import in_file_name, processor
from torch import Tensor, nn

from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.jacobian.trajectory import Trajectory
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.from_recipe import from_training
from capacity.recipe.config import Training
from capacity.training.data_order import DataOrder

try:
    import jax
    import jax.numpy as jnp
except ImportError:
    raise SystemExit("JAX is not installed: pip install -e '.[bench]'") from None

BATCH, CLASSES, PIXELS = 64, 10, 64
CHUNKS = (16, 32, 64, 128, 256, 512, 1024)
SAVED = Path(__file__).parent / "results" / f"dense-training-jacobian-{in_file_name()}.txt"

Push = Callable[[Tensor], Tensor]
"""Rows V (K, P) to rows J V, K being the chunk that the method was built for."""


@dataclass(frozen=True)
class Problem:
    """What is differentiated: a network, its start, and the batches of every step."""

    model: FlatModel
    hidden: int
    optimizer: str
    x: Tensor
    y: Tensor
    rates: list[float]

    @property
    def momentum(self) -> float:
        """Its coefficient; 0 for plain SGD."""
        return 0.9 if self.optimizer == "momentum" else 0.0


def digits(hidden: int, optimizer: str, epochs: int) -> Problem:
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    model = FlatModel(
        nn.Sequential(nn.Linear(PIXELS, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))
    )
    data = load_digits()
    count = 25 * BATCH  # whole batches only: the scan wants one shape
    x, y = torch.tensor(data.data / 16).float()[:count], torch.tensor(data.target)[:count]
    order = DataOrder(samples=count, batch_size=BATCH, epochs=epochs, replicas=1, seed=0)
    index = torch.stack([i[0] for batches in order.epoch_batches(x.device) for i in batches])
    training = Training(optimizer=optimizer, lr=0.1, schedule="cosine", epochs=epochs)
    return Problem(model, hidden, optimizer, x[index], y[index], training.learning_rates(count))


def ours(problem: Problem) -> Callable[[int], Push]:
    def loss(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(problem.model.outputs(theta, x), y)

    update = from_training(Training(optimizer=problem.optimizer))
    trajectory = Trajectory(loss, update)
    state = update.init(problem.model.initial())
    for x, y, lr in zip(problem.x, problem.y, problem.rates, strict=True):
        step = trajectory.record(state, x, y, lr)
        gradient = torch.func.grad(loss)(state[0], x, y)
        state = update.step(state, gradient, lr, step.count)
    return lambda chunk: TrainingJacobian([trajectory], chunk=chunk).forward


class InJax:
    """The same training in JAX, with its Jacobian in two formulations."""

    def __init__(self, problem: Problem) -> None:
        self.theta = jnp.asarray(problem.model.initial().numpy())
        rates = jnp.asarray(problem.rates, dtype=jnp.float32)
        self.steps = (jnp.asarray(problem.x.numpy()), jnp.asarray(problem.y.numpy()), rates)
        self.momentum = problem.momentum
        self.shapes = problem.model.shapes

    def loss(self, theta: Any, x: Any, y: Any) -> Any:
        """Mean cross-entropy of the same network."""
        sizes = [shape.numel() for shape in self.shapes]
        parts = jnp.split(theta, list(itertools.accumulate(sizes))[:-1])
        w, b, v, c = (part.reshape(s) for part, s in zip(parts, self.shapes, strict=True))
        logits = jax.nn.relu(x @ w.T + b) @ v.T + c
        chosen = jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0]
        return (jax.nn.logsumexp(logits, axis=1) - chosen).mean()

    def moved(self, theta: Any, m: Any, g: Any, lr: Any) -> tuple[Any, Any]:
        """The update, or its tangent: it is linear."""
        if not self.momentum:
            return theta - lr * g, m
        m = self.momentum * m + g
        return theta - lr * m, m

    def start(self, like: Any) -> Any:
        """Moments at rest; a placeholder where there are none."""
        return jnp.zeros_like(like) if self.momentum else jnp.zeros(())

    def through_the_loop(self, tangents: Any) -> Any:
        """One JVP of the whole training per tangent, vmapped."""

        def train(theta: Any) -> Any:
            def step(state: Any, batch: Any) -> Any:
                x, y, lr = batch
                return self.moved(*state, jax.grad(self.loss)(state[0], x, y), lr), None

            return jax.lax.scan(step, (theta, self.start(theta)), self.steps)[0][0]

        return jax.vmap(lambda v: jax.jvp(train, (self.theta,), (v,))[1])(tangents)

    def step_by_step(self, tangents: Any) -> Any:
        """One training that carries all tangents."""

        def step(state: Any, batch: Any) -> Any:
            (theta, m, v, dm), (x, y, lr) = state, batch

            def gradient(at: Any) -> Any:
                return jax.grad(self.loss)(at, x, y)

            g, push = jax.linearize(gradient, theta)
            theta, m = self.moved(theta, m, g, lr)
            v, dm = self.moved(v, dm, jax.vmap(push)(v), lr)
            return (theta, m, v, dm), None

        state = (self.theta, self.start(self.theta), tangents, self.start(tangents))
        return jax.lax.scan(step, state, self.steps)[0][2]

    def pusher(self, formulation: str) -> Callable[[int], Push]:
        """Jit a formulation; it compiles at its first call with a chunk size."""
        jitted = jax.jit(getattr(self, formulation))

        def push(v: Tensor) -> Tensor:
            # Both ways without a copy: the figure is JAX's, not the bridge's.
            return torch.from_dlpack(jitted(jax.dlpack.from_dlpack(v)).block_until_ready())

        return lambda _: push


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def dense(push: Push, size: int, chunk: int) -> Tensor:
    """All columns of J, as rows; the last chunk is padded to the shape that was compiled."""
    rows = []
    for first in range(0, size, chunk):
        v = torch.zeros(chunk, size)
        k = torch.arange(min(chunk, size - first))
        v[k, first + k] = 1.0
        rows.append(push(v)[: len(k)])
    return torch.cat(rows)


def methods(problem: Problem) -> dict[str, Callable[[int], Push]]:
    in_jax = InJax(problem)
    return {
        "capacity": ours(problem),
        "JAX, jvp of the loop": in_jax.pusher("through_the_loop"),
        "JAX, step by step": in_jax.pusher("step_by_step"),
    }


def cost(push: Push, size: int, chunk: int) -> float:
    """Seconds per tangent; the first call, which traces or compiles, is not counted."""
    v = torch.eye(chunk, size)
    push(v)
    calls = max(1, 256 // chunk)
    return statistics.median(seconds(lambda: push(v)) for _ in range(calls)) / chunk


def measure(problem: Problem, rounds: int, say: Callable[[str], None]) -> None:
    size, steps = problem.model.size, len(problem.rates)
    say(f"\n64-{problem.hidden}-10, P = {size}, {problem.optimizer}, {steps} steps of {BATCH}")
    chunks = sorted({*(c for c in CHUNKS if c < size), size})
    say(f"  {'us per tangent and step':<24}" + "".join(f"{f'K = {c}':>9}" for c in chunks))
    best: dict[str, int] = {}
    for way, build in methods(problem).items():
        costs = {chunk: cost(build(chunk), size, chunk) for chunk in chunks}
        best[way] = min(costs, key=costs.__getitem__)
        say(f"  {way:<24}" + "".join(f"{1e6 * costs[c] / steps:>9.1f}" for c in chunks))

    pushes = {way: build(best[way]) for way, build in methods(problem).items()}  # nothing compiled
    compiling: dict[str, float] = {}
    for way, push in pushes.items():
        v = torch.eye(best[way], size)
        first, second = (seconds(lambda push=push, v=v: push(v)) for _ in range(2))
        compiling[way] = first - second
    results = {way: dense(push, size, best[way]) for way, push in pushes.items()}
    truth = results["capacity"]
    change = (truth - torch.eye(size)).norm()  # most of J is the identity, which nobody gets wrong
    errors = {way: float((r - truth).norm() / change) for way, r in results.items()}
    for way, error in errors.items():
        assert error < 1e-3, f"{way} differs by {error:.1e}"

    times: dict[str, list[float]] = {way: [] for way in pushes}
    for _ in range(rounds):
        for way, push in pushes.items():
            chunk = best[way]
            times[way].append(seconds(lambda push=push, chunk=chunk: dense(push, size, chunk)))
    base = statistics.median(times["capacity"])
    columns = f"{'K':>6}{'seconds':>22}{'ratio':>8}{'compile, s':>12}{'difference':>12}"
    say(f"  {'whole Jacobian':<24}{columns}")
    for way, taken in times.items():
        low, middle, high = statistics.quantiles(taken, n=4)
        spread = f"{middle:.2f} [{low:.2f}, {high:.2f}]"
        say(
            f"  {way:<24}{best[way]:>6}{spread:>22}{middle / base:>8.2f}"
            f"{compiling[way]:>12.2f}{errors[way]:>12.0e}"
        )
    fastest = min(statistics.median(taken) for way, taken in times.items() if way != "capacity")
    say(f"  JAX at its best takes {fastest / base:.2f} times as long as capacity")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--small", action="store_true", help="64-16-10 alone")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--epochs", type=int, default=1, help="of 25 steps")
    arguments.add_argument("--save", action="store_true")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    say(
        f"torch {torch.__version__}, jax {jax.__version__}, Python {platform.python_version()}, "
        f"{processor()}, one core; ratio: time over capacity's"
    )
    for hidden in [16] if chosen.small else [64, 16]:
        for optimizer in ("momentum", "sgd"):
            measure(digits(hidden, optimizer, chosen.epochs), chosen.rounds, say)
    if chosen.save:
        SAVED.parent.mkdir(exist_ok=True)
        SAVED.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
