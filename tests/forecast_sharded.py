"""One of several processes that train a network together by FSDP2, and forecast its next task."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

import capacity

PLAN = capacity.Training(lr=0.1, epochs=2, batch_size=8)


class Tied(nn.Module):
    """Two layers that share their weight, a buffer, and a hook of their own."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.again = nn.Linear(4, 4)
        self.again.weight = self.inner[0].weight
        self.register_buffer("shift", torch.ones(4))
        self.register_forward_hook(lambda _module, _inputs, outputs: 2 * outputs)

    def forward(self, x):
        return self.again(self.inner(x) + self.shift)


def network():
    torch.manual_seed(0)
    return Tied()


def data():
    x = torch.randn(48, 4, generator=torch.Generator().manual_seed(1))
    return (x, (x[:, 0] > 0).long()), (x, (x[:, 1] > 0).long())


def train(model, steps=3):
    """An ordinary training."""
    (x, y), _ = data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def said(model):
    old, new = data()
    made = capacity.forecast(model, old=old, new=new, training=PLAN)
    return [made.accuracy_drop.value, made.loss_increase.value, made.new_loss.value]


def sharded(model, processes):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (processes,))
    fully_shard(model, mesh=mesh)
    return model


if __name__ == "__main__":
    rank, count, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    where = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=count)
    model = sharded(network(), count)
    train(model)
    before = [p.to_local().clone() for p in model.parameters()]
    found = {"said": said(model)}
    found["kept"] = all(
        torch.equal(a, b.to_local()) for a, b in zip(before, model.parameters(), strict=True)
    )
    train(model)  # it goes on as it was
    found["sizes"] = [p.to_local().numel() for p in model.parameters()]
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
