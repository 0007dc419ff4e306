"""Recipes: strict, checked when built, with errors that a newcomer can act on."""

from __future__ import annotations

import pytest

from capacity.optimizers.from_recipe import from_training
from capacity.recipe import config
from capacity.recipe.config import Recipe, Training
from capacity.recipe.training import TAKEN_BY

BAD = {
    "unknown recipe": ("split-digit", [], "split-digits"),
    "missing file": ("nowhere.yaml", [], "no such file"),
    "unknown section": ("split-digits", ["trainings.lr=1"], "did you mean 'training'"),
    "unknown key": ("split-digits", ["training.epocs=3"], "did you mean 'epochs'"),
    "wrong type": ("split-digits", ["training.epochs=many"], "training.epochs = 'many'"),
    "float for a count": ("split-digits", ["replicas=2.5"], "replicas = 2.5"),
    "bool for a count": ("split-digits", ["replicas=true"], "replicas = True"),
    "text for a number": ("split-digits", ["training.lr='0.1'"], "training.lr = '0.1'"),
    "negative rate": ("split-digits", ["training.lr=-1"], "greater than 0"),
    "infinite rate": ("split-digits", ["training.lr=.inf"], "finite"),
    "nan rate": ("split-digits", ["training.lr=.nan"], "training.lr = nan"),
    "zero epochs": ("split-digits", ["training.epochs=0"], "training.epochs = 0"),
    "zero batch": ("split-digits", ["training.batch_size=0"], "greater than or equal to 1"),
    "zero width": ("split-digits", ["model.hidden=[64, 0]"], "model.hidden.1 = 0"),
    "negative seed": ("split-digits", ["seed=-1"], "seed = -1"),
    "unknown optimiser": (
        "split-digits",
        ["training.optimizer=sdg"],
        "'sgd', 'momentum', 'adam'",
    ),
    "unknown data set": ("split-digits", ["tasks.dataset=mnits"], "'mnist'"),
    "sgld without temperature": (
        "split-digits",
        ["training.optimizer=sgld"],
        "training: optimizer = 'sgld' needs a temperature",
    ),
    "temperature without noise": (
        "split-digits",
        ["training.temperature=0.1"],
        "goes with optimizer = 'sgld' or 'underdamped' or a belief only, not 'sgd'",
    ),
    "momentum without the optimiser that takes it": (
        "split-digits",
        ["training.momentum=0.9"],
        "momentum = 0.9 goes with optimizer = 'momentum' only, and 'sgd' would train without it",
    ),
    "betas of another optimiser": (
        "split-digits",
        ["training.optimizer=rmsprop", "training.betas=[0.9, 0.99]"],
        "betas = (0.9, 0.99) goes with optimizer = 'adam' or 'adamw' only, and 'rmsprop'",
    ),
    "no temperature": (
        "split-digits",
        ["training.optimizer=sgld", "training.temperature=0"],
        "training.temperature = 0",
    ),
    "heads without split": ("rotated-digits", ["tasks.heads=true"], "scenario = 'split'"),
    "no equals sign": ("split-digits", ["training.lr"], "FIELD=VALUE"),
    "value as section": ("split-digits", ["name.first=x"], "'name' is a value"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_recipes_die_in_one_line(case):
    name, overrides, said = BAD[case]
    with pytest.raises(ValueError, match=r".") as caught:
        config.load(name, overrides)
    message = str(caught.value)
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1\n- 2\n", "not list"),
        ("a: [", "not readable as YAML"),
        ("replicas: 3\n", "name is missing"),
    ],
)
def test_bad_files(tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        config.load(path)


def test_yaml_round_trip(tmp_path):
    changes = ["training.optimizer=adam", "training.betas=[0.8, 0.99]", "measure.eps=[0.1, 1.0]"]
    recipe = config.load("split-digits", changes)
    path = tmp_path / "again.yaml"
    path.write_text(recipe.to_yaml())
    assert config.load(path) == recipe
    assert recipe.training.betas == (0.8, 0.99)


def test_overrides_leave_the_rest():
    plain, changed = config.load("split-digits"), config.load("split-digits", ["training.lr=0.05"])
    assert changed.training.lr == 0.05
    assert changed.model_copy(update={"training": plain.training}) == plain


def test_records_are_frozen_and_checked_in_python_too():
    with pytest.raises(ValueError, match="lr"):
        Training(lr=-0.1)
    with pytest.raises(ValueError, match="frozen"):
        Recipe(name="a").seed = 3


def test_learning_rates():
    assert Training(lr=0.5, epochs=2, batch_size=3).learning_rates(7) == [0.5] * 6
    cosine = Training(lr=1.0, epochs=2, batch_size=1, schedule="cosine").learning_rates(2)
    assert cosine == pytest.approx([1.0, 0.5 + 2**-0.5 / 2, 0.5, 0.5 - 2**-0.5 / 2])
    assert min(cosine) > 0, "a step of rate 0 would have no finite action"


def test_options_that_would_do_nothing_are_refused_and_written_out_recipes_read():
    with pytest.raises(ValueError, match=r"nesterov = True goes with optimizer = 'momentum' only"):
        Training(nesterov=True)
    with pytest.raises(ValueError, match=r"eps = 1e-06 goes with .*'rmsprop' only, and 'momentum'"):
        Training(optimizer="momentum", eps=1e-6)
    for optimizer in ("sgd", "momentum", "adam", "adamw", "rmsprop"):
        plan = Training(optimizer=optimizer)
        assert Training(**plan.model_dump()) == plan
    with pytest.raises(ValueError, match=r"momentum = 0\.5 goes with"):
        Training(**Training().model_dump() | {"momentum": 0.5})


def test_an_option_is_named_for_the_optimisers_that_read_it():
    other = {"momentum": 0.5, "nesterov": True, "betas": (0.5, 0.5), "alpha": 0.5, "eps": 0.5}
    assert other.keys() == TAKEN_BY.keys()
    for optimizer in ("sgd", "momentum", "adam", "adamw", "rmsprop"):
        plain = from_training(Training(optimizer=optimizer))
        for name, value in other.items():
            plan = Training(optimizer=optimizer).model_copy(update={name: value})
            assert (from_training(plan) != plain) == (optimizer in TAKEN_BY[name])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.adapter=lora"], "adapter = 'lora' does nothing with kind = 'mlp'"),
        (["model.pretrained=other"], "pretrained = 'other' does nothing with kind = 'mlp'"),
        (
            ["model.kind=pretrained", "model.rank=4", "model.hidden=[64]"],
            "rank = 4 does nothing with adapter = 'none'",
        ),
        (["model.kind=pretrained"], r"hidden = \(16,\) does nothing with kind = 'pretrained'"),
    ],
)
def test_an_option_of_another_kind_of_model_is_refused(words, said):
    with pytest.raises(ValueError, match=said):
        config.load("tiny-digits", words)


def test_a_network_does_not_read_another_ones_tokens():
    with pytest.raises(ValueError, match=r"set tasks\.tokenizer=some/other"):
        config.load("text-topics", ["model.pretrained=some/other"])
    words = ["model.pretrained=some/other", "tasks.tokenizer=some/other"]
    assert config.load("text-topics", words).tasks.tokenizer == "some/other"
