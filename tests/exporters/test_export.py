"""Runs in the trackers' own files: TensorBoard and W&B for real, MLflow for real where installed.

W&B runs offline. MLflow is no dependency of the tests: a thin stand-in records the calls.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections import defaultdict
from types import SimpleNamespace

import pytest

import capacity
from capacity.exporters.content import content
from forked import forked
from report.fabricated_run import CASES, accuracy, write

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("runs") / "finished")


@pytest.mark.parametrize("case", CASES)
def test_everything_is_a_finite_float_under_a_name(case, tmp_path):
    made = content(write(tmp_path / case, case))
    for steps in (made.series, made.tasks, {0: made.summary}):
        for values in steps.values():
            for name, value in values.items():
                assert type(value) is float, name
                assert abs(value) < float("inf"), name
    assert all(isinstance(text, str) for text in made.parameters.values())
    assert bool(made.figures) is (case != "stopped_early")
    assert made.state == {"stopped_early": "interrupted"}.get(
        case, case if case in {"diverged", "interrupted"} else "finished"
    )


def test_content_holds_the_runs_numbers(path):
    made = content(path)
    assert made.parameters["training.lr"] == "0.1"
    assert made.series[0]["test_accuracy/task_1"] == pytest.approx(accuracy(0, 0))
    assert made.series[10]["train/loss"] == pytest.approx(1.0)
    assert made.tasks[1]["task/inefficiency_path"] == pytest.approx(1.9)
    # Before task 3 the drop is 12 points on each of two earlier tasks; 14 were forecast.
    assert made.tasks[3]["task/accuracy_drop_measured"] == pytest.approx(0.12)
    assert made.tasks[3]["task/accuracy_drop_forecast"] == pytest.approx(0.14)
    assert made.summary["final/accuracy"] == 0.8
    assert made.summary["forecast/accuracy_drop_spearman"] == 0.93


def test_tensorboard_reads_back_what_was_written(path, tmp_path):
    where = capacity.export(path, to="tensorboard", out=tmp_path / "tb")
    assert where == str(tmp_path / "tb")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(where)
    events.Reload()
    found = {event.step: event.value for event in events.Scalars("task/inefficiency_path")}
    assert found == pytest.approx({1: 1.9, 2: 2.9, 3: 3.9})
    assert set(events.Tags()["images"]) == content(path).figures.keys()
    steps = [event.step for event in events.Scalars("train/loss")]
    assert steps == sorted(content(path).series)


def test_tensorboard_goes_into_the_run_directory_by_default(tmp_path):
    run = capacity.open_run(write(tmp_path / "run", "stopped_early"))
    assert capacity.export(run, to="tensorboard") == str(tmp_path / "run" / "tensorboard")


def killed(code, *words):
    """Run code that ends by SIGKILL, and give the number that its process had."""
    with forked():
        process = subprocess.Popen([sys.executable, "-c", code, *map(str, words)])
    assert process.wait() == -signal.SIGKILL
    return process.pid


_KILLED = """
import os, signal, sys
import capacity
from torch.utils.tensorboard import SummaryWriter
from capacity.plots import Drawing

