"""A run that is killed, at any stage, ends with the result of one that is not."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
from pathlib import Path

import duckdb
import pytest
import torch
from reliability.victims import recipe_of, server, start

import capacity
from capacity.base.files import seal, to_json, unseal
from capacity.cli import main
from capacity.networks.flat_model import FlatModel
from capacity.networks.models import build_model
from capacity.optimizers.from_recipe import from_training
from capacity.recipe import config
from capacity.recipe.config import Measure, Recipe, Training
from capacity.report import render
from capacity.runs.directory import RunDirectory
from capacity.runs.journal import _VERSION
from capacity.runs.lock import DirectoryLock
from capacity.runs.observe import PhaseTransport
from capacity.runs.run import RunFailedError
from capacity.strategies.regularisers import PathIntegral
from capacity.tasks.build import build_tasks
from capacity.thermo.path import PathObserver
from capacity.training.data_order import DataOrder
from capacity.training.train import Midway, train

EVERY_STEP = 0.0
KILLS = {
    "strategy": [
        ("task0.learned.json", 1),
        ("task1.forecast", 1),
        ("task1.inside.json", 9),
        ("task1.scores", 1),
        ("metrics.parquet", 1),
        ("status.json", 2),
    ],
    "momentum": [("task1.inside.json", 10), ("composed", 1)],
    "si": [("task0.inside.json", 9), ("task1.inside.json", 5), ("task1.learned.json", 1)],
    "verdicts": [("task1.capacity", 1)],
}
"""Which write, counted from where the run goes on, is the last of a process."""
TRACED = {"momentum", "verdicts"}
"""Runs that trace anew in every process; the others are killed more often."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def recipe_named(name: str) -> Recipe:
    fields = recipe_of("strategy" if name == "si" else name).model_dump(mode="json")
    fields["training"]["epochs"] = 2
    fields["measure"]["log_volume_probes"] = 2
    if name == "momentum":
        bare = {"parameters": ["*.bias"], "lr_factor": 0.5, "weight_decay": 0.0}
        fields["training"] |= {"schedule": "linear", "warmup": 3, "weight_decay": 0.01}
        fields["training"]["groups"] = [bare]
        fields["measure"]["strategies"] = []  # those of "strategy" are killed while forecast
    if name == "si":
        fields["training"]["strategy"] = {"name": "si", "strength": 0.01}
        fields["training"]["curriculum"] = {"first": "easy", "stages": 2}
        fields["measure"]["transport"] = False
    return config.build(fields)


def contents(path):
    rows = duckdb.read_parquet(str(path / "metrics.parquet")).fetchall()
    names = ["result.json", "checkpoints/task0.safetensors", "checkpoints/task1.safetensors"]
    return {"metrics": rows, **{name: (path / name).read_bytes() for name in names}}


@pytest.fixture(scope="module")
def context():
    return server()


@pytest.fixture(scope="module")
def begun(context, tmp_path_factory):
    """A run that was killed while it forecast the second task."""
    path = tmp_path_factory.mktemp("begun") / "run"
    process = start(
        context, recipe_of("strategy"), path, minutes=5.0, writes=1, name="task1.forecast"
    )
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return path


@pytest.mark.parametrize("name", KILLS)
def test_killed_at_every_stage(name, context, tmp_path):
    recipe, how = recipe_named(name), {"traced": name in TRACED}
    whole = start(context, recipe, tmp_path / "whole", minutes=5.0, **how)
    killed = tmp_path / "killed"
    for where, writes in KILLS[name]:
        process = start(
            context, recipe, killed, minutes=EVERY_STEP, writes=writes, name=where, **how
        )
        process.join()
        assert process.exitcode == -signal.SIGKILL, f"no write {writes} of {where}"
        assert capacity.open_run(killed).status in {"running", "finished"}
    last = start(context, recipe, killed, minutes=EVERY_STEP, **how)
    last.join()
    whole.join()
    assert (last.exitcode, whole.exitcode) == (0, 0)
    assert contents(killed) == contents(tmp_path / "whole")
    assert not (killed / "journal").exists()
    assert not [p for p in killed.rglob("*") if p.name.startswith(".")]


