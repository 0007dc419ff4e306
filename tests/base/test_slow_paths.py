"""A slow path that is taken is said in the record of whoever waited for it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import capacity
from capacity.base.slow_paths import noting, slow_paths, took

pytestmark = pytest.mark.filterwarnings("ignore:The old tasks are not converged")

LOOP = "A plain loop stands in place of vmap, slower and with the same numbers: "
UNTRACED = "Hessian products run untraced, slower and with the same numbers: "
PLAN = capacity.Training(lr=0.05, epochs=1, batch_size=6)


class Looking(nn.Module):
    """Looks at what it computes, as an encoder does at its attention mask."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        made = self.head(x.flatten(1))
        return made if bool((made < 1e6).all()) else 2 * made


class Plain(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))


def notes_of_tracker(model, old, new):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker = capacity.TransportTracker(model, "cross_entropy", optimizer, tangents=2)
    tracker.observe(*old)
    return [tracker.log_volume().note]


def notes_of_forecast(model, old, new, **options):
    made = capacity.forecast(model, old=old, new=new, training=PLAN, **options)
    return [made.accuracy_drop.note, made.new_loss.note, made.average_accuracy.note]


def notes_of_verdict(model, old, new):
    made = capacity.verdict(model, old=old, new=new, training=PLAN, samples=6)
    return [" ".join(made.warnings)]


def notes_of_capacity(model, old, new):
    made = capacity.compatible_capacity(
        model, old=old, new=new, tolerance=0.5, displacement=1.0, samples=4
    )
    return [made.capacity[0].directions.note, made.dimension.stable_rank.note]


def notes_of_speed_limit(model, old, new):
    made = capacity.epistemic_speed_limit(
        model, [old, new], training=PLAN, replicas=2, start="warm"
    )
    return [made.total.per_replica.note, made.tasks[1].per_replica.note]


DOORS = {
    "tracker": notes_of_tracker,
    "simulation": lambda m, a, b: notes_of_forecast(m, a, b, budget=None, orders=2),
    "verdict": notes_of_verdict,
    "capacity": notes_of_capacity,
    "speed limit": notes_of_speed_limit,
}


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
def test_what_ran_slowly_is_said(door):
    torch.manual_seed(0)
    x, y = torch.randn(12, 2, 3), torch.arange(12) % 2
    for model, slow in ((Looking(), True), (Plain(), False)):
        for note in DOORS[door](model, (x, y), (x + 1, 1 - y)):
            assert (LOOP in note or UNTRACED in note) is slow, note
            assert "\n" not in note


def test_a_loss_that_cannot_be_traced_is_said(float64):
    def loss(f, y):
        made = nn.functional.cross_entropy(f, y)
        return made * 1.0 if float(made.detach()) > -1 else made

    x, y = torch.randn(12, 2, 3), torch.arange(12) % 2
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker = capacity.TransportTracker(model, loss, optimizer, tangents=2)
    tracker.observe(x, y)
    assert UNTRACED in tracker.log_volume().note


@pytest.mark.slow
def test_a_run_says_it_in_its_result(tmp_path):
    torch.manual_seed(0)
    x, y = torch.randn(2, 12, 2, 3), torch.arange(12) % 2
    made = capacity.run(
        [((a, y), (a, y)) for a in x], model=Looking(), training=PLAN, replicas=1, quiet=True,
        measure=capacity.Measure(
            level="full", verdicts=False, closure_points=0, forecast=False,
            tangents=2, top_values=1, sweeps=2,
            sensitivity_eps=(), curvature_samples=4, tolerance=0.5, displacement=1.0,
        ),
        out=tmp_path / "run",
    )  # fmt: skip
    assert LOOP in str(made.result["phases"]) or UNTRACED in str(made.result["phases"])
    note = made.result["transitions"][-1]["capacity"]["directions"]["note"]
    assert LOOP in note or UNTRACED in note


def test_lines_are_collected_once_and_for_outer_collections_too():
    @noting(lambda record, said: [*record, said])
    def inner(why):
        if why:
            took("A way", why)
            took("A way", why)
        return ["done"]

    took("nobody listens", "so nothing is kept")
    with slow_paths() as outer:
        assert inner("") == ["done"]
        said = "A way, slower and with the same numbers: first line."
        assert inner("first line\nsecond") == ["done", said]
        inner("x" * 500)
    assert outer[0] == said
    assert len(outer) == 2
    assert len(outer[1]) < 300
    with slow_paths() as empty:
        pass
    assert empty == []
