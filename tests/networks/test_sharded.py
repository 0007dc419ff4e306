"""A network of which a process holds a part is gathered for forecasts, and else refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

import capacity
from capacity.networks.gathered import gathered
from forecast_sharded import data, network, said, sharded, train
from forked import forked

pytestmark = pytest.mark.slow  # groups of processes

TESTS = Path(__file__).parents[1]
PROCESSES = 2


@pytest.fixture
def alone():
    if not dist.is_available():
        pytest.skip("torch without torch.distributed")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield sharded(network(), 1)
    finally:
        dist.destroy_process_group()


def test_two_processes_forecast_what_one_does(tmp_path):
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    running = []
    try:
        for rank in range(PROCESSES):
            command = [sys.executable, TESTS / "forecast_sharded.py", str(rank), str(PROCESSES)]
            with forked(), (tmp_path / f"{rank}.log").open("w") as log:
                running.append(
                    subprocess.Popen(
                        [*command, str(tmp_path)], env=environment, stdout=log, stderr=log
                    )
                )
        for rank, process in enumerate(running):
            assert process.wait(timeout=240) == 0, (tmp_path / f"{rank}.log").read_text()
    finally:
        for process in running:
            process.kill()
            process.wait()
    model = network()
    train(model)
    expected = said(model)
    whole = sum(p.numel() for p in model.parameters())
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(PROCESSES)]
    for one in found:
        assert one["said"] == pytest.approx(expected, rel=1e-4)
        assert one["kept"]
    assert sum(sum(one["sizes"]) for one in found) == whole


def test_a_gathered_copy_shares_what_was_shared_and_keeps_own_hooks(alone):
    x = data()[0][0]
    plain = gathered(alone)
    assert type(plain) is type(network())
    assert plain.again.weight is plain.inner[0].weight
    assert not any(hasattr(p, "full_tensor") for p in plain.parameters())
    torch.testing.assert_close(plain(x), network()(x))
    with torch.no_grad():
        plain.again.weight.zero_()
    torch.testing.assert_close(alone(x), network()(x))
    unsharded = nn.Linear(2, 2)
    assert gathered(unsharded) is unsharded


def test_other_doors_refuse_a_sharded_model_by_name(alone):
    said_so = "model is sharded over processes: of inner.0.weight and 2 more .*full_state_dict=True"
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=said_so):
        capacity.TransportTracker(alone, "cross_entropy", optimizer, tangents=2)