def watched(recipe: Recipe, update):
    tasks = build_tasks(recipe.tasks)
    model = FlatModel(build_model(recipe.model, tasks.input_shape, tasks.n_outputs, 0))
    theta = torch.stack([model.initial()] * 2)
    source = torch.Generator().manual_seed(3)
    transport = PhaseTransport(model, tasks[0], update, recipe.measure, source)
    return model, theta, tasks[0], [PathObserver(), PathIntegral(None), transport]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_watchers_go_on_where_they_were_put_away(optimizer):
    recipe = config.load("tiny-digits", ["tasks.samples=64", "measure.log_volume_columns=0"])
    training = Training(optimizer=optimizer, lr=0.01, epochs=2, batch_size=16)
    update = from_training(training)
    half, kept = 5, []

    class PutAway:
        def __init__(self, watchers):
            self.watchers = watchers

        def observe(self, step):
            if step.count == half:
                states = [
                    {k: v.clone() for k, v in watcher.state().items()} for watcher in self.watchers
                ]
                kept.append((Midway(state=step.after, steps=half, learning_time=0.05), states))

    model, theta, task, watchers = watched(recipe, update)
    order = DataOrder(samples=len(task.train), batch_size=16, epochs=2, replicas=2, seed=0)
    whole = train(
        model, theta, task, training, order, observers=[*watchers, PutAway(watchers)], update=update
    )
    midway, states = kept[0]
    _, _, _, again = watched(recipe, update)
    for watcher, state in zip(again, states, strict=True):
        watcher.restore(state)
    *rest, transport = again
    jumped = train(model, theta, task, training, order, observers=rest, update=update, begin=midway)
    train(model, theta, task, training, order, observers=[transport], update=update)
    assert torch.equal(jumped.theta, whole.theta)
    for one, other in zip(watchers, again, strict=True):
        first, second = one.state(), other.state()
        assert first.keys() == second.keys()
        if one is watchers[-1]:
            kinds = {"tangents", "chunk", "generator", "steps", "log_volume", "slow"}
            assert {name.split(".")[0] for name in first} == kinds
            sums = {name for name in first if name.startswith("log_volume.")}
            always = {"log_volume.folds", "log_volume.cost", "log_volume.bias"}
            assert sums - {"log_volume.values", "log_volume.variances"} == always
            assert _VERSION == 3, "other names are another version of the journal"
        assert [k for k in first if not torch.equal(first[k], second[k])] == []
    done, redone = (w[-1].finish(torch.Generator().manual_seed(1)) for w in (watchers, again))
    assert done[0] == redone[0]
    assert len(transport.trajectory) == whole.steps


def damage(name, change):
    def spoil(path):
        (file,) = (path / "journal").glob(name)
        change(file)

    return spoil


def cut(file):
    file.write_bytes(file.read_bytes()[:-20])


def swap(old, new):
    return lambda file: file.write_bytes(file.read_bytes().replace(old, new, 1))


def elsewhere(file):
    """Have the run begun with another torch."""
    content = unseal(file.read_bytes())
    content["record"]["torch"] = "0.1"
    file.write_bytes(seal(content))


def of_an_earlier_version(path):
    (path / "manifest.json").unlink()
    for file in (path / "journal").glob("*.json"):
        content = unseal(file.read_bytes()) | {"schema_version": 1}
        file.write_bytes(to_json(content))


def of_version_2(path):
    """A log-volume had no error of its quadrature then."""
    for file in (path / "journal").glob("*.json"):
        file.write_bytes(seal(unseal(file.read_bytes()) | {"schema_version": 2}))


def without_digests(change):
    def spoil(path):
        (path / "manifest.json").unlink()
        change(path)

    return spoil


