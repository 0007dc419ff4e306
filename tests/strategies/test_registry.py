"""From a recipe's words to a strategy, or one clear error."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch import nn

from capacity.networks.belief import Belief
from capacity.networks.flat_model import FlatModel
from capacity.recipe import config
from capacity.recipe.config import Strategy, Training
from capacity.strategies import REGISTRY
from capacity.strategies.mitigation import Mitigation, from_options
from strategy_cases import learn, network, starts, three

BAD = {
    "unknown name": ("{name: ecw}", "'ewc'"),
    "unknown option": ("{name: ewc, stength: 1}", "did you mean 'strength'"),
    "foreign option": ("{name: lwf, memory: 3}", "accepted: strength, temperature"),
    "option of naive": ("{strength: 3}", "name = 'naive'"),
    "negative": ("{name: ewc, strength: -1}", "greater than 0"),
    "nan": ("{name: si, damping: .nan}", "training.strategy.damping = nan"),
    "text": ("{name: l2, strength: much}", "training.strategy.strength = 'much'"),
    "fisher": ("{name: ewc, fisher: exact}", "'true', 'empirical', 'ggn'"),
    "no parameters": ("{name: freeze}", "parameters = ['1.*']"),
    "empty parameters": ("{name: freeze, parameters: []}", "at least 1 item"),
    "threshold": ("{name: gpm, threshold: 1.5}", "less than or equal to 1"),
    "factor": ("{name: lower_lr, factor: 2}", "less than or equal to 1"),
    "plain name": ("ecw", "'ewc'"),
    "no mapping": ("[ewc]", "training.strategy = ['ewc']"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options_die_at_the_door(case):
    text, said = BAD[case]
    with pytest.raises(ValueError, match=r".") as caught:
        config.load("split-digits", [f"training.strategy={text}"])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_holds_the_options_of_its_own_strategy(tmp_path):
    recipe = config.load("permuted-digits", ["training.strategy.name=ewc"])
    text = recipe.to_yaml()
    assert "name: ewc" in text
    assert "memory" not in text
    path = tmp_path / "again.yaml"
    path.write_text(text)
    assert config.load(path) == recipe
    assert "name: naive" in config.load("split-digits").to_yaml()
    assert Training().strategy.name == "naive"


def test_every_name_has_a_strategy():
    for name in REGISTRY.built_in:
        given = {"parameters": ["0.*"]} if name == "freeze" else {}
        made = from_options(Strategy(name=name, **given))
        assert type(made) is REGISTRY.load(name)
        assert made.name == name
        assert Training.model_validate({"strategy": made.model_dump()}).strategy == made
        assert (
            made.model_dump_json() == Strategy.model_validate(made.model_dump()).model_dump_json()
        )


class Draws:
    """A generator whose samples nobody asks for."""

    def training_samples(self, network, like, count, *, seed):
        raise NotImplementedError


def test_nothing_is_added_to_the_first_task():
    point, belief = FlatModel(network()), FlatModel(Belief(network()))
    for name in REGISTRY.built_in:
        given = {"parameters": ["0.*"]} if name == "freeze" else {}
        kind = REGISTRY.load(name)
        flat = belief if kind.of_beliefs else point
        task = replace(three()[0], generator=Draws()) if kind.of_generators else three()[0]
        plan = Mitigation(Strategy(name=name, **given), flat).plan(task, Training())
        assert plan.plain
        assert plan.training == Training()


def test_naive_is_plain_training():
    training = Training(lr=0.1, epochs=2, batch_size=8)
    flat, theta = starts(2)
    made = Mitigation(Strategy(), flat)
    for i, task in enumerate(three()):
        phase, step = learn(made, flat, theta, task, training, i)
        assert step is None
        theta = phase.theta


@pytest.mark.parametrize(
    ("module", "options", "said"),
    [
        (network(), {"name": "freeze", "parameters": ["2.wight"]}, "did you mean '2.weight'"),
        (network(), {"name": "freeze", "parameters": ["*"]}, "freezes every parameter"),
        (
            nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4)),
            {"name": "gpm"},
            "model layer '1' is a LayerNorm",
        ),
    ],
)
def test_what_does_not_go_with_the_network(module, options, said):
    with pytest.raises(ValueError, match=r".") as caught:
        Mitigation(Strategy(**options), FlatModel(module))
    assert said in str(caught.value)


def test_gpm_takes_a_frozen_layer_of_any_kind():
    module = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4))
    module[1].requires_grad_(False)
    made = Mitigation(Strategy(name="gpm", samples=3), FlatModel(module))
    made.learned(three()[0], FlatModel(module).initial()[None])
    projector = made.plan(three()[1], Training()).projector
    assert [layer.name for layer in projector.layers] == ["0"]
