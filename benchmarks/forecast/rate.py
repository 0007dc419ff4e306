"""How fast does one core train? Operations per second of plain steps, by the size of a step.

`auto` spends seconds, and counts operations so that a forecast is the same on every machine
(`capacity/forecasting/budget.py`): here are the rates behind its constants. Processor time.

    python benchmarks/forecast/rate.py [--save]
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from capacity.forecasting.budget import seconds

RESULT = Path(__file__).parent / "results" / "rate.txt"


def networks() -> dict[str, tuple[nn.Module, Tensor]]:
    """Name networks and a batch of each.

    Returns:
        Small ones as in sequences of small tasks, up to one of the size of MiniLM.
    """
    wide = nn.TransformerEncoderLayer(384, 12, 1536, batch_first=True)
    return {
        "64-32-10, 64 samples": (
            nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), torch.randn(64, 64),
        ),
        "784-100-10, 64": (
            nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10)),
            torch.randn(64, 784),
        ),
        "784-512-512-10, 64": (
            nn.Sequential(
                nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
            ),
            torch.randn(64, 784),
        ),
        "two convolutions on 28x28, 64": (
            nn.Sequential(
                nn.Unflatten(1, (1, 28)), nn.Conv2d(1, 16, 3), nn.ReLU(),
                nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 144, 10),
            ),
            torch.randn(64, 28, 28),
        ),
        "transformer layer of 64, 24 tokens, 16": (
            nn.Sequential(
                nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), nn.Flatten(),
                nn.Linear(24 * 64, 10),
            ),
            torch.randn(16, 24, 64),
        ),
        "784-2048-2048-10, 64": (
            nn.Sequential(
                nn.Linear(784, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(),
                nn.Linear(2048, 10),
            ),
            torch.randn(64, 784),
        ),
        "6 transformer layers of 384, 64 tokens, 8": (
            nn.Sequential(
                nn.TransformerEncoder(wide, 6), nn.Flatten(), nn.Linear(64 * 384, 10)
            ),
            torch.randn(8, 64, 384),
        ),
    }  # fmt: skip


def measured(network: nn.Module, x: Tensor) -> tuple[float, float]:
    """Time plain steps.

    Args:
        network: The network.
        x: A batch (n, ...).

    Returns:
        Operations of a step, and its seconds.
    """
    y = torch.randint(10, (len(x),))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()

    with FlopCounterMode(display=False) as counter:
        step()
    count = max(3, min(300, int(3e10 / counter.get_total_flops())))
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        for _ in range(count):
            step()
        best = min(best, (time.process_time() - start) / count)
    return float(counter.get_total_flops()), best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"write results/{RESULT.name}")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lines = [
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread",
        "",
        f"{'a step of':<44}{'Mflop':>10}{'ms':>10}{'Gflop/s':>10}{'ms, by auto':>13}",
    ]
    for name, (network, x) in networks().items():
        operations, time_of_step = measured(network, x)
        said = seconds(operations, 1)
        lines.append(
            f"{name:<44}{operations / 1e6:>10.1f}{1e3 * time_of_step:>10.2f}"
            f"{operations / time_of_step / 1e9:>10.1f}{1e3 * said:>13.2f}"
        )
    text = "\n".join(lines)
    print(text)
    if asked.save:
        RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()