DAMAGED = {
    "record cut short": (damage("task0.learned.json", cut), "task0.learned.json: not readable"),
    "record emptied": (
        damage("task0.scores.json", lambda f: f.write_bytes(b"{}")),
        "no record of a stage",
    ),
    "record is a list": (
        damage("task0.scores.json", lambda f: f.write_bytes(b"[]")),
        "not a JSON object",
    ),
    "record of another run": (
        damage("task0.scores.json", swap(b'"recipe": "', b'"recipe": "f')),
        "run of another recipe",
    ),
    "record of another version": (
        damage("task0.scores.json", swap(b'"schema_version": 3', b'"schema_version": 9')),
        "another version of capacity",
    ),
    "tensors cut short": (damage("task0.learned.*.safetensors", cut), "digest"),
    "tensors changed": (
        damage("task0.learned.*.safetensors", lambda f: f.write_bytes(bytes(f.stat().st_size))),
        "digest",
    ),
    "tensors gone": (damage("task0.learned.*.safetensors", lambda f: f.unlink()), "damaged"),
    "record of which a bit is other": (
        damage("task0.scores.json", swap(b'"stage"', b'"stagd"')),
        "run of another recipe",
    ),
    "record of which a number is other": (
        damage("task0.learned.json", swap(b'"steps": ', b'"steps": 1')),
        "task0.learned.json: damaged (it is not as it was written",
    ),
    "records of an earlier version": (of_an_earlier_version, "schema_version = 1, here 3"),
    "records of version 2": (of_version_2, "schema_version = 2, here 3"),
    "another torch": (damage("begin.json", elsewhere), "torch = '0.1'"),
    "recipe cut short": (lambda p: (p / "recipe.yaml").write_text("name: ["), "recipe.yaml"),
    "recipe is no recipe": (
        without_digests(lambda p: (p / "recipe.yaml").write_text("nome: x")),
        "name is missing",
    ),
    "status cut short": (
        without_digests(lambda p: cut(p / "status.json")),
        "status.json: not readable",
    ),
    "status changed": (
        lambda p: swap(b"running", b"runnins")(p / "status.json"),
        "status.json: damaged (it is not as it was written",
    ),
    "another seed": (
        without_digests(lambda p: swap(b"seed: 0", b"seed: 7")(p / "recipe.yaml")),
        "tasks.seed was 7, is 0",
    ),
    "another seed, of a run with digests": (
        lambda p: swap(b"seed: 0", b"seed: 7")(p / "recipe.yaml"),
        "recipe.yaml: damaged (it is not as it was written",
    ),
    "checkpoint changed": (
        lambda p: swap(b"theta", b"thetb")(p / "checkpoints" / "task0.safetensors"),
        "task0.safetensors: damaged (it is not as it was written",
    ),
    "manifest changed": (
        lambda p: swap(b"recipe", b"recipf")(p / "manifest.json"),
        "manifest.json: damaged (it is not as it was written",
    ),
}


