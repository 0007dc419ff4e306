"""Whole runs on the tiny recipe: reproducible, undisturbed, honest when they end early."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

import capacity
from capacity.base.files import to_json
from capacity.products.hessian_products import HessianProducts
from capacity.recipe import config
from capacity.recipe.config import Measure, Training
from capacity.runs.directory import RunDirectory
from capacity.runs.execute import Execution

pytestmark = pytest.mark.slow


SMALL = config.load("tiny-digits", [
    "tasks.samples=128", "model.hidden=[8]", "training.batch_size=16", "training.epochs=8",
    "measure.tangents=4", "measure.top_values=2", "measure.sweeps=2",
    "measure.log_volume_probes=2", "measure.log_volume_nodes=1",
    "measure.capacity_probes=2", "measure.capacity_nodes=3", "measure.curvature_samples=64",
])  # fmt: skip
"""The recipe for CI with a smaller network and fewer products: everything that a run does."""

UNWATCHED = Measure(forecast=False)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return capacity.run(SMALL, out=tmp_path_factory.mktemp("run") / "tiny", quiet=True)


def pair(seed: int, n: int = 40):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator)
    return x, (x[:, seed % 6] > 0).long()


def test_the_directory_holds_what_the_schema_says(tiny):
    names = {path.name for path in tiny.path.iterdir()}
    assert names >= {
        "recipe.yaml",
        "env.json",
        "status.json",
        "metrics.jsonl",
        "metrics.parquet",
        "summary.parquet",
        "result.json",
        "spectra.safetensors",
        "checkpoints",
        "report.html",
    }
    assert json.loads((tiny.path / "status.json").read_text())["state"] == "finished"
    assert tiny.result["schema_version"] == 1


def test_result_is_complete(tiny):
    result = tiny.result
    n = len(result["tasks"])
    assert [t["status"] for t in result["tasks"]] == ["learned"] * n
    assert len(result["accuracy"]["replicas"]) == result["replicas"]
    assert result["accuracy"]["mean"][0][0] > 0.8, "the first task must be learned"
    assert len(result["transitions"]) == n - 1
    for transition in result["transitions"]:
        for cell in transition["old"]:
            assert cell["forecast"]["accuracy_drop"]["value"] is not None
            assert cell["measured"]["accuracy_drop"]["value"] is not None
        assert transition["capacity"]["directions"]["value"] > 0
        assert transition["dimension"]["stable_rank"]["value"] > 0
        assert 0 < transition["cost_ratio"]["value"] < 3
        assert transition["verdicts"]["decides"] == "directional"
        assert transition["verdicts"]["directional"]["verdict"] == "forgetting predicted"
        curve = transition["closures"]["directional"]
        assert curve["points"][0]["time"] == 0.0
        assert len(curve["points"]) == 5
        assert len(transition["capacity"]["sensitivity"]) == 3
        assert transition["plasticity"]["feature_rank"]["value"] > 1
    for phase in result["phases"]:
        assert phase["thermo"]["inefficiency_path"]["value"] >= 1
        assert phase["thermo"]["path_invariant"]["smallest_ratio"] >= 1 - 1e-6
        assert phase["transport"]["log_volume"]["stderr"] is not None
        values = phase["transport"]["singular_values"]
        assert values == sorted(values, key=lambda s: -s["value"])


def test_matrix_is_what_the_checkpoints_score(tiny):
    recipe = RunDirectory.open(tiny.path).recipe()
    from capacity.networks.evaluate import evaluate
    from capacity.networks.flat_model import FlatModel
    from capacity.networks.models import build_model
    from capacity.tasks.build import build_tasks

    tasks = build_tasks(recipe.tasks)
    flat = FlatModel(build_model(recipe.model, tasks.input_shape, tasks.n_outputs, 0))
    for i in range(len(tasks)):
        theta = RunDirectory.open(tiny.path).theta(f"task{i}")
        for j, task in enumerate(tasks.tasks):
            expected = float(evaluate(flat, theta, task, task.test).accuracy.mean())
            assert tiny.result["accuracy"]["mean"][i][j] == pytest.approx(expected)


def test_another_seed_trains_otherwise(tiny, quick_run, tmp_path):
    other = capacity.run(SMALL, out=tmp_path / "other", seed=1, measure=UNWATCHED, quiet=True)
    assert other.result["accuracy"] != tiny.result["accuracy"]
    assert other.result["loss"] != tiny.result["loss"]


def test_spectrum_of_every_task_and_of_all_together(tiny, tmp_path):
    size = tiny.result["model"]["parameters"]
    for phase in tiny.result["phases"]:
        found = phase["transport"]
        parts = [found["parts"][name]["value"] for name in ("chaotic", "bulk", "stable")]
        assert sum(parts) == pytest.approx(size) == found["dimension"]
        assert sum(found["density"]["counts"]) == pytest.approx(size)
        assert len(found["density"]["counts"]) == len(found["density"]["edges"]) + 1
        assert found["stable_rank"]["value"] <= found["effective_rank"]["value"] <= size
    assert tiny.result["composed"] is None
    asked = RunDirectory.open(tiny.path).recipe().measure
    measure = asked.model_copy(update={"composed_spectrum": True})
    both = capacity.run(SMALL, out=tmp_path / "both", measure=measure, quiet=True)
    composed = both.result["composed"]
    assert composed["tasks"] == len(both.result["tasks"])
    # The same seed gives the same bytes, and asking for more changes nothing else.
    asked_for_less = both.result | {"composed": None, "recipe": tiny.result["recipe"]}
    assert to_json(asked_for_less) == to_json(tiny.result)
    # J over all tasks is a product: its norm is at most that of the factors.
    norms = [p["transport"]["singular_values"][0]["value"] for p in both.result["phases"]]
    largest = composed["singular_values"][0]["value"]
    assert largest <= math.prod(norms) * (1 + 1e-3)
    assert largest != pytest.approx(norms[-1])
    assert "all: " in (both.path / "report.html").read_text()


def test_tracking_changes_no_parameter(tiny, tmp_path):
    off = Measure(level="full", transport=False, forecast=False, verdicts=False, sensitivity_eps=())
    plain = capacity.run(SMALL, out=tmp_path / "plain", measure=off, quiet=True)
    for i in range(len(tiny.result["tasks"])):
        watched, alone = (RunDirectory.open(r.path).theta(f"task{i}") for r in (tiny, plain))
        assert torch.equal(watched, alone)
    assert plain.result["accuracy"] == tiny.result["accuracy"]
    transition = plain.result["transitions"][0]
    assert transition["new"]["forecast"] is None
    assert transition["verdicts"] is None
    assert transition["closures"] is None
    assert transition["capacity"]["sensitivity"] == []
    assert "Nothing else was measured that decides" in (plain.path / "report.html").read_text()


def test_a_finished_directory_is_returned_as_it_is(tiny):
    before = (tiny.path / "status.json").read_bytes()
    again = capacity.run(SMALL, out=tiny.path, quiet=True)
    assert again.result == tiny.result
    assert (tiny.path / "status.json").read_bytes() == before


def test_another_recipe_in_the_same_directory_is_refused(tiny):
    before = (tiny.path / "result.json").read_bytes()
    with pytest.raises(ValueError, match="seed was 0, is 5"):
        capacity.run(SMALL, out=tiny.path, seed=5, quiet=True)
    assert (tiny.path / "result.json").read_bytes() == before


def test_divergence_keeps_what_was_measured(quick_run, tmp_path):
    # Values of 1e15 overflow the squared loss of the second task only.
    x = torch.randn(40, 6)
    tasks = [(x, x[:, :2]), (x * 1e15, x[:, :2])]
    made = capacity.run(
        capacity_tasks(tasks),
        model=lambda: nn.Linear(6, 2),
        training=Training(lr=0.1, epochs=20),
        measure=Measure(level="capacity", capacity_probes=2, capacity_nodes=3),
        replicas=2,
        out=tmp_path / "run",
        quiet=True,
    )
    assert made.status == "diverged"
    assert [t["status"] for t in made.result["tasks"]] == ["learned", "diverged"]
    assert made.result["tasks"][1]["diverged"]["replicas"] == [0, 1]
    assert made.result["loss"]["mean"][0][0] is not None
    assert made.result["phases"][1] is None
    assert "diverged" in made.report().read_text()


def capacity_tasks(pairs):
    from capacity.tasks.task import Split, Task, TaskSequence

    tasks = tuple(
        Task(name=f"t{i}", train=Split(x, y), test=Split(x, y), loss="mse")
        for i, (x, y) in enumerate(pairs)
    )
    return TaskSequence(name="pairs", tasks=tasks, n_outputs=2)


def test_interruption_leaves_a_readable_run(tmp_path, monkeypatch):
    learn = Execution._learn

    def stop_in_the_second(self, i):
        if i == 1:
            self._found.states[i] = "training"
            raise KeyboardInterrupt
        learn(self, i)

    monkeypatch.setattr(Execution, "_learn", stop_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        capacity.run(SMALL, out=tmp_path / "run", measure=Measure(), quiet=True)
    made = capacity.open_run(tmp_path / "run")
    assert made.status == "interrupted"
    assert RunDirectory.open(made.path).status()["state"] == "interrupted"
    assert [t["status"] for t in made.result["tasks"]] == ["learned", "interrupted"]
    assert made.result["accuracy"]["mean"][0][0] is not None
    assert "interrupted" in made.report().read_text()
    # The same command again starts anew and finishes.
    monkeypatch.undo()
    again = capacity.run(SMALL, out=tmp_path / "run", measure=Measure(), quiet=True)
    assert again.status == "finished"


def test_interruption_while_the_spectrum_is_resolved(tmp_path, monkeypatch):
    def stop(self, generator):
        raise KeyboardInterrupt

    monkeypatch.setattr("capacity.runs.observe.PhaseTransport.finish", stop)
    with pytest.raises(KeyboardInterrupt):
        capacity.run(SMALL, out=tmp_path / "run", quiet=True)
    made = capacity.open_run(tmp_path / "run")
    assert made.status == "interrupted"
    assert made.result["tasks"][0]["status"] == "learned"
    assert made.result["phases"][0]["transport"] is None
    assert made.result["phases"][0]["thermo"]["inefficiency_path"]["value"] >= 1
    assert "interrupted" in made.report().read_text()


def test_a_failure_is_recorded(tmp_path, monkeypatch):
    def fail(self, i):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(Execution, "_after", fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        capacity.run(SMALL, out=tmp_path / "run", measure=UNWATCHED, quiet=True)
    status = RunDirectory.open(tmp_path / "run").status()
    assert (status["state"], status["message"]) == ("failed", "RuntimeError: out of luck")


def test_tasks_of_one_kind_share_the_graphs_of_their_trainings(tmp_path, monkeypatch):
    monkeypatch.setattr("capacity.runs.run._reported", lambda made, progress: True)
    traced, trace = [], HessianProducts._trace
    monkeypatch.setattr(
        HessianProducts, "_trace", lambda self, *given: traced.append(1) or trace(self, *given)
    )
    counts = []
    for count in (1, 4):
        capacity.run(
            [(pair(k, 20), pair(k + 9, 20)) for k in range(count)],
            model=nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 2)),
            training=Training(lr=0.1, epochs=1, batch_size=10),
            measure=Measure(transport=True, forecast=False, tangents=2),
            replicas=1,
            out=tmp_path / str(count),
            quiet=True,
        )
        counts.append(len(traced))
        traced.clear()
    assert counts[0] == counts[1] > 0


def test_own_tensors_and_own_module(quick_run, tmp_path):
    module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    before = [p.clone() for p in module.parameters()]
    made = capacity.run(
        [pair(0), pair(1)],
        model=module,
        training=Training(lr=0.1, epochs=2, optimizer="adam"),
        measure=Measure(level="full"),
        replicas=2,
        out=tmp_path / "run",
        quiet=True,
    )
    assert made.status == "finished"
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert made.result["recipe"]["model"]["kind"] == "custom"
    assert made.forecasts[0]["task"] == made.measured[0]["task"] == 1
    assert "task0.singular_values" in made.spectra
    # Other data in the same directory is another recipe.
    with pytest.raises(ValueError, match=r"another recipe \(the data differ\); name another"):
        capacity.run(
            [pair(0), pair(2)],
            model=module,
            training=Training(lr=0.1, epochs=2, optimizer="adam"),
            measure=Measure(level="full"),
            replicas=2,
            out=made.path,
            quiet=True,
        )


def test_own_avalanche_benchmark(quick_run, tmp_path):
    from capacity.tasks.digits import digits_benchmark

    benchmark = digits_benchmark(config.load("tiny-digits").tasks)
    made = capacity.run(
        benchmark,
        training=Training(lr=0.1, epochs=1),
        measure=Measure(),
        replicas=1,
        out=tmp_path / "run",
        quiet=True,
    )
    assert made.status == "finished"
    assert made.result["accuracy"]["stderr"][0] == [None] * len(made.result["tasks"])


NETWORK = nn.Linear(6, 2)
BAD = {
    "no tasks": ({"tasks": []}, "empty"),
    "a number": ({"tasks": 3}, "tasks"),
    "device": ({"tasks": "tiny-digits", "device": "tpu"}, "device"),
    "no gpu": ({"tasks": "tiny-digits", "device": "cuda:99"}, "not on this machine"),
    "replicas": ({"tasks": "tiny-digits", "replicas": 0}, "replicas = 0"),
    "seed": ({"tasks": "tiny-digits", "seed": -1}, "seed = -1"),
    "nan": ({"tasks": [(torch.full((4, 6), torch.nan), torch.zeros(4).long())]}, "NaN"),
    "empty": ({"tasks": [(torch.zeros(0, 6), torch.zeros(0).long())]}, "empty"),
    "labels outside": (
        {"tasks": [(torch.randn(9, 6), torch.arange(9))], "model": NETWORK},
        "accepted: 0 to 1",
    ),
    "frozen model": (
        {"tasks": [pair(0)], "model": nn.Linear(6, 2).requires_grad_(False)},
        "no trainable parameters",
    ),
    "wrong inputs": ({"tasks": [pair(0)], "model": nn.Linear(7, 2)}, "inputs of shape"),
    "batch norm": (
        {
            "tasks": [pair(0)],
            "model": nn.Sequential(NETWORK, nn.BatchNorm1d(2)),
            "training": Training(strategy={"name": "ewc"}),
            "replicas": 2,
        },
        "(BatchNorm1d) has running statistics",
    ),
    "dropout": (
        {
            "tasks": [pair(0)],
            "model": nn.Sequential(NETWORK, nn.Dropout()),
            "measure": Measure(level="capacity"),
            "training": Training(accumulate=2, strategy={"name": "ewc"}),
        },
        "(Dropout) may see each batch by itself",
    ),
    "spectral norm": (
        {
            "tasks": [pair(0)],
            "model": nn.utils.parametrizations.spectral_norm(nn.Linear(6, 2)),
            "measure": Measure(level="full"),
        },
        "its outputs depend on it",
    ),
    "model is text": ({"tasks": [pair(0)], "model": "mlp"}, "model is a str"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_dies_before_any_work(case, tmp_path):
    arguments, said = BAD[case]
    with pytest.raises(ValueError, match=r".") as caught:
        capacity.run(**arguments, out=tmp_path / "run", quiet=True)
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("lr", [5.0, 1e3, 1e6])
def test_wild_training_ends_in_a_status_not_in_a_crash(lr, quick_run, tmp_path):
    # Far from divergence, theta stays finite while its tangents and curvatures overflow.
    made = capacity.run(
        SMALL,
        training=Training(lr=lr, epochs=6, batch_size=32),
        measure=SMALL.measure.model_copy(update={"closure_points": 0}),
        out=tmp_path / "run",
        quiet=True,
    )
    assert made.status in {"finished", "diverged"}
    assert made.report().is_file()
