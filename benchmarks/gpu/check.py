"""What a GPU does with this package, in at most eight minutes on one card.

Seven parts, the most important first, each a process of its own with a share of the time. A part
that is done stands in the folder of results, and a second call goes on with the next: a card that
was lent for two minutes yields the first parts. Times are of the wall, between synchronisations.

parity      a run and the tests marked `device`, on the card and on the CPU: largest difference.
products    H V per tangent over one gradient, K = 1, 8, 32, four networks, against a loop of double
            backwards and vmap of forward over reverse.
ensemble    50 replicas together against one after the other in plain torch (aim: 10 times).
large       J_t of P = 1e6, 1e7, 1e8, K = 32: time per tangent and step, peak memory.
dense       the whole J_t of a training against JAX, where that is installed.
finetuning  a MiniLM fine-tuning with LoRA, and its forecast: seconds of both.
utilisation how busy the card is while a run goes on, where `nvidia-smi` says.

    python benchmarks/gpu/check.py [--small] [--device cpu] [--minutes 8] [--out DIR] [PART ...]
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

import capacity
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.networks.flat_model import FlatModel
from capacity.products.hessian_products import HessianProducts
from capacity.recipe import config
from capacity.runs.ahead import before_task
from capacity.tasks import as_task
from capacity.training.data_order import DataOrder
from capacity.training.train import train

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "speed"))
hessian_products, scaling = map(importlib.import_module, ("hessian_products", "scaling"))

TOLERANCE = 1e-2
"""Largest accepted difference of a loss to the CPU's, relative: other kernels round otherwise, and
a training amplifies that by the largest singular value of J_t."""

MINILM = [
    "tasks.dataset=text-topics", "tasks.scenario=mixed", "tasks.experiences=2",
    "tasks.samples=1600", "model.kind=pretrained", "model.hidden=[64]", "model.activation=relu",
    "model.adapter=lora", "training.optimizer=adamw", "training.lr=0.001",
    "training.batch_size=16", "training.epochs=1",
]  # fmt: skip
"""The fine-tuning, as changes to the recipe for CI."""

SHARES = {
    "parity": 0.3, "products": 0.15, "ensemble": 0.1, "large": 0.15, "dense": 0.1,
    "finetuning": 0.12, "utilisation": 0.08,
}  # fmt: skip
"""Shares of the time; what a part leaves over is the next ones'."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--small", action="store_true", help="sizes for a CPU, in a minute")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together")
    parser.add_argument("--out", type=Path, help="results/NAME-OF-THE-DEVICE beside this script")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    unknown = [part for part in asked.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    device = torch.device(asked.device)
    if asked.inside:
        for line in PARTS[asked.parts[0]](device, asked.small):
            print(line, flush=True)
        return
    out = asked.out or HERE / "results" / name_of(device).replace(" ", "-")
    carry_out(asked.parts or list(PARTS), out, asked, 60 * asked.minutes)


def carry_out(parts: list[str], out: Path, asked: argparse.Namespace, left: float) -> None:
    """Run the parts that are not done, each in a process with its share of the time left."""
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device(asked.device)
    head = f"{name_of(device)}, torch {torch.__version__}, Python {platform.python_version()}"
    head += ", small sizes" if asked.small else ""
    for k, part in enumerate(parts):
        file = out / f"{part}.txt"
        if file.is_file():
            print(file.read_text(encoding="utf-8"))
            continue
        share = left * SHARES[part] / sum(SHARES[other] for other in parts[k:])
        flags = ["--small"] if asked.small else []
        command = [sys.executable, __file__, part, "--inside", "--device", asked.device, *flags]
        began = time.monotonic()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=share)
            error = done.stderr.strip().splitlines()[-1:] if done.returncode else []
            said = done.stdout
        except subprocess.TimeoutExpired as cut:
            said = (cut.stdout or b"").decode()
            error = [f"cut off after its share of {share:.0f} s"]
        spent = time.monotonic() - began
        left -= spent
        text = f"{part}: {head}, {spent:.0f} s\n\n{said}"
        print(text + "".join(f"NOT DONE: {line}\n" for line in error), flush=True)
        if not error:
            file.write_text(text, encoding="utf-8")


