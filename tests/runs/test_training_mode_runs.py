"""Runs of networks with dropout and batch norm: killed and resumed, they end where they would."""

import pytest
import torch
from torch import nn

import capacity
from capacity.networks.evaluate import evaluate
from capacity.runs.directory import RunDirectory
from capacity.runs.journal import Journal

pytestmark = pytest.mark.usefixtures("quick_run")

X = torch.randn(60, 6, generator=torch.Generator().manual_seed(1))
TASKS = [(X, (X[:, k] > 0).long()) for k in range(2)]


def network():
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2)
    )


def trained(out, **more):
    return capacity.run(
        TASKS, model=network, training=capacity.Training(lr=0.1, epochs=2, batch_size=16),
        replicas=2, out=out, quiet=True, checkpoint_minutes=0.0, **more,
    )  # fmt: skip


@pytest.mark.parametrize("kill", ["task0.inside", "task1.inside", "task1.learned"])
def test_a_killed_run_ends_bit_for_bit_where_it_would(kill, tmp_path, monkeypatch):
    whole = trained(tmp_path / "whole")
    put, seen = Journal.put, []

    def stop(self, name, record, tensors=None, **more):
        kept = put(self, name, record, {} if tensors is None else tensors, **more)
        seen.append(name)
        if name == kill and seen.count(name) == (3 if "inside" in name else 1):
            raise KeyboardInterrupt
        return kept

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "put", stop)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "killed")
    assert kill in seen
    resumed = trained(tmp_path / "killed")
    assert resumed.status == whole.status == "finished"
    for part in ("accuracy", "loss"):
        assert resumed.result[part] == whole.result[part]
    ends = [RunDirectory(made.path) for made in (whole, resumed)]
    thetas = [(end.path / "checkpoints/task1.safetensors").read_bytes() for end in ends]
    assert thetas[0] == thetas[1]


@pytest.mark.slow
@pytest.mark.parametrize("kill", ["task0.inside", "task1.learned"])
def test_a_killed_run_that_follows_j_ends_bit_for_bit_where_it_would(kill, tmp_path, monkeypatch):
    level = capacity.Measure(level="full", closure_points=2, forecast=False)
    whole = trained(tmp_path / "whole", measure=level)
    put, seen = Journal.put, []

    def stop(self, name, record, tensors=None, **more):
        kept = put(self, name, record, {} if tensors is None else tensors, **more)
        seen.append(name)
        if name == kill and seen.count(name) == (2 if "inside" in name else 1):
            raise KeyboardInterrupt
        return kept

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "put", stop)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "killed", measure=level)
    resumed = trained(tmp_path / "killed", measure=level)
    assert resumed.status == whole.status == "finished"
    for part in ("accuracy", "loss", "phases", "transitions"):
        assert resumed.result[part] == whole.result[part]
    phase, transition = whole.result["phases"][1], whole.result["transitions"][0]
    assert phase["transport"]["log_volume"]["value"] is not None
    assert transition["capacity"]["directions"]["value"] > 0
    assert "evaluation mode" in " ".join(transition["verdicts"]["warnings"])


def test_a_batch_of_several_tensors_is_learned(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Linear(6, 2)

        def forward(self, left, right):
            return {"logits": self.layers(torch.cat([left, right], 1))}

    def split(task):
        return {"left": task[0][:, :2], "right": task[0][:, 2:], "labels": task[1]}

    torch.manual_seed(0)
    module = Two()
    plan = capacity.Training(lr=0.1, epochs=2, batch_size=16)
    ends = [
        capacity.run(
            tasks, model=model, training=plan, replicas=1, quiet=True, out=tmp_path / name
        ).result["accuracy"]
        for name, model, tasks in (
            ("two", module, [split(task) for task in TASKS]),
            ("one", module.layers, TASKS),
        )
    ]
    assert ends[0] == ends[1]


def test_running_statistics_are_in_the_result(tmp_path):
    """Of one task and one replica, as a loop of one's own has them after the same steps."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    plan = capacity.Training(lr=0.1, epochs=2, batch_size=60)  # whole batches: no order matters
    tasks = [(TASKS[k], TASKS[k]) for k in range(2)]
    made = capacity.run(tasks, model=plain, training=plan, replicas=1, out=tmp_path, quiet=True)
    optimizer, norm = torch.optim.SGD(plain.parameters(), lr=0.1), plain[1]
    for (x, y), phase in zip(TASKS, made.result["phases"], strict=True):
        before = norm.running_var.clone()
        for _ in range(2):
            optimizer.zero_grad()
            nn.functional.cross_entropy(plain(x), y).backward()
            optimizer.step()
        said = phase["statistics"]
        assert said.keys() == {"1.running_mean", "1.running_var"}
        by_hand = {
            "rms": norm.running_var.square().mean().sqrt(),
            "moved": (norm.running_var - before).square().mean().sqrt(),
        }
        for name, value in by_hand.items():
            found = said["1.running_var"][name]["value"]
            assert found == pytest.approx(float(value), rel=1e-4), name


def test_nothing_is_scored_twice(tmp_path, monkeypatch):
    """Per task: its training split before, and after an epoch that split and every test split."""
    scored = []

    def counted(model, theta, task, split):
        scored.append(split is task.train)
        return evaluate(model, theta, task, split)

    for room in ("execute", "old_tasks"):
        monkeypatch.setattr(f"capacity.runs.{room}.evaluate", counted)
    plan = capacity.Training(lr=0.1, epochs=1)
    measure = capacity.Measure(forecast=False)
    made = capacity.run(
        TASKS, model=network, training=plan, replicas=1, out=tmp_path, quiet=True, measure=measure
    )
    assert made.status == "finished"
    assert sum(scored) == 2 * (1 + 1)
    assert len(scored) - sum(scored) == 2 + 2 * 2, "before the first task, and after each"