def end(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

where, to, out = sys.argv[1:]
SummaryWriter.add_text = Drawing.save = end
capacity.export(where, to=to, out=out)
"""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tracker", ["tensorboard", "wandb"])
def test_what_a_killed_export_leaves_is_swept_by_the_next(path, tmp_path, monkeypatch, tracker):
    temporary, out = tmp_path / "tmp", tmp_path / "out"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setattr("tempfile.tempdir", None)
    places = [out] if tracker == "tensorboard" else [out, temporary]
    number = killed(_KILLED, path, tracker, out)
    for place in places:
        assert list(place.glob(f".capacity-*.{number}.tmp")), "nothing was left to sweep"
    # A tracker would show half a run beside the whole one.
    assert not list(out.glob("events*")) + list(out.glob("wandb/*"))
    where = capacity.export(path, to=tracker, out=out)
    assert not [left for place in places for left in place.glob(".capacity-*")]
    assert [p.name for p in out.iterdir()] == [
        p.name for p in (out.glob("events*") if tracker == "tensorboard" else [out / "wandb"])
    ]
    assert tracker == "tensorboard" or [str(p) for p in out.glob("wandb/*")] == [where]


# W&B's service leaves sockets and files for the interpreter's end to close.
@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_an_offline_run(path, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    where = capacity.export(path, to="wandb", out=tmp_path)
    assert "offline-run" in where
    (log,) = tmp_path.rglob("run-*.wandb")
    names = (b"task/inefficiency_path", b"test_accuracy/task_1", b"final/accuracy", b"training.lr")
    # W&B's own process writes the file, and may be a moment behind.
    deadline = time.monotonic() + 60
    while missing := [name for name in names if name not in log.read_bytes()]:
        assert time.monotonic() < deadline, missing
        time.sleep(0.1)
    pictures = [picture.name for picture in tmp_path.rglob("*.png")]
    assert len(pictures) == len(content(path).figures)


class Client:
    """What the exporter asks of `mlflow.MlflowClient`."""

    def __init__(self, tracking_uri=None):
        self.uri = tracking_uri
        self.metrics, self.params = defaultdict(dict), {}
        self.artifacts, self.ended, self.experiments, self.deleted = [], None, {}, []
        Client.latest = self

    def get_experiment_by_name(self, name):
        return self.experiments.get(name)

    def create_experiment(self, name, artifact_location=None):
        self.experiments[name] = SimpleNamespace(experiment_id="1")
        return "1"

    def create_run(self, experiment, run_name, tags):
        self.name, self.tags = run_name, tags
        return SimpleNamespace(info=SimpleNamespace(run_id="abc"))

    there: tuple = ()
    """Runs of earlier exports: key, tags."""

    def search_runs(self, experiments, filter_string):
        assert filter_string == "attributes.status = 'RUNNING'"
        return [
            SimpleNamespace(info=SimpleNamespace(run_id=key), data=SimpleNamespace(tags=tags))
            for key, tags in self.there
        ]

    def delete_run(self, run):
        self.deleted.append(run)

    def log_param(self, run, name, value):
        self.params[name] = value

    def log_metric(self, run, name, value, step=0):
        self.metrics[name][step] = value

    def log_artifact(self, run, path, folder=None):
        self.artifacts.append((path.rpartition("/")[2], folder))

    def set_terminated(self, run, status):
        self.ended = status


@pytest.mark.parametrize(("case", "ended"), [("finished", "FINISHED"), ("diverged", "FAILED")])
def test_mlflow_is_asked_for_every_number(case, ended, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=Client))
    path = write(tmp_path / case, case)
    where = capacity.export(path, to="mlflow", out=tmp_path / "ml")
    client = Client.latest
    assert where == f"{client.uri}, run abc"
    assert client.uri.startswith("sqlite:///")
    assert client.metrics["task/inefficiency_path"][1] == pytest.approx(1.9)
    assert client.params["training.lr"] == "0.1"
    assert client.tags == {"state": case, "capacity.export": f"{platform.node()} {os.getpid()}"}
    assert client.deleted == []
    assert client.ended == ended
    assert ("spectrum.png", "figures") in client.artifacts
    assert ("result.json", None) in client.artifacts


def test_mlflow_is_asked_to_delete_what_a_killed_export_left(path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=Client))
    gone = killed("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    here = platform.node()
    there = [
        ("left", f"{here} {gone}"),
        ("at work", f"{here} {os.getppid()}"),
        ("elsewhere", f"not-{here} {gone}"),
        ("foreign", "anything"),
    ]
    monkeypatch.setattr(
        Client, "there", [(key, {"capacity.export": tag}) for key, tag in there] + [("bare", {})]
    )
    capacity.export(path, to="mlflow", out=tmp_path / "ml")
    assert Client.latest.deleted == ["left"]


@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_a_run_in_its_own_store(path, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    where = capacity.export(path, to="mlflow", out=tmp_path)
    uri, _, key = where.partition(", run ")
    client = mlflow.MlflowClient(tracking_uri=uri)
    run = client.get_run(key)
    assert run.info.status == "FINISHED"
    assert run.data.params["training.lr"] == "0.1"
    history = client.get_metric_history(key, "task/inefficiency_path")
    found = {m.step: m.value for m in history}
    assert found == pytest.approx({1: 1.9, 2: 2.9, 3: 3.9})
    figures = {artifact.path for artifact in client.list_artifacts(key, "figures")}
    assert figures == {f"figures/{name}.png" for name in content(path).figures}
    assert capacity.export(path, to="mlflow", out=tmp_path) != where, "a second run beside it"


def test_a_missing_package_names_its_extra(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ValueError, match=r"pip install 'continual-capacity\[mlflow\]'"):
        capacity.export(path, to="mlflow")


def test_bad_input_is_a_value_error(path, tmp_path):
    with pytest.raises(ValueError, match="did you mean 'tensorboard'"):
        capacity.export(path, to="tensorbord")
    with pytest.raises(ValueError, match="not a run directory"):
        capacity.export(tmp_path, to="tensorboard")
    with pytest.raises(ValueError, match="is a file"):
        capacity.export(path, to="tensorboard", out=__file__)
    broken = write(tmp_path / "broken") / "result.json"
    broken.write_text(json.dumps({"schema": "other"}))
    with pytest.raises(ValueError, match="not of this program"):
        capacity.export(broken.parent, to="tensorboard")
