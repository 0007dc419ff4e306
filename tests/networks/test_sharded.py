"""A network of which this process holds a part is refused by name, wherever it is handed over."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn

import capacity


@pytest.fixture
def sharded():
    if not dist.is_available():
        pytest.skip("torch without torch.distributed")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        yield model
    finally:
        dist.destroy_process_group()


@pytest.mark.slow  # a group of processes
def test_a_sharded_model_is_refused_by_name(sharded):
    data = (torch.randn(24, 3), torch.arange(24) % 2)
    said = "model is sharded over processes: of 0.weight and 3 more .*full_state_dict=True"
    with pytest.raises(ValueError, match=said):
        capacity.forecast(sharded, old=data, new=data, training=capacity.Training(epochs=1))
    optimizer = torch.optim.SGD(sharded.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=said):
        capacity.TransportTracker(sharded, "cross_entropy", optimizer, tangents=2)
