"""The spectrum of J_t, its tangents shared among processes: a worked example for `torchrun`.

    torchrun --standalone --nproc-per-node 2 benchmarks/transport/sharded_spectrum.py

Each process trains the same small network by the same seeds, pushes its part of the tangents, and
gets the whole result. The first one prints it, next to what it finds alone: equal to rounding. With
a GPU per process the backend is NCCL, otherwise gloo.
"""

from __future__ import annotations

import argparse
import itertools
import os
from typing import Any

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn

import capacity
from capacity.jacobian.distributed import ShardedJacobian
from capacity.jacobian.spectrum import spectrum
from capacity.jacobian.training_jacobian import TrainingJacobian


def train(device: torch.device, *, epochs: int = 2) -> TrainingJacobian:
    """Train a digits network, tracked from outside."""
    torch.manual_seed(0)
    data = load_digits()
    x = torch.tensor(data.data / 16, dtype=torch.float32, device=device)
    y = torch.tensor(data.target, device=device)
    model = nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    tracker = capacity.TransportTracker(model, "cross_entropy", optimizer, tangents=1)
    for _ in range(epochs):
        for batch in torch.randperm(len(y), device=device)[:1024].split(64):
            tracker.observe(x[batch], y[batch])
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    return tracker.jacobian()


def resolve(jacobian: Any) -> list[float]:
    """Find the five largest singular values."""
    generator = torch.Generator(jacobian.like.device).manual_seed(1)
    found = spectrum(jacobian, top=5, bottom=0, sweeps=6, generator=generator, method="krylov")
    return [singular.value for singular in found.singular_values]


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    device = torch.device("cpu")
    if torch.cuda.device_count() > int(os.environ.get("LOCAL_RANK", "0")):
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    torch.set_num_threads(1)  # of all processes alike: the same sums in the same order
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        jacobian = train(device)
        shared = ShardedJacobian(jacobian)
        found = resolve(shared)
        if dist.get_rank() == 0:
            alone = resolve(jacobian)
            off = max(abs(a / b - 1) for a, b in itertools.zip_longest(found, alone))
            print(f"P = {jacobian.size}, {dist.get_world_size()} processes, {device.type}")
            print("singular values  " + "  ".join(f"{value:.5f}" for value in found))
            print("one process      " + "  ".join(f"{value:.5f}" for value in alone))
            print(f"largest relative difference {off:.1e}")
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
