"""Forecasts calibrated on a corpus that is made here, and on the one that ships."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from capacity.forecasting import calibration
from capacity.forecasting.architecture import architecture_of
from capacity.forecasting.calibration import calibrated
from capacity.forecasting.corpus import BIAS, Conditions, Corpus, numbers
from capacity.forecasting.corrector import FEATURES
from capacity.forecasting.domain import Domain
from capacity.forecasting.engine import CheapForecast
from capacity.forecasting.known_plans import BARE, KnownPlans
from capacity.forecasting.quantities import QUANTITIES
from capacity.forecasting.shipped import shipped
from capacity.forecasting.task_reading import Reading
from capacity.forecasting.within_budget import from_readings
from capacity.networks.flat_model import FlatModel
from capacity.networks.models import build_model
from capacity.recipe.config import Model, Training
from capacity.records.estimate import Estimate, Status

NONE = dict.fromkeys(QUANTITIES)


def estimate(value: float) -> Estimate:
    return Estimate(
        value=value, interval=(value - 0.05, value + 0.05), status=Status.UNCALIBRATED, note="Bare."
    )


def reading(drop: float, rise: float, accuracy: float, loss: float) -> Reading:
    return Reading(
        drop=estimate(drop), rise=estimate(rise), accuracy=estimate(accuracy), loss=estimate(loss)
    )


SAID = CheapForecast(
    old=(reading(0.3, 0.5, 0.6, 0.9), reading(0.5, 0.5, 0.4, 0.9)),
    new=reading(0.98, 0.2, 0.98, 0.2),
    cost_ratio=Estimate(value=0.05),
    steps=50,
    batch=8,
    displacement=3.0,
    wander=0.1,
    gradients=(2.0, 2.5, 0.3),
    new_loss_before=4.0,
)
FORECAST = from_readings(SAID.old, SAID.new, SAID.cost_ratio)
CONDITIONS = Conditions(
    training=Training(optimizer="sgd", epochs=20, batch_size=50),
    strategy="naive",
    samples=1000,
    parameters=2000,
    budget=0.05,
    losses=frozenset({"cross_entropy"}),
    architecture="mlp",
    old_tasks=2,
)


def row(number: int, source: np.random.Generator, strategy: str = "naive") -> dict:
    # What the engine says here and there: numbers like those of SAID.
    made = {name: v for name, v in numbers(SAID, CONDITIONS).items() if name in FEATURES}
    made = {name: float(v) * float(source.uniform(0.5, 1.5)) for name, v in made.items()} | {
        "pair": f"pair {number % 30}", "family": "f", "architecture": "mlp", "strategy": strategy,
        "optimizer": ("sgd", "adam")[number % 2], "steps": 400, "parameters": 2000,
        "samples": 1000,
    }  # fmt: skip
    for name in QUANTITIES:
        value = float(source.uniform(0, 0.6))
        made |= {name: value, f"{name}_half": 0.05, f"unseen_{name}": value}
        made[f"measured_{name}"] = value + 0.1 + 0.02 * float(source.standard_normal())
    return made


def corpus(corrector: str | None = None) -> Corpus:
    source = np.random.default_rng(0)
    rows = [row(n, source, s) for s in ("naive", "ewc", "replay") for n in range(90)]
    if corrector is not None:
        for each in rows:
            each["unseen_drop"] = each["drop"] + 0.1
    used = {**NONE, "drop": corrector}
    return Corpus(tuple(rows), 0.05, {"plain": used, "mitigated": used}, old_tasks=4)


def test_a_forecast_is_written_down_as_means_over_the_old_tasks():
    found = numbers(SAID, CONDITIONS)
    assert set(found) >= set(FEATURES) - {"momentum", "adam"}
    assert found["drop"] == pytest.approx(0.4)
    assert found["old_accuracy"] == pytest.approx(0.9)
    assert found["old_loss"] == pytest.approx(0.4)
    assert found["drop_half"] == pytest.approx(0.05)
    assert found["steps"] == 400
    assert found["learning_time"] == pytest.approx(400 * CONDITIONS.training.lr)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["naive", "ewc"])
def test_a_known_forecast_gets_intervals_that_cover_its_bias(strategy):
    made = calibrated(FORECAST, SAID, replace(CONDITIONS, strategy=strategy), corpus())
    for each, value in zip(made.old, (0.3, 0.5), strict=True):
        low, high = each.accuracy_drop.interval
        assert each.accuracy_drop.value == value
        assert low < value - 0.1 < value + 0.1 < high
        assert each.accuracy_drop.status is Status.OK
        assert "30 pairs" in each.accuracy_drop.note
    assert made.new_accuracy.interval[1] == 1.0
    assert made.average_accuracy.value == pytest.approx(FORECAST.average_accuracy.value)


def with_bias(name, estimate, group):
    """Interval widened in squares, losses on the scale of asinh, where errors are alike."""
    bias = BIAS[name][group]
    half = (estimate.interval[1] - estimate.interval[0]) / 2
    if name in ("rise", "new_loss"):
        middle = math.asinh(estimate.value)
        ends = math.asinh(estimate.interval[0]), math.asinh(estimate.interval[1])
        half = math.sqrt(((ends[1] - ends[0]) / 2) ** 2 + bias**2)
        return pytest.approx((math.sinh(middle - half), math.sinh(middle + half)))
    half = math.sqrt(half**2 + bias**2)
    return pytest.approx((max(-1, estimate.value - half), min(1, estimate.value + half)))


def test_a_budget_that_pays_too_few_steps_names_one_that_pays_them():
    known = replace(CONDITIONS, architecture="cnn")
    few = calibrated(FORECAST, replace(SAID, share=0.05, enough=0.162), known, corpus())
    assert "a budget of 0.16 pays them" in few.new_loss.note
    for enough in (0.04, math.nan):
        made = calibrated(FORECAST, replace(SAID, share=0.05, enough=enough), known, corpus())
        assert "fewer steps than" not in made.new_loss.note


def test_an_interval_as_wide_as_can_be_stays_finite():
    """A last step far off made it so wide that its ends were no numbers."""
    made = calibration.widened("rise", Estimate(value=2.0, interval=(-1e5, 1e5)), 0.3)
    low, high = made.interval
    assert -1e6 < low < -1e4 < 1e5 < high < 1e6


def test_what_has_no_interval_gets_none():
    made = calibration.widened("rise", Estimate(value=0.5), 0.3)
    assert made.interval is None


@pytest.mark.parametrize(
    ("budget", "enough", "strategy", "status", "group"),
    [
        (0.2, 0.15, "naive", Status.OK, 0),
        (0.2, 0.25, "naive", Status.UNCALIBRATED, 1),
        (0.2, 0.15, "ewc", Status.UNCALIBRATED, 0),
    ],
)
def test_a_larger_budget_is_calibrated_where_it_pays_enough_steps(
    budget, enough, strategy, status, group
):
    asked = replace(CONDITIONS, budget=budget, strategy=strategy)
    said = replace(SAID, share=budget, enough=enough)
    drop = calibrated(FORECAST, said, asked, corpus()).accuracy_drop
    assert drop.status is status
    assert drop.value == FORECAST.accuracy_drop.value
    assert drop.interval == with_bias("drop", FORECAST.accuracy_drop, group)


@pytest.mark.slow
def test_a_correction_in_use_moves_the_values_and_narrows_the_intervals():
    bare = calibrated(FORECAST, SAID, CONDITIONS, corpus())
    made = calibrated(FORECAST, SAID, CONDITIONS, corpus("boosting"))
    assert made.accuracy_drop.value == pytest.approx(0.4, abs=0.03)
    # Every old task moves by as much, and the averages follow.
    moved = made.accuracy_drop.value - 0.3
    assert made.old[1].accuracy_drop.value == pytest.approx(0.5 + moved)
    assert made.average_accuracy.value == pytest.approx(
        FORECAST.average_accuracy.value - 2 * moved / 3
    )
    assert "learned correction" in made.accuracy_drop.note
    assert np.ptp(made.accuracy_drop.interval) < 0.7 * np.ptp(bare.accuracy_drop.interval)
    assert made.loss_increase.value == bare.loss_increase.value
    assert made.average_loss == bare.average_loss


@pytest.mark.slow
def test_strategies_are_told_apart():
    known = corpus("trees")
    other = [
        {**r, "measured_drop": r["drop"] - 0.1} if r["strategy"] == "replay" else r
        for r in known.rows
    ]
    known = replace(known, rows=tuple(other))
    made = calibrated(FORECAST, SAID, replace(CONDITIONS, strategy="replay"), known)
    assert made.accuracy_drop.value == pytest.approx(0.2, abs=0.06)
    plain = calibrated(FORECAST, SAID, CONDITIONS, known)
    assert plain.accuracy_drop.value == pytest.approx(0.4, abs=0.06)


@pytest.mark.slow
def test_options_that_the_corpus_has_otherwise_leave_the_interval_uncalibrated():
    known = replace(corpus("trees"), labels={"replay": "replay, memory = 30"})
    asked = replace(CONDITIONS, strategy="replay", label="replay, memory = 30")
    made = calibrated(FORECAST, SAID, asked, known)
    assert made.accuracy_drop.status is Status.OK
    other = calibrated(FORECAST, SAID, replace(asked, label="replay"), known)
    assert other.accuracy_drop.status is Status.UNCALIBRATED
    assert other.accuracy_drop.value == made.accuracy_drop.value
    assert "options are others" in other.accuracy_drop.note
    assert "(replay, memory = 30)" in other.accuracy_drop.note


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"budget": None}, "not full simulations"),
        ({"budget": 0.5}, "a budget of 0.5 is far"),
        ({"parameters": 10**6}, "parameters: 1e"),
        ({"samples": 10**5}, "steps: 40000 is far"),
        ({"samples": 10, "training": Training(epochs=400)}, "samples: 10 is far"),
        ({"old_tasks": 20}, "old tasks: 20 is far from the corpus's 1 to 4"),
        ({"architecture": "cnn"}, "no architecture 'cnn' (mlp)"),
        ({"architecture": "network with lstm"}, "no architecture 'network with lstm' (mlp)"),
        ({"strategy": "gpm"}, "no strategy 'gpm' (ewc, naive, replay)"),
        ({"losses": frozenset({"mse"})}, "cross-entropy only"),
        ({"training": Training(optimizer="rmsprop", epochs=20)}, "no optimizer 'rmsprop'"),
        ({"training": Training(schedule="cosine", epochs=20)}, "constant rates"),
        ({"training": Training(curriculum="easy", epochs=20)}, "no training with a curriculum"),
    ],
)
def test_what_the_corpus_does_not_know_stays_uncalibrated_and_says_why(changed, reason):
    made = calibrated(FORECAST, SAID, replace(CONDITIONS, **changed), corpus())
    assert made.accuracy_drop.status is Status.UNCALIBRATED
    assert made.accuracy_drop.value == FORECAST.accuracy_drop.value
    assert made.accuracy_drop.interval == with_bias("drop", FORECAST.accuracy_drop, 0)
    assert made.loss_increase.interval == with_bias("rise", FORECAST.loss_increase, 0)
    assert reason in made.accuracy_drop.note
    assert reason in made.new_loss.note


def test_a_forecast_that_diverged_stays_as_it_is():
    lost = replace(SAID.new, loss=Estimate(value=None, status=Status.DIVERGED))
    said = replace(SAID, new=lost)
    made = calibrated(
        from_readings(said.old, said.new, said.cost_ratio), said, CONDITIONS, corpus()
    )
    assert made.new_loss.status is Status.DIVERGED
    assert made.accuracy_drop.status is Status.UNCALIBRATED


@pytest.mark.slow
def test_the_shipped_corpus_calibrates_a_small_network():
    known = shipped()
    assert known is not None
    assert len({r["pair"] for r in known.rows}) > 300
    conditions = replace(CONDITIONS, training=Training(optimizer="sgd", lr=0.2, epochs=20))
    made = calibrated(FORECAST, SAID, replace(conditions, samples=1297, parameters=3610))
    assert made.accuracy_drop.status is Status.OK
    low, high = made.accuracy_drop.interval
    assert -1 <= low < made.accuracy_drop.value < high <= 1


@pytest.mark.parametrize("corrector", [None, "trees"])
@pytest.mark.parametrize(
    ("seen", "said_to_differ"),
    [
        ({"new_loss_before": 4e4}, "new loss before"),
        ({"displacement": 3e5}, "displacement"),
        ({"gradients": (2e5, 2.5, 0.3)}, "first gradient"),
    ],
)
def test_a_shift_that_the_engine_has_not_seen_is_outside(corrector, seen, said_to_differ):
    """Neither the interval of the corpus nor its correction is used there."""
    said = replace(SAID, **seen)
    made = calibrated(
        from_readings(said.old, said.new, said.cost_ratio), said, CONDITIONS, corpus(corrector)
    )
    assert made.accuracy_drop.status is Status.UNCALIBRATED
    assert made.accuracy_drop.value == FORECAST.accuracy_drop.value
    assert made.accuracy_drop.interval == with_bias("drop", FORECAST.accuracy_drop, 0)
    assert "Uncalibrated: the nearest of 90 earlier transitions are" in made.accuracy_drop.note
    assert said_to_differ in made.accuracy_drop.note


@pytest.mark.slow
def test_what_is_inside_is_decided_by_other_pairs():
    known = shipped()
    rows = known.of("plain")
    domain = Domain(rows, ["naive"])
    # The rows themselves have near copies of themselves among the others.
    inside = [domain.why_outside(row) is None for row in rows[::10]]
    assert np.mean(inside) > 0.95
    assert domain.why_outside({**rows[0], "old_accuracy": 0.0, "old_loss": 9.0}) is not None


def test_kinds_of_networks_are_told_by_what_they_call():
    def kind(module, *shape):
        flat = FlatModel(module)
        return architecture_of(flat, flat.initial(), torch.randn(2, *shape))

    nn = torch.nn
    assert kind(nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3)), 6) == "mlp"
    assert kind(build_model(Model(kind="cnn", hidden=(4, 4)), (1, 8, 8), 3, 0), 1, 8, 8) == "cnn"
    block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    assert kind(nn.Sequential(block, nn.Flatten(), nn.Linear(32, 3)), 4, 8) == "transformer"
    assert kind(_Tokens(), 4) == "token transformer"
    normed = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 3))
    assert kind(normed, 6) == "network with layer_norm"
    normed = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).eval()
    assert kind(normed, 6) == "network with batch_norm"
    assert kind(_Recurrent(), 4, 6) == "network with gru"


class _Recurrent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.steps, self.head = torch.nn.GRU(6, 5, batch_first=True), torch.nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.steps(x)[0][:, -1])


class _Tokens(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = torch.nn.Embedding(7, 8), torch.nn.Linear(8, 3)

    def forward(self, x):
        h = self.embed(x.round().long().clamp(0, 6))
        mixed = torch.nn.functional.scaled_dot_product_attention(h, h, h)
        return self.head(mixed.mean(-2))


OTHER = {
    "schedules": ["constant", "cosine"], "warmup": 0.1, "weight_decay": {"adamw": 0.1},
    "clip_norm": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("optimizer", "name", "value"),
    [
        ("momentum", "momentum", 0.5),
        ("momentum", "nesterov", True),
        ("adam", "betas", (0.5, 0.6)),
        ("adamw", "eps", 1.0),
    ],
)
def test_no_corpus_speaks_of_coefficients_that_it_has_not_seen(optimizer, name, value):
    for known in (BARE, KnownPlans(**OTHER)):
        said = known.why_not(Training(optimizer=optimizer, **{name: value}), 1000)
        assert said == (
            f"the corpus holds {name} = {Training.model_fields[name].default} only, and the plan "
            f"has {value}"
        )


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        ({"optimizer": "adamw", "schedule": "cosine", "warmup": 0.1, "weight_decay": 0.1}, None),
        ({"optimizer": "adamw", "clip_norm": 0.5}, None),
        ({"optimizer": "adamw", "groups": [{"parameters": ["*"], "weight_decay": 0.0}]}, None),
        ({"optimizer": "adamw", "schedule": "linear"}, "no schedule 'linear'"),
        ({"optimizer": "adamw", "warmup": 0.4}, "a warmup of 0.4 is far from"),
        ({"optimizer": "adamw", "weight_decay": 1.0}, "a weight decay of 1 is far from"),
        ({"optimizer": "sgd", "weight_decay": 0.01}, "a weight decay of 0.01 is far from"),
        ({"optimizer": "adamw", "clip_norm": 0.1}, "clipped to 0.1 are far from"),
        (
            {"optimizer": "adamw", "groups": [{"parameters": ["*"], "lr_factor": 0.1}]},
            "a learning rate of their own",
        ),
    ],
)
def test_plans_that_a_corpus_knows(plan, reason):
    said = KnownPlans(**OTHER).why_not(Training(**plan), 1000)
    assert said is None if reason is None else reason in said
    bare = BARE.why_not(Training(**plan), 1000)
    assert "the corpus holds constant rates" in bare
