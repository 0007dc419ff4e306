"""A predictor of one's own is one file, `gradient_conflict`, whose last line registers it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import capacity
from capacity.networks.flat_model import FlatModel
from capacity.predictors.predictor import Setting
from capacity.predictors.registry import PREDICTORS, predict, register, run_controls
from capacity.recipe.config import Measure, Training
from capacity.report import render
from strategy_cases import classes, three

NAME = "gradient_conflict"


@pytest.fixture
def registered():
    # Here, so that no other test sees it in its runs.
    from examples.gradient_conflict import GRADIENT_CONFLICT

    register(GRADIENT_CONFLICT)
    yield GRADIENT_CONFLICT
    del PREDICTORS[NAME]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
def test_it_says_one_number_of_every_pair(float64):
    a, b, c = three()
    flat = FlatModel(net().double())
    theta = flat.initial()
    setting = Setting(model=flat, theta=theta[None], old=(a, b), new=c, training=Training())
    made = predict(setting, [NAME])[NAME]

    def gradient(split):
        t = theta.clone().requires_grad_()
        loss = nn.functional.cross_entropy(flat.outputs(t, split.x), split.y)
        return torch.autograd.grad(loss, t)[0]

    for task, said in zip((a, b), made, strict=True):
        cosine = torch.cosine_similarity(gradient(task.test), gradient(c.train), dim=0)
        assert said.loss_increase.value == pytest.approx(-float(cosine))
    assert NAME in predict(setting)


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
def test_a_run_shows_it_wherever_predictors_are_listed(quick_run, tmp_path):
    made = capacity.run(
        [(task.train.x, task.train.y) for task in (*three(), classes("D", (0, 3)))],
        model=net(), training=Training(lr=0.1, epochs=2, batch_size=8),
        measure=Measure(transport=False, capacity=False),
        replicas=1, out=tmp_path / "run", quiet=True,
    )  # fmt: skip
    assert run_controls() == [NAME, "new_task_loss", "path_bound"]
    last = made.result["transitions"][1]
    first, second = (
        cell.get("controls", {}).get(NAME, {}).get("loss_increase", last["controls"][NAME])
        for cell in last["old"]
    )
    assert first["value"] != second["value"], "a value per pair"
    assert made.result["scores"]["controls"][NAME]["loss_increase"]["value"] is not None
    assert "gradient conflict" in render(made.path).read_text(encoding="utf-8")


def test_what_is_none_or_taken_is_refused(registered):
    with pytest.raises(ValueError, match="predictor = 'conflict' is none; pass a"):
        register("conflict")
    with pytest.raises(ValueError, match="'pilot' is the package's own"):
        register(replace(registered, name="pilot"))
    with pytest.raises(ValueError, match="did you mean 'gradient_conflict'"):
        predict(
            Setting(
                model=FlatModel(net()), theta=torch.zeros(1, 64), old=three()[:1],
                new=three()[2], training=Training(),
            ),
            ["gradient_conflit"],
        )  # fmt: skip
