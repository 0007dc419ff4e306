"""How much faster do 50 replicas train, and are measured, together than one after the other?

The peer is what one would write without this package: for every replica a `torch.nn` module, its
`torch.optim.SGD`, and the same sums taken at every step (squared displacement, its root, and its
product with the gradients before and after). Both see the same batches and end at the same weights.

    OMP_NUM_THREADS=2 python benchmarks/thermo/ensemble_speed.py [--save] [--steps 575] [--rounds 9]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from digits_ensemble import BATCH, LR, alternating, conditions, network, prepared
from torch import Tensor
from torch.nn.functional import cross_entropy

from capacity.optimizers.sgd import SGD
from capacity.tasks.task import Task
from capacity.thermo.ensemble import Ensemble
from capacity.thermo.ensemble_record import EnsembleRecord
from capacity.training.data_order import DataOrder

RESULT = Path(__file__).parent / "results" / "ensemble_speed.txt"
COUNT, CLAIM = 50, 8.0


def one_after_the_other(task: Task, steps: int) -> tuple[Tensor, Tensor]:
    """Train and measure with torch alone: final weights (N, P), and the action (N,)."""
    ends, actions = [], []
    epochs = -(-steps * BATCH // len(task.train)) + 1
    order = DataOrder(
        samples=len(task.train), batch_size=BATCH, epochs=epochs, replicas=COUNT, seed=0
    )
    batches = [b for epoch in order.epoch_batches(torch.device("cpu")) for b in epoch]
    for replica in range(COUNT):
        module = network(replica)
        weights = list(module.parameters())
        optimizer = torch.optim.SGD(weights, lr=LR)
        action = length = trapezoid = 0.0
        moved = None
        for index in batches[: steps + 1]:
            rows = index[replica]
            optimizer.zero_grad()
            loss = cross_entropy(module(task.train.x[rows]), task.train.y[rows])
            loss.backward()
            gradient = torch.cat([p.grad.flatten() for p in weights if p.grad is not None])
            if moved is not None:
                trapezoid -= 0.5 * (moved @ gradient).double()
            before = torch.cat([p.detach().flatten() for p in weights])
            if index is batches[steps]:
                break
            optimizer.step()
            moved = torch.cat([p.detach().flatten() for p in weights]) - before
            squared = (moved @ moved).double()
            action += squared / LR
            length += squared.sqrt()
            trapezoid -= 0.5 * (moved @ gradient).double()
        ends.append(before)
        actions.append(torch.as_tensor(action))
    return torch.stack(ends), torch.stack(actions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name}")
    parser.add_argument("--steps", type=int, default=575)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    landscape, theta = prepared(COUNT)
    rates = [LR] * options.steps

    def learn(chunk: int | None = None) -> tuple[EnsembleRecord, Tensor]:
        ensemble = Ensemble(theta)
        return ensemble.learn(landscape, SGD(), rates, chunk=chunk), ensemble.theta

    record, end = learn()
    peer_end, peer_action = one_after_the_other(landscape.task, options.steps)
    torch.testing.assert_close(end, peer_end, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(record.series.action[-1], peer_action, rtol=1e-3, atol=0)
    times = alternating(
        {
            "together": learn,
            "here, one at a time": lambda: learn(chunk=1),
            "torch, one after the other": lambda: one_after_the_other(
                landscape.task, options.steps
            ),
        },
        options.rounds,
    )
    best = {name: min(values) for name, values in times.items()}
    peer = times["torch, one after the other"]
    ratios = sorted(a / b for a, b in zip(peer, times["together"], strict=True))
    ratio = ratios[len(ratios) // 2]
    lines = [
        f"{COUNT} replicas of 64-64-10 (P = {theta.shape[1]}), batch {BATCH}, {options.steps} "
        "steps, trained and measured",
        conditions(),
        "",
        f"{'':28} {'best s':>8} {'median s':>9} {'over together':>14}",
        *(
            f"{name:28} {best[name]:8.3f} {sorted(values)[len(values) // 2]:9.3f} "
            f"{best[name] / best['together']:14.1f}"
            for name, values in times.items()
        ),
        "",
        f"together is {ratio:.1f} [{ratios[0]:.1f}, {ratios[-1]:.1f}] times faster than torch, one "
        f"after the other: median and range over rounds (claim: at least {CLAIM:g}): "
        f"{'holds' if ratio >= CLAIM else 'FAILS'}",
    ]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.save:
        RESULT.write_text(text)


if __name__ == "__main__":
    main()
