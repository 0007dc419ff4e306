"""Steps on more than the observed loss: the share is said with every figure, and marks them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import capacity
from capacity.records.estimate import Status
from optimizer_cases import TORCH

pytestmark = pytest.mark.usefixtures("quick_runs")

KINDS = ["sgd", "nesterov", "adamw", "rmsprop"]
"""One of each way in which a gradient is read back."""


def followed(
    name="sgd", *, kind=torch.float32, steps=24, term=None, after=None, micro=1, clip=None
):
    """Train beside a tracker; the loop may add a term, act after steps, or accumulate."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).to(kind)
    x, y = torch.randn(256, 6, dtype=kind), torch.randint(3, (256,))
    start = [p.detach().clone() for p in model.parameters()]
    optimiser = TORCH[name](model.parameters())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps + 5)
    tracker = capacity.TransportTracker(
        model, "cross_entropy", optimiser, tangents=2, clip_norm=clip
    )
    for rows in torch.randint(256, (steps, 32), generator=torch.Generator().manual_seed(1)):
        optimiser.zero_grad()
        for part in rows.chunk(micro):
            (nn.functional.cross_entropy(model(x[part]), y[part]) / micro).backward()
        if term is not None:
            term(model, start).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        tracker.observe(x[rows], y[rows])
        optimiser.step()
        if after is not None:
            after(model)
        schedule.step()
    return tracker


@pytest.mark.slow
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", KINDS)
def test_exact_loops_raise_no_alarm(name, kind):
    for options in ({}, {"micro": 4, "clip": 0.3}):
        tracker = followed(name, kind=kind, **options)
        found = tracker.unexplained
        assert found.systematic == ""
        assert found.share < (1e-5 if kind == torch.float32 else 1e-12)
        assert found.checked == found.steps == 24, "the last step is seen, too"


def pull(strength):
    return lambda model, start: (
        0.5
        * strength
        * sum(((p - q) ** 2).sum() for p, q in zip(model.parameters(), start, strict=True))
    )


def decay(strength):
    return lambda model, _: 0.5 * strength * sum((p**2).sum() for p in model.parameters())


def fisher(model, start):
    weights = ((q * 1e3).cos().square() for q in start)  # some importance per parameter
    pairs = zip(model.parameters(), start, weights, strict=True)
    return 0.05 * sum((f * (p - q) ** 2).sum() for p, q, f in pairs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "term"),
    [
        *(("sgd", term) for term in (pull(1e-3), pull(1e-2), decay(1e-4), fisher)),
        ("nesterov", pull(1e-2)),
        ("adamw", decay(1e-4)),
        ("rmsprop", pull(1e-3)),
    ],
)
def test_a_penalty_that_is_not_in_the_loss_marks_every_figure(name, term):
    tracker = followed(name, term=term)
    found = tracker.unexplained
    assert 1e-5 < found.share < 0.2
    assert found.systematic
    volume = tracker.log_volume()
    assert volume.status is Status.NOT_RESOLVED
    assert volume.interval is None
    assert f"{found.share:.1e}" in volume.note
    assert "no rounding" in volume.note
    spectrum = tracker.spectrum(top=2)
    assert spectrum.top_resolved == 0
    assert spectrum.frobenius_sq.status is Status.NOT_RESOLVED
    assert f"{found.share:.1e}" in spectrum.effective_rank.note
    exponents = tracker.lyapunov(top=1)
    assert exponents.exponents[0].status is Status.NOT_RESOLVED
    with pytest.warns(UserWarning, match="no rounding"):
        assert tracker.jacobian().unexplained == found


@pytest.mark.slow
def test_a_penalty_of_which_too_much_is_unexplained_is_refused():
    with pytest.raises(ValueError, match=r"was not the observed one: .*penalties outside the loss"):
        followed("nesterov", term=fisher)


def shrink(model):
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1 - 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_parameters_moved_beside_the_optimiser_are_seen(name):
    assert followed(name, after=shrink).unexplained.systematic


@pytest.mark.slow
def test_the_share_is_said_where_nothing_is_wrong():
    tracker = followed()
    volume = tracker.log_volume()
    assert volume.status is Status.OK
    assert f"Unexplained share of the steps: {tracker.unexplained.share:.1e}." in volume.note


@pytest.mark.slow
def test_the_last_step_counts():
    tracker = followed(steps=1, term=decay(1e-2))
    assert tracker.unexplained.checked == 1
    assert tracker.log_volume().status is Status.NOT_RESOLVED
    model, (x, y) = nn.Linear(3, 2), (torch.randn(8, 3), torch.randint(2, (8,)))
    pending = capacity.TransportTracker(
        model, "cross_entropy", torch.optim.SGD(model.parameters(), lr=0.1), tangents=2
    )
    pending.observe(x, y)
    assert pending.unexplained.checked == 0
    assert "No step has been compared" in pending.log_volume().note


@pytest.mark.slow
def test_a_large_penalty_is_refused():
    with pytest.raises(ValueError, match=r"step \d+ was not the observed one"):
        followed(term=pull(30.0))
