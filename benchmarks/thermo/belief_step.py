"""What does a step of a belief cost, in gradients of the network that it is about?

One antithetic pair, with the draw of its noise, against one gradient of the same network on the
same batch, both by plain autograd, taken in turn; the promise is at most 2.5.

    OMP_NUM_THREADS=1 python benchmarks/thermo/belief_step.py [--save] [--rounds 9]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from capacity.base.differential import slope_of
from capacity.networks.belief import Belief
from capacity.networks.door import fit
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.beliefs import GEOMETRIES
from capacity.optimizers.sgd import SGD
from capacity.optimizers.update_map import UpdateMap
from capacity.tasks.tensors import as_task

RESULT = Path(__file__).parent / "results" / "belief_step.txt"
CLAIM, STEPS = 2.5, 20


def mlp(inputs: int, hidden: int) -> nn.Module:
    """Build a fully connected network.

    Args:
        inputs: Inputs.
        hidden: Units of the one hidden layer.

    Returns:
        The network.
    """
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def cnn() -> nn.Module:
    """Build a convolutional network on rows of 28 x 28 pixels, whose parameters work on many."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2),
        nn.ReLU(), nn.Flatten(), nn.Linear(16 * 12 * 12, 10),
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "64-32-10, batch 32": (lambda: mlp(64, 32), 64, 32),
    "784-256-10, batch 64": (lambda: mlp(784, 256), 784, 64),
    "784-256-10, batch 512": (lambda: mlp(784, 256), 784, 512),
    "cnn on 28 x 28, batch 64": (cnn, 784, 64),
}
"""How each is built, its inputs, and the samples of a step. What a belief does beside its two
gradients is per parameter, and weighs less the more samples or places a parameter works on."""


def stepper(module: nn.Module, update: UpdateMap, x: Tensor, y: Tensor) -> Callable[[], None]:
    """Make a function that takes `STEPS` steps.

    Args:
        module: The network, or a belief about it.
        update: Its update map.
        x: A batch of inputs.
        y: Its labels.

    Returns:
        The function.
    """
    flat = FlatModel(module)
    (task,) = fit(flat, flat.initial(), [as_task((x, y), share=0, name="one")], two_modes=True)
    slope = slope_of(flat.loss(task))

    def taken() -> None:
        state = update.init(flat.initial())
        for count in range(1, STEPS + 1):
            with flat.training(count):
                gradient, _ = slope(state[0], x, y)
            state = update.step(state, gradient, 0.01, count)

    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name}")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    lines = [
        f"torch {torch.__version__}, {torch.get_num_threads()} thread; processor time, the best of "
        f"{options.rounds} rounds of {STEPS} steps",
        "",
        f"{'network':26}{'plain ms':>10}{'transport':>11}{'information':>13}",
    ]
    worst = 0.0
    for name, (build, inputs, batch) in NETWORKS.items():
        torch.manual_seed(0)
        module = build()
        x, y = torch.randn(batch, inputs), torch.randint(10, (batch,))
        ways = {"plain": stepper(module, SGD(), x, y)}
        ways |= {key: stepper(Belief(module), kind(1e-4), x, y) for key, kind in GEOMETRIES.items()}
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(options.rounds):
            for key, way in ways.items():
                start = time.process_time()
                way()
                best[key] = min(best[key], time.process_time() - start)
        ratios = [best[key] / best["plain"] for key in GEOMETRIES]
        worst = max(worst, *ratios)
        lines.append(
            f"{name:26}{1e3 * best['plain'] / STEPS:10.3f}{ratios[0]:11.2f}{ratios[1]:13.2f}"
        )
    lines += ["", f"at most {worst:.2f} plain steps: {'holds' if worst <= CLAIM else 'FAILS'}"]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.save:
        RESULT.write_text(text)


if __name__ == "__main__":
    main()
