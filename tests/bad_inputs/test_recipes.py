"""Recipes that cannot run: refused in one line before anything is written."""

from __future__ import annotations

import re

import pytest

import capacity
from bad_inputs.checkers import TINY, check_refused, copy_of
from capacity.cli import main

pytestmark = pytest.mark.slow

FIELDS = {
    # what is wrong: (overrides of a recipe that works, words of the error)
    "unknown section": (["trainig.lr=1"], "trainig", "did you mean 'training'"),
    "unknown field": (["training.epocs=3"], "training.epocs", "did you mean 'epochs'"),
    "text for a number": (["training.lr=fast"], "training.lr = 'fast'", "number"),
    "a number that YAML takes as text": (["training.lr=1e-3"], "'1e-3'", "write 0.001"),
    "a small number that YAML takes as text": (["training.lr=1e-5"], "'1e-5'", "write 1.0e-05"),
    "list for a number": (["replicas=[1, 2]"], "replicas = [1, 2]", "integer"),
    "fraction for a count": (["training.epochs=2.5"], "training.epochs = 2.5", "integer"),
    "truth for a count": (["replicas=true"], "replicas = True", "integer"),
    "number for a text": (["name=7"], "name = 7", "string"),
    "no name": (["name=''"], "name = ''", "at least 1 character"),
    "number for a section": (["training=3"], "training = 3 is no section", "optimizer"),
    "text for a list": (["model.hidden=wide"], "model.hidden = 'wide'", "tuple"),
    "unknown data set": (["tasks.dataset=mnits"], "'mnits'", "did you mean 'mnist'"),
    "unknown network": (["model.kind=mpl"], "'mpl'", "did you mean 'mlp'"),
    "unknown optimiser": (["training.optimizer=sdg"], "'sdg'", "did you mean 'sgd'"),
    "unknown strategy": (["training.strategy={name: ewcc}"], "'ewcc'", "did you mean 'ewc'"),
    "unknown strategy to compare": (
        ["measure.strategies=[replai]"], "measure.strategies.0", "did you mean 'replay'"
    ),
    "another strategy's option": (
        ["training.strategy={name: ewc, memory: 9}"], "memory = 9 is no option", "'ewc'", "fisher"
    ),
    "negative rate": (["training.lr=-1"], "training.lr = -1", "greater than 0"),
    "rate that is no number": (["training.lr=.nan"], "training.lr = nan", "finite"),
    "infinite rate": (["training.lr=.inf"], "training.lr = inf", "finite"),
    "unknown schedule": (["training.schedule=cosin"], "'cosin'", "did you mean 'cosine'"),
    "a schedule without its factor": (
        ["training.schedule=exponential"], "training: schedule = 'exponential' needs gamma"
    ),
    "a factor without its schedule": (
        ["training.gamma=0.5"], "gamma goes with schedule = 'step' and 'exponential' only"
    ),
    "no share of warmup": (["training.warmup=1.5"], "1.5 is no warmup", "as 0.06"),
    "no step": (["training.max_steps=0"], "training.max_steps = 0"),
    "no batch per step": (["training.accumulate=0"], "training.accumulate = 0"),
    "a group of no parameter": (
        ["training.groups=[{parameters: ['conv*'], weight_decay: 0.0}]"], "'conv*'", "1.weight"
    ),
    "a group with a rate that is none": (
        ["training.groups=[{parameters: ['*.bias'], lr_factor: 0}]"],
        "training.groups.0.lr_factor = 0", "greater than 0",
    ),
    "an unknown option of a group": (
        ["training.groups=[{parameters: ['*.bias'], lr: 0.1}]"], "groups.0.lr", "lr_factor"
    ),
    "rates of no schedule": (["training.rates=[1.0]"], "schedule = 'custom' only"),
    "no epoch": (["training.epochs=0"], "training.epochs = 0", "greater than or equal to 1"),
    "epochs without end": (
        ["training.epochs=1000000000000"], "training.epochs", "less than or equal to 1000000"
    ),
    "layer of no width": (["model.hidden=[8, 0]"], "model.hidden.1 = 0", "equal to 1"),
    "layer beyond all memory": (
        ["model.hidden=[2000000000]"], "model.hidden = [2000000000]", "GiB", "smaller"
    ),
    "layer beyond whole numbers": (
        ["model.hidden=[10000000000]"], "model.hidden.0", "less than or equal"
    ),
    "replicas beyond all memory": (["replicas=2000000000"], "replicas = 2000000000", "GiB"),
    "negative seed": (["seed=-1"], "seed = -1", "greater than or equal to 0"),
    "nothing held out": (["tasks.test_fraction=0.0"], "tasks.test_fraction = 0.0", "greater"),
    "nothing to learn from": (["tasks.test_fraction=1.0"], "tasks.test_fraction = 1.0", "less"),
    "no sample": (["tasks.samples=0"], "tasks.samples = 0", "greater than or equal to 1"),
    "no task": (["tasks.experiences=0"], "tasks.experiences = 0", "equal to 1"),
    "empty tasks": (["tasks=[]"], "tasks = [] is no section", "dataset"),
    "no tasks": (["tasks=null"], "tasks = None is no section", "dataset"),
    "classes that do not divide": (
        ["tasks.experiences=7"], "tasks.experiences = 7", "accepted: 1, 2, 5, 10"
    ),
    "images for a network of vectors": (
        ["model.kind=cnn"], "model.kind = 'cnn'", "model.kind=mlp"
    ),
    "no scale": (["measure.eps=[]"], "measure.eps = []", "at least 1 item"),
    "scale of nothing": (["measure.eps=[0]"], "measure.eps.0 = 0", "greater than 0"),
    "parameters to freeze that are not there": (
        ["training.strategy={name: freeze, parameters: ['conv*']}"], "'conv*'", "1.weight"
    ),
    "tasks that only Python has": (["tasks.dataset=custom"], "'custom'", "capacity.run"),
    "override without a value": (["training.lr"], "'training.lr'", "FIELD=VALUE"),
    "override below a value": (["training.lr.start=1"], "'lr' is a value, not a section"),
}  # fmt: skip


