"""What the caller has switched on in torch is kept out of what is measured."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

import capacity

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore:There is a performance drop", "ignore:The old tasks are not converged"
    ),
]

X = torch.randn(2, 40, 4, generator=torch.Generator().manual_seed(1))
OLD, NEW = ((x, (x[:, k] > 0).long()) for k, x in enumerate(X))
PLAN = capacity.Training(lr=0.1, epochs=2, batch_size=16)
STARTED = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def track(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker = capacity.TransportTracker(model, "cross_entropy", optimizer, tangents=2)
    tracker.observe(*OLD)
    return tracker.log_volume()


def run(model, folder):
    measure = capacity.Measure(level="forecast")
    how = {"training": PLAN, "measure": measure, "replicas": 1, "quiet": True, "out": folder}
    return capacity.run([OLD, NEW], model=model, **how).result


CALLS = {
    "forecast": lambda m, _: capacity.forecast(m, old=OLD, new=NEW, training=PLAN),
    "simulated forecast": lambda m, _: capacity.forecast(
        m, old=OLD, new=NEW, training=PLAN, budget=None
    ),
    "verdict": lambda m, _: capacity.verdict(m, old=OLD, new=NEW, training=PLAN),
    "compatible_capacity": lambda m, _: capacity.compatible_capacity(
        m, old=OLD, new=NEW, tolerance=0.1, displacement=1.0
    ).to_dict(),
    "epistemic_speed_limit": lambda m, _: (
        capacity.epistemic_speed_limit(m, [OLD], training=PLAN, replicas=2).total.per_replica
    ),
    "tracker": lambda m, _: track(m),
    "run": run,
}
SWITCHES = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "double precision": nullcontext,
}


@pytest.mark.parametrize("name", CALLS)
def test_switches_of_torch_change_no_number(name, tmp_path):
    plain = CALLS[name](STARTED, tmp_path / "plain")
    for kind, switch in SWITCHES.items():
        torch.set_default_dtype(torch.float64 if kind == "double precision" else torch.float32)
        with switch():
            assert CALLS[name](STARTED, tmp_path / kind) == plain, kind


def test_data_made_under_inference_mode_are_taken():
    plain = CALLS["forecast"](STARTED, None)
    with torch.inference_mode():
        old = (OLD[0].clone(), OLD[1].clone())
        assert capacity.forecast(STARTED, old=old, new=NEW, training=PLAN) == plain
