"""`measure.level`: what is measured where no single switch says so."""

from __future__ import annotations

import pytest
import torch

import capacity
from capacity.recipe import config
from capacity.recipe.config import LEVELS, Measure
from capacity.report.sections.reproduce import python_call

SWITCHES = tuple(LEVELS["full"])


def switches(measure):
    return tuple(getattr(measure, name) for name in SWITCHES)


def test_a_level_is_the_default_of_the_switches():
    assert SWITCHES == ("transport", "capacity", "verdicts", "closure_points")
    assert switches(Measure()) == (False, False, False, 0)
    assert switches(Measure(level="capacity")) == (False, True, True, 0)
    assert switches(Measure(level="full")) == (True, True, True, 4)
    assert switches(Measure(level="full", transport=False)) == (False, True, True, 4)
    assert switches(Measure(transport=True)) == (True, False, False, 0)


def test_a_recipe_without_measure_forecasts_and_the_bundled_ones_measure_everything(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("name: own\n")
    assert config.load(own).measure == Measure()
    for name in config.recipe_names():
        *on, closures = switches(config.load(name).measure)
        # These take minutes, and a denoiser has as many outputs as pixels.
        kind, dataset = config.load(name).model.kind, config.load(name).tasks.dataset
        whole = kind not in {"pretrained", "vit"} and dataset != "diffusion-digits"
        assert (all(on), closures > 0) == (whole, whole), name


def test_a_level_that_is_asked_for_sets_the_switches_of_a_file_anew(tmp_path):
    whole = tmp_path / "whole.yaml"
    whole.write_text(config.load("tiny-digits").to_yaml())
    assert config.load(whole).measure == config.load("tiny-digits").measure
    light = config.load(whole, ["measure.level=forecast", "measure.capacity=true"]).measure
    assert switches(light) == (False, True, False, 0)
    assert light.tangents == 4, "what is no switch stays"


@pytest.mark.parametrize("level", ["all", 3, None, ["full"]])
def test_an_unknown_level_is_refused(level):
    with pytest.raises(ValueError, match=r"level = .*accepted: 'forecast', 'capacity', 'full'"):
        Measure(level=level)


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        (Measure(), "measure=capacity.Measure(),"),
        (Measure(level="full"), "measure=capacity.Measure(level='full'),"),
        (
            Measure(level="full", transport=False),
            "measure=capacity.Measure(level='full', transport=False),",
        ),
    ],
)
def test_the_call_that_repeats_a_run_repeats_its_measures(measure, said):
    recipe = config.Recipe(name="own", measure=measure).model_dump(mode="json")
    recipe["model"]["kind"] = "custom"
    assert said in python_call(recipe)


@pytest.fixture(scope="module")
def runs(quick_runs, tmp_path_factory):
    x = torch.randn(2, 24, 4, generator=torch.Generator().manual_seed(0))
    tasks = [(x[k], (x[k, :, k] > 0).long()) for k in range(2)]
    small = {"tangents": 2, "top_values": 1, "sweeps": 1, "sensitivity_eps": ()}
    effort = {"capacity_probes": 2, "capacity_nodes": 1, "curvature_samples": 8}

    def run(name, measure):
        torch.manual_seed(3)
        return capacity.run(
            tasks,
            model=torch.nn.Linear(4, 2),
            training=capacity.Training(epochs=2, batch_size=8),
            measure=measure,
            replicas=2,
            quiet=True,
            out=tmp_path_factory.mktemp("levels") / name,
        )

    made = {name: run(name, Measure(level=name, **small, **effort)) for name in LEVELS}
    return made | {"none": run("none", None)}


@pytest.mark.slow
def test_each_level_adds_to_the_one_before(runs):
    entries = {}
    for name, made in runs.items():
        (transition,) = made.result["transitions"]
        verdicts = transition["verdicts"] is not None
        measured = {"R_A": transition["capacity"] is not None, "verdicts": verdicts}
        measured |= {"J": made.result["phases"][0]["transport"] is not None}
        measured |= {"closure": bool(transition["closures"])}
        entries[name] = {key for key, there in measured.items() if there}
        assert transition["old"][0]["forecast"]["accuracy_drop"]["value"] is not None
        assert made.result["phases"][0]["thermo"] is not None
    assert entries["none"] == entries["forecast"] == set()
    assert entries["capacity"] == {"R_A", "verdicts"}
    assert entries["full"] == {"R_A", "verdicts", "J", "closure"}


@pytest.mark.slow
def test_a_level_changes_no_number_of_another(runs):
    for made in runs.values():
        assert made.result["accuracy"] == runs["full"].result["accuracy"]
        # Without a measure tasks of one's own have replay beside plain training.
        plain = [{**said, "by_strategy": []} for said in made.forecasts]
        assert plain == runs["full"].forecasts