def name_of(device: torch.device) -> str:
    """Name a device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def waited(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device, rounds: int = 5) -> float:
    """The median time of some work, warmed up."""
    work()
    times = []
    for _ in range(rounds):
        waited(device)
        began = time.perf_counter()
        work()
        waited(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


# Parts


def parity(device: torch.device, small: bool) -> Iterator[str]:
    """Hold a run on the device against the same run on the CPU, and run the tests of devices."""
    recipe = config.load("tiny-digits" if small else "split-digits", ["replicas=2"])
    if small:
        short = config.Measure(forecast_budget=None)
        recipe = recipe.model_copy(update={"measure": short})
    results, spent = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in dict.fromkeys(["cpu", str(device)]):
            began = time.perf_counter()
            made = capacity.run(
                recipe, out=Path(folder) / name.replace(":", "-"), device=name, quiet=True
            )
            results[name], spent[name] = made.result, time.perf_counter() - began
    one, other = results["cpu"], results[str(device)]
    for what in ("loss", "accuracy"):
        gaps = [
            abs(a - b) / (max(abs(a), 1.0) if what == "loss" else 1.0)
            for x, y in zip(one[what]["mean"], other[what]["mean"], strict=True)
            for a, b in zip(x, y, strict=True)
            if a is not None and b is not None
        ]
        word = "holds" if max(gaps) <= TOLERANCE else "FAILS"
        yield f"{recipe.name}, {what}: largest difference {max(gaps):.1e} ({word}: {TOLERANCE:g})"
    for name, took in spent.items():
        yield f"{recipe.name} on {name}: {took:.1f} s"
    tests = HERE.parents[1] / "tests" / "base" / "test_other_devices.py"
    if not tests.is_file() or importlib.util.find_spec("pytest") is None:
        yield "tests marked device: not at hand in an installed package"
        return
    asked = [sys.executable, "-m", "pytest", str(tests), "-q", "-m", "device"]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=HERE.parents[1])
    yield f"tests marked device: {done.stdout.strip().splitlines()[-1]}"


def products(device: torch.device, small: bool) -> Iterator[str]:
    """Time H V per tangent against one gradient."""
    tangents = (1, 4) if small else (1, 8, 32)
    names = list(hessian_products.CASES)
    yield f"{'time per tangent / time per gradient':<46}" + "".join(f"K = {k:<6}" for k in tangents)
    for name in names[:1] if small else names:
        module, _, x, y = hessian_products.problem(name)
        model, x, y = FlatModel(module.to(device)), x.to(device), y.to(device)
        theta = model.initial()

        def loss(t: Tensor, x: Tensor, y: Tensor, model: FlatModel = model) -> Tensor:
            return nn.functional.cross_entropy(model.outputs(t, x), y)

        gradient = torch.func.grad(loss)

        def loop(v: Tensor, loss: Any = loss, theta: Tensor = theta, x: Any = x, y: Any = y) -> Any:
            point = theta.detach().requires_grad_()
            (g,) = torch.autograd.grad(loss(point, x, y), point, create_graph=True)
            rows = [torch.autograd.grad(g, point, row, retain_graph=True)[0] for row in v]
            return torch.stack(rows)

        def forward(
            v: Tensor, g: Any = gradient, theta: Any = theta, x: Any = x, y: Any = y
        ) -> Any:
            return vmap(lambda row: jvp(lambda t: g(t, x, y), (theta,), (row,))[1])(v)

        ours = HessianProducts(loss)
        ways = {
            "capacity": lambda v, o=ours, t=theta, x=x, y=y: o(t, x, y, v),
            "double backward, loop": loop,
            "vmap(jvp(grad))": forward,
        }
        with sdpa_kernel(SDPBackend.MATH):
            base = seconds(lambda g=gradient, t=theta, x=x, y=y: g(t, x, y), device)
            yield f"{name}, P = {model.size}, one gradient {1e3 * base:.2f} ms"
            for way, work in ways.items():
                cells = []
                for k in tangents:
                    v = torch.randn(k, model.size, device=device)
                    torch.testing.assert_close(work(v), loop(v), rtol=1e-2, atol=1e-4)
                    cells.append(seconds(lambda w=work, v=v: w(v), device) / k / base)
                yield f"  {way:<44}" + "".join(f"{cell:<10.2f}" for cell in cells)


def ensemble(device: torch.device, small: bool) -> Iterator[str]:
    """Train many replicas together, and one after the other with torch alone."""
    count, steps = (4, 8) if small else (50, 200)
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(640, 64, generator=draw), torch.randint(10, (640,), generator=draw)
    task = as_task((x, y), share=0).to(device)
    modules = [hessian_products.mlp(64, 64, 10).to(device) for _ in range(count)]
    model = FlatModel(modules[0])
    theta = torch.stack([FlatModel(module).initial() for module in modules])
    plan = capacity.Training(lr=0.1, batch_size=32, max_steps=steps, epochs=-(-steps // 20))
    order = DataOrder.planned(plan, 640, replicas=count, seed=0, path=("order",), in_order=False)

    def together() -> object:
        return train(model, theta, task, plan, order)

    def apart() -> None:
        for replica, module in enumerate(modules):
            optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
            for batches in order.epoch_batches(device):
                for index in batches:
                    rows = index[replica]
                    optimizer.zero_grad()
                    loss = nn.functional.cross_entropy(
                        module(task.train.x[rows]), task.train.y[rows]
                    )
                    loss.backward()
                    optimizer.step()

    at_once = seconds(together, device, 3)
    one_by_one = seconds(apart, device, 1)
    yield f"{count} replicas of 64-64-10, {steps} steps of 32"
    yield f"together {at_once:.3f} s, torch one after the other {one_by_one:.3f} s: "
    yield f"{one_by_one / at_once:.1f} times faster (aim: 10)"


def large(device: torch.device, small: bool) -> Iterator[str]:
    """Time J V at large P, with the peak of memory above V."""
    k = 4 if small else 32
    yield f"{'P':>12}{'us per tangent and step':>26}{'peak above V, GB':>18}{'copies of V':>13}"
    for parameters in (1e5,) if small else (1e6, 1e7, 1e8):
        jacobian = TrainingJacobian([
            scaling.trained(parameters, 2, batch=32 if small else 128, device=str(device))
        ])
        v = torch.randn(k, jacobian.size, device=device)
        taken = seconds(lambda j=jacobian, v=v: j.forward(v), device, 3) / k / 2
        peak = "-"
        copies = "-"
        if device.type == "cuda":
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            jacobian.forward(v)
            above = torch.cuda.max_memory_allocated(device) - before
            peak, copies = f"{above / 1e9:.2f}", f"{above / v.nbytes:.2f}"
        yield f"{jacobian.size:>12}{1e6 * taken:>26.1f}{peak:>18}{copies:>13}"
        del jacobian, v


def dense(device: torch.device, small: bool) -> Iterator[str]:
    """Time the whole J_t of a training, against JAX where it is installed."""
    if importlib.util.find_spec("jax") is None:
        yield "JAX is not installed (pip install jax): capacity alone"
        steps, chunk = (4, 64) if small else (25, 512)
        jacobian = TrainingJacobian([scaling.trained(1e4, steps, device=str(device))], chunk=chunk)
        eye = torch.eye(chunk, jacobian.size, device=device)
        taken = seconds(lambda: jacobian.forward(eye), device, 3)
        yield f"P = {jacobian.size}, {steps} steps: {taken / chunk * jacobian.size:.2f} s for J"
        return
    jax, against = map(importlib.import_module, ("jax", "dense_training_jacobian"))
    problem = against.digits(4 if small else 64, "sgd", 1)
    in_jax = against.InJax(problem).pusher("step_by_step")
    moved = against.Problem(
        problem.model.to(device), problem.hidden, problem.optimizer,
        problem.x.to(device), problem.y.to(device), problem.rates,
    )  # fmt: skip
    yield f"P = {problem.model.size}, {len(problem.rates)} steps, JAX on {jax.devices()[0]}"
    chunk = min(256, problem.model.size)
    size = problem.model.size
    eyes = {"capacity": torch.eye(chunk, size, device=device), "JAX": torch.eye(chunk, size)}
    for name, push in (("capacity", against.ours(moved)(chunk)), ("JAX", in_jax(chunk))):
        taken = seconds(lambda p=push, v=eyes[name]: p(v), device, 3)
        yield f"  {name:<10}{taken / chunk * size:>9.2f} s for the whole Jacobian, K = {chunk}"


def finetuning(device: torch.device, small: bool) -> Iterator[str]:
    """Forecast a fine-tuning, and carry it out."""
    pretrained = importlib.util.find_spec("transformers") is not None and not small
    recipe = config.load("tiny-digits", MINILM if pretrained else ["tasks.experiences=2"])
    began = time.perf_counter()
    given = before_task(recipe, device=device)
    waited(device)
    learning = time.perf_counter() - began
    began = time.perf_counter()
    made = capacity.forecast(**given | {"strategies": []}, device=device)
    taken = time.perf_counter() - began
    what = (
        "MiniLM with LoRA" if pretrained else f"{recipe.name} (no MiniLM: small, or not installed)"
    )
    said = made.old[0].loss_increase
    yield f"{what}: task 1 learned in {learning:.1f} s, task 2 forecast in {taken:.1f} s"
    yield f"rise of the first one's loss: {said.value:.3f}, interval {said.interval}"
    steps = given["training"].steps(len(as_task(given["new"]).train))
    yield f"{steps} steps are forecast"


def utilisation(device: torch.device, small: bool) -> Iterator[str]:
    """Ask how busy the card is while a run goes on."""
    asking = shutil.which("nvidia-smi")
    if device.type != "cuda" or asking is None:
        yield "not measured: nvidia-smi is not there, or the device is no card"
        return
    query = "utilization.gpu,memory.used"
    command = [asking, f"--query-gpu={query}", "--format=csv,noheader,nounits", "-lms", "200"]
    recipe = config.load("tiny-digits" if small else "split-digits")
    with tempfile.TemporaryDirectory() as folder:
        watcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            capacity.run(recipe, out=Path(folder) / "run", device=device, quiet=True)
        finally:
            watcher.terminate()
        lines = watcher.communicate()[0].splitlines()
    rows = [[float(part) for part in line.split(",")] for line in lines if line.count(",") == 1]
    busy, held = zip(*rows, strict=True)
    yield f"{recipe.name}: busy {statistics.fmean(busy):.0f} % (most {max(busy):.0f} %)"
    yield f"memory at most {max(held):.0f} MiB, {len(rows)} samples 0.2 s apart"


PARTS = {
    "parity": parity, "products": products, "ensemble": ensemble, "large": large,
    "dense": dense, "finetuning": finetuning, "utilisation": utilisation,
}  # fmt: skip

if __name__ == "__main__":
    main()