@pytest.mark.parametrize("case", FIELDS)
def test_a_wrong_field_is_refused_by_its_name(case, kept, tmp_path, capsys):
    overrides, *said = FIELDS[case]
    for out in (tmp_path / "new", kept):
        check_refused(capsys, ["run", *TINY, *overrides, "--quiet", "--out", str(out)], *said)
    assert list(tmp_path.iterdir()) == []


FILES = {
    # what is wrong: (content of recipe.yaml, words of the error)
    "invalid YAML": (b"name: [", "not readable as YAML", "line 1"),
    "tab": (b"training:\n\tlr: 1\n", "not readable as YAML", "line 2"),
    "not UTF-8": ("name: Grün\n".encode("latin-1"), "not readable as YAML", "utf-8"),
    "zeros": (b"\0" * 64, "not readable as YAML"),
    "empty": (b"", "a recipe is a mapping of fields", "empty"),
    "only a comment": (b"# to do\n", "a recipe is a mapping of fields", "empty"),
    "a list": (b"- name: a\n", "a recipe is a mapping of fields", "not list"),
    "a sentence": (b"learn the digits\n", "a recipe is a mapping of fields", "not str"),
    "two documents": (b"name: a\n---\nname: b\n", "not readable as YAML", "single document"),
    "code": (b"name: !!python/object/apply:os.getcwd []\n", "not readable as YAML", "python"),
    "no name": (b"replicas: 2\n", "name is missing"),
    "keys that are numbers": (b"name: a\n7: b\n", "7 is not a field"),
    "a key that is a list": (b"name: a\n? [a]\n: b\n", "not readable as YAML", "key"),
    "itself inside": (b"&a\nname: x\ntasks: *a\n", "line 3", "inside of itself"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_recipe_is_refused(case, kept, tmp_path, capsys):
    content, *said = FILES[case]
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    for out in (tmp_path / "new", kept):
        check_refused(capsys, ["run", str(path), "--quiet", "--out", str(out)], "mine.yaml", *said)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


PLACES = {
    # what is wrong: (how the recipe is named, words of the error)
    "missing file": ("nowhere.yaml", "'nowhere.yaml'", "no such file"),
    "directory": ("folder.yaml", "'folder.yaml'", "is a directory", "name a file"),
    "unknown name": ("tiny-digit", "'tiny-digit'", "did you mean 'tiny-digits'"),
    "another kind of file": ("recipe.json", "'recipe.json'", "path of a .yaml file"),
    "impossible name": ("a" * 300 + ".yaml", "aaa", "no such file"),
}


@pytest.mark.parametrize("case", PLACES)
@pytest.mark.parametrize("command", ["run", "validate"])
def test_a_recipe_that_is_not_there_is_refused(case, command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "recipe.json").write_text("{}")
    name, *said = PLACES[case]
    check_refused(capsys, [command, name], "recipe = ", *said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.yaml", "recipe.json"]


OPTIONS = {
    # what is wrong: (words behind the recipe, words of the error)
    "unknown device": (["--device", "tpu"], "device = 'tpu'", "accepted: auto, cpu, cuda"),
    "absent device": (["--device", "cuda:99"], "device = 'cuda:99'", "not on this machine"),
    "minutes that are no number": (["--checkpoint-minutes", "nan"], "minutes = nan", "finite"),
    "negative minutes": (["--checkpoint-minutes", "-1"], "minutes = -1.0", "at least 0"),
    "text for minutes": (["--checkpoint-minutes", "soon"], "'soon'"),
    "jobs without seeds": (["--jobs", "2"], "--jobs", "--seeds"),
    "no job": (["--seeds", "0-1", "--jobs", "0"], "jobs = 0", "at least 1"),
    "seeds that are none": (["--seeds", "many"], "'many'", "0-9"),
    "seeds backwards": (["--seeds", "9-0"], "9-0"),
    "seed twice": (["--seeds", "0-1", "seed=3"], "twice"),
    "resume and out": (["--resume", "there"], "--resume and --out"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_a_wrong_option_is_refused_by_its_name(case, tmp_path, capsys):
    words, *said = OPTIONS[case]
    out = tmp_path / "new"
    check_refused(capsys, ["run", *TINY, "--quiet", "--out", str(out), *words], *said)
    assert list(tmp_path.iterdir()) == []


def test_markup_in_a_recipe_is_text_in_the_report(kept, tmp_path):
    bad = "<script>alert(1)</script>"
    copy = copy_of(kept, tmp_path / "copy")
    (copy / "manifest.json").unlink()  # as an earlier version wrote it: edited files are refused
    plain = (copy / "report.html").read_text()
    for name in ("recipe.yaml", "result.json"):
        text = (copy / name).read_text()
        assert "tiny-digits" in text
        (copy / name).write_text(text.replace("tiny-digits", bad))
    assert main(["report", str(copy)]) == 0
    page = (copy / "report.html").read_text()
    assert bad not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert len(re.findall("<script", page)) == len(re.findall("<script", plain))


SECTIONS = {
    # what is wrong: (a call, what came and where, what is accepted, what to do)
    "a number as text": (lambda: capacity.Training(lr="0.1"), "lr = '0.1'", "number", "write 0.1"),
    "a count as text": (
        lambda: capacity.Training(epochs="3"), "Training: epochs = '3'", "integer", "write 3"
    ),
    "a switch as text": (
        lambda: capacity.Measure(forecast="no"), "forecast = 'no'", "boolean", "write true or false"
    ),
    "a name as a number": (
        lambda: capacity.Recipe(name=3), "Recipe: name = 3", "string", "put it in quotes"
    ),
    "no list": (lambda: capacity.Model(hidden=64), "hidden = 64", "tuple", "give a list"),
    "nothing": (lambda: capacity.Recipe(), "name is missing", "give it"),
    "inside of a section": (
        lambda: capacity.Recipe(name="a", training={"lr": "x"}), "Recipe: training.lr = 'x'"
    ),
    "a path with NUL": (
        lambda: capacity.TaskStream(root="a\0b"), "root", "NUL character"
    ),
    "a giant": (lambda: capacity.Training(epochs=10**9000), "epochs = a number of", "less than"),
    "a long text": (lambda: capacity.Training(schedule="x" * 10**6), "schedule", "'constant'"),
}  # fmt: skip


@pytest.mark.parametrize("case", SECTIONS)
def test_a_section_built_in_python_is_refused_in_one_line(case):
    call, *said = SECTIONS[case]
    with pytest.raises(ValueError, match=r".") as caught:
        call()
    message = str(caught.value)
    assert not [part for part in said if part not in message], message
    assert "\n" not in message
    assert len(message) < 400