def files(path):
    # Without what a killed process left half-written, which goes before anything is looked at.
    kept = (p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {p.relative_to(path): p.read_bytes() for p in kept}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_runs_are_refused_and_left_alone(case, begun, tmp_path):
    spoil, said = DAMAGED[case]
    path = shutil.copytree(begun, tmp_path / "run")
    spoil(path)
    before = files(path)
    with pytest.raises(ValueError, match=r".") as caught:
        capacity.run(recipe_of("strategy"), out=path, quiet=True)
    assert said in str(caught.value)
    assert files(path) == before


def test_two_processes_on_one_directory(begun, tmp_path):
    path = shutil.copytree(begun, tmp_path / "run")
    other = DirectoryLock(path)
    other.acquire()
    before = files(path)
    with pytest.raises(ValueError, match="is in use by process"):
        capacity.resume(path, quiet=True)
    assert files(path) == before
    other.release()
    DirectoryLock(path).acquire()


def test_resume_needs_a_run(tmp_path):
    with pytest.raises(ValueError, match="is not a run directory"):
        capacity.resume(tmp_path)
    own = Recipe(name="x", tasks=config.TaskStream(dataset="custom"))
    RunDirectory(tmp_path / "own").claim(own)
    with pytest.raises(ValueError, match=r"call capacity\.run as before"):
        capacity.resume(tmp_path / "own")


def test_a_live_process_is_left_alone_and_a_dead_one_binds_nobody(begun, tmp_path, capsys):
    path = shutil.copytree(begun, tmp_path / "run")
    assert (path / ".lock").is_file(), "the killed process left it"
    assert not RunDirectory(path).busy
    other = DirectoryLock(path)
    other.acquire()
    assert RunDirectory(path).busy
    capsys.readouterr()
    assert main(["run", "--resume", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "is in use by process" in said
    other.release()


def light(**changes) -> Recipe:
    return config.build({
        **recipe_of("strategy").model_dump(mode="json"),
        "tasks": {"experiences": 1, "samples": 32},
        "training": {"epochs": 1},
        "measure": {"transport": False},
        **changes,
    })


def test_the_next_start_says_how_to_go_on(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    for stamp, seed in (("20260101-000000", 0), ("20260102-000000", 0), ("20260103-000000", 1)):
        cut_off = RunDirectory(Path("runs") / f"strategy-{stamp}")
        cut_off.claim(light(seed=seed))
        cut_off.set_status("running")
        cut_off.release()
    capacity.run(light())
    said = capsys.readouterr().err
    assert "`capacity run --resume runs/strategy-20260102-000000` goes on with it" in said
    capacity.run(light(replicas=1))
    assert "cut off" not in capsys.readouterr().err, "that is another recipe"


def test_a_run_without_its_report_gets_it(tmp_path):
    made = capacity.run(light(), out=tmp_path / "run", quiet=True)
    before = (made.path / "result.json").read_bytes()
    env = (made.path / "env.json").read_bytes()
    made.report().unlink()
    (made.path / "journal").mkdir()  # as after a kill between the last number and the report
    capacity.resume(made.path, quiet=True)
    assert (made.path / "report.html").is_file()
    assert not (made.path / "journal").exists()
    assert (made.path / "result.json").read_bytes() == before
    assert (made.path / "env.json").read_bytes() == env


def test_the_command_is_the_one_that_began_the_run(monkeypatch, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    words = ["tiny", "training.strategy={name: ewc}", "it's"]
    monkeypatch.setattr("sys.argv", ["/usr/lib/capacity/cli.py", "run", *words])
    with monkeypatch.context() as patched:
        patched.setattr("capacity.runs.execute.Execution._learn", stop)
        with pytest.raises(KeyboardInterrupt):
            capacity.run(light(), out=tmp_path / "run", quiet=True)
    monkeypatch.setattr("sys.argv", ["/usr/bin/capacity", "run", "--resume", "run"])
    capacity.resume(tmp_path / "run", quiet=True)
    command = json.loads((tmp_path / "run" / "env.json").read_text())["command"]
    assert shlex.split(command) == ["capacity", "run", *words]


def test_a_full_disk_is_one_line(monkeypatch, tmp_path, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("capacity.runs.execute.Execution._learn", full)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(light().to_yaml())
    assert main(["run", str(recipe), "--quiet", "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "No space left on device" in said
    assert "capacity run --resume" in said


CALLS = {
    "another field": (["--resume", "RUN", "training.lr=0.25"], "training.lr was 0.5, is 0.25"),
    "another recipe": (["split-digits", "--resume", "RUN"], "was"),
    "two directories": (["--resume", "RUN", "--out", "elsewhere"], "leave --out out"),
    "nothing there": (["--resume", "elsewhere"], "is no run directory"),
    "minutes": (["--resume", "RUN", "--checkpoint-minutes", "-1"], "checkpoint_minutes = -1.0"),
}


@pytest.mark.parametrize("case", CALLS)
def test_wrong_calls(case, begun, capsys):
    words, said = CALLS[case]
    before = files(begun)
    assert main(["run", *(str(begun) if word == "RUN" else word for word in words)]) == 2
    assert said in capsys.readouterr().err
    assert files(begun) == before


def test_a_directory_that_cannot_be_written(monkeypatch, begun, tmp_path):
    path = shutil.copytree(begun, tmp_path / "run")
    before = files(path)

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("capacity.runs.lock.os.open", refuse)
    with pytest.raises(ValueError, match="Read-only file system"):
        capacity.resume(path, quiet=True)
    assert files(path) == before


@pytest.mark.parametrize(
    ("writes", "kind", "said"),
    [
        (12, RunFailedError, "No space left on device"),
        (1, ValueError, "cannot be written .No space"),
    ],
)
def test_a_full_disk_fails_and_leaves_what_was_measured(
    writes, kind, said, monkeypatch, begun, tmp_path
):
    path = shutil.copytree(begun, tmp_path / "run")
    measured = (path / "journal" / "task0.learned.json").read_bytes()
    left = [writes]

    def full(_):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("capacity.base.files.os.fsync", full)
    with pytest.raises(kind, match=said) as caught:
        capacity.resume(path, quiet=True)
    assert type(caught.value) is kind
    assert "fail again" not in str(caught.value)
    monkeypatch.undo()
    assert (path / "journal" / "task0.learned.json").read_bytes() == measured
    assert capacity.open_run(path).result["tasks"][0]["status"] == "learned"
    assert not list(path.rglob("*.tmp"))


def test_a_failure_is_in_the_result_and_the_run_goes_on(monkeypatch, tmp_path):
    measure = Measure(level="capacity", verdicts=False, forecast=False, sensitivity_eps=())
    recipe = recipe_of("strategy").model_copy(update={"measure": measure})
    whole = capacity.run(recipe, out=tmp_path / "whole", quiet=True)

    def fail(*_, **__):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("capacity.runs.before_task.capacity_of_transition", fail)
    with pytest.raises(RunFailedError, match=r"out of luck.*would fail again; once the cause is"):
        capacity.run(recipe, out=tmp_path / "run", quiet=True)
    monkeypatch.undo()
    made = capacity.open_run(tmp_path / "run")
    assert made.status == "failed"
    assert [task["status"] for task in made.result["tasks"]] == ["learned", "not_started"]
    assert capacity.resume(made.path, quiet=True).result == whole.result


def test_script_in_a_recipe_is_text(tmp_path):
    recipe = Recipe(name="<script>alert(1)</script>", description="<script>alert(2)</script>")
    RunDirectory(tmp_path / "run").claim(recipe)
    page = render(tmp_path / "run").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
