"""Memories: what they keep, what they ask for, and what that adds up to."""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import grad

from capacity.recipe.config import Training
from capacity.strategies.rehearsal import (
    AGEM,
    DarkReplay,
    DarkReplayLabels,
    ExperienceReplay,
    Joint,
)
from capacity.strategies.sample_memory import quotas, select
from capacity.strategies.step import StrategyStep
from capacity.strategies.terms import Source, of_replica
from capacity.tasks.task import Split, Task
from strategy_cases import classes, starts, three

HERE = Source(7)
FULL = Training(lr=0.1, epochs=1, batch_size=1000)


def step_of(strategy, flat, theta, old, new, training=FULL):
    state = None
    for k in range(len(old)):
        state = strategy.prepare(flat, theta, old[: k + 1], state, HERE)
    plan = strategy.contribution(flat, old, new, training, state, HERE)
    return StrategyStep(flat, new, plan, len(theta)), plan


def every(task: Task, replicas: int) -> torch.Tensor:
    return torch.arange(len(task.train)).expand(replicas, -1)


@pytest.mark.parametrize(
    ("sizes", "capacity", "expected"),
    [([10, 10], 5, [3, 2]), ([2, 10, 10], 12, [2, 5, 5]), ([3, 3], 100, [3, 3]), ([5], 2, [2])],
)
def test_quotas(sizes, capacity, expected):
    assert quotas(sizes, capacity) == expected


@pytest.mark.parametrize("selection", ["balanced", "reservoir"])
def test_a_memory_only_ever_forgets(selection):
    sizes, before = [30, 50, 20, 40], None
    for k in range(1, 5):
        made = select(sizes[:k], 24, selection, 3, HERE)
        assert made.task.shape == (3, 24)
        now = []
        for r in range(3):
            pairs = list(zip(made.task[r].tolist(), made.row[r].tolist(), strict=True))
            assert len(set(pairs)) == 24, "no sample twice"
            now.append(set(pairs))
        assert now[0] != now[1], "every replica draws its own"
        if before is not None:
            for then, left in zip(before, now, strict=True):
                assert {p for p in left if p[0] < k - 1} <= then
        before = now
    if selection == "balanced":
        assert torch.bincount(made.task[0]).tolist() == [6, 6, 6, 6]


@pytest.mark.slow
def test_a_reservoir_is_a_uniform_draw():
    counts = torch.zeros(2)
    for seed in range(300):
        made = select([30, 90], 12, "reservoir", 1, Source(seed))
        counts += torch.bincount(made.task[0], minlength=2)
    share = float(counts[0] / counts.sum())  # hypergeometric: 0.25, sd of one draw's mean below
    deviation = math.sqrt(0.25 * 0.75 / 12 * (120 - 12) / 119 / 300)
    assert abs(share - 0.25) < 4 * deviation


@pytest.mark.parametrize("heads", [False, True])
def test_replay_of_all_data_is_the_joint_gradient(float64, heads):
    a, b, c = three(heads)
    flat, theta = starts(2)
    sizes = [len(t.train) for t in (a, b, c)]
    strategies = [ExperienceReplay(memory=1000, memory_batch=1000), Joint()]
    for strategy in strategies:
        step, _ = step_of(strategy, flat, theta, (a, b), c)
        x, y, _ = step.draw(every(c, 2))
        gradient, loss = step.gradients(theta, x, y)
        for r in range(2):
            parts = [
                n / sum(sizes) * grad(flat.loss(t))(theta[r], t.train.x, t.train.y)
                for n, t in zip(sizes, (a, b, c), strict=True)
            ]
            torch.testing.assert_close(gradient[r], sum(parts), rtol=1e-10, atol=1e-13)
        mean = [
            n / sum(sizes) * flat.loss(t)(theta[0], t.train.x, t.train.y)
            for n, t in zip(sizes, (a, b, c), strict=True)
        ]
        torch.testing.assert_close(loss[0], sum(mean))


def test_the_joint_batch_passes_over_all_data_once(float64):
    a, b, c = three()
    flat, theta = starts(2)
    training = Training(lr=0.1, epochs=1, batch_size=4)
    step, plan = step_of(Joint(), flat, theta, (a, b), c, training)
    slots = []
    for index in every(c, 2).split(4, dim=1):
        _, rows, _ = step.draw(index)
        slots.append(rows[:, 4:] - len(c.train))
    assert plan.replay.batch == 8
    for r in range(2):
        drawn = torch.cat(slots, dim=1)[r]
        assert sorted(drawn.tolist()) == list(range(32))


def test_the_memory_holds_what_its_slots_say(float64):
    a, b, c = three(heads=True)
    flat, theta = starts(2)
    _, plan = step_of(ExperienceReplay(memory=6), flat, theta, (a, b), c)
    made, kept = plan.replay, select([16, 16], 6, "balanced", 2, HERE)
    for r in range(2):
        for slot in range(6):
            task = (a, b)[int(kept.task[r, slot])]
            row = int(kept.row[r, slot])
            x = made.gather(torch.full((2, 1), slot))[r, 0]
            assert torch.equal(x, task.train.x[row])
            own = of_replica(made.private, r)
            assert int(own["target"][slot]) == int(task.train.y[row])
            assert made.readers[int(own["reader"][slot])].outputs == task.outputs


def test_dark_replay_keeps_the_outputs_of_the_time(float64):
    a, b, c = three(heads=True)
    flat, theta = starts(2)
    der = DarkReplay(strength=0.5, memory=1000, memory_batch=1000, selection="balanced")
    state = der.prepare(flat, theta, (a,), None, HERE)
    after_b = theta + 0.05
    state = der.prepare(flat, after_b, (a, b), state, HERE)
    plan = der.contribution(flat, (a, b), c, FULL, state, HERE)
    step = StrategyStep(flat, c, plan, 2)
    x, y, _ = step.draw(every(c, 2))
    now = theta + 0.2
    _, loss = step.gradients(now, x, y)
    drift = 0.0
    for task, then in ((a, theta[1]), (b, after_b[1])):
        was, heads = flat.outputs(then, task.train.x), list(task.outputs)
        moved = flat.outputs(now[1], task.train.x) - was
        drift += float(moved[:, heads].square().sum(1).mean()) / 4 / 2  # half the memory each
    expected = float(flat.loss(c)(now[1], c.train.x, c.train.y)) + 0.5 * drift
    assert float(loss[1]) == pytest.approx(expected, rel=1e-10)


def test_dark_replay_with_labels_asks_two_batches(float64):
    a, b, c = three()
    flat, theta = starts(1)
    both = DarkReplayLabels(strength=0.5, label_strength=0.3, memory=10, memory_batch=4)
    step, plan = step_of(both, flat, theta, (a, b), c)
    assert plan.replay.batch == 8
    x, y, _ = step.draw(every(c, 1))
    now = theta + 0.2
    _, loss = step.gradients(now, x, y)
    own = of_replica(plan.replay.private, 0)
    slots = y[0, 16:] - 16
    out = flat.outputs(now[0], x[0, 16:])
    drift = (out[:4] - own["outputs"][slots[:4]]).square().mean()
    labels = torch.nn.functional.cross_entropy(out[4:], own["target"][slots[4:]])
    expected = flat.loss(c)(now[0], c.train.x, c.train.y) + 0.5 * drift + 0.3 * labels
    torch.testing.assert_close(loss[0], expected)


def test_agem_never_opposes_its_memory(float64):
    a, b, c = three()
    flat, theta = starts(4)
    # The old tasks once more with other labels, so that their gradients often oppose the new.
    wrong = Task(name="W", train=Split(c.train.x, 5 - c.train.y), test=c.test)
    seen = set()
    for new in (c, wrong, a):
        step, plan = step_of(AGEM(memory=1000, memory_batch=1000), flat, theta, (a, b), new)
        x, y, _ = step.draw(every(new, 4))
        gradient, _ = step.gradients(theta, x, y)
        for r in range(4):
            own = grad(flat.loss(new))(theta[r], new.train.x, new.train.y)
            rows = torch.cat([a.train.x, b.train.x]), torch.cat([a.train.y, b.train.y])
            reference = grad(flat.loss(a))(theta[r], *rows)
            assert float(gradient[r] @ reference) >= -1e-12
            conflict = bool(own @ reference < 0)
            seen.add(conflict)
            if not conflict:
                torch.testing.assert_close(gradient[r], own, rtol=1e-12, atol=1e-15)
            else:
                assert float(gradient[r] @ reference) == pytest.approx(0, abs=1e-12)
                gone = own - gradient[r]
                torch.testing.assert_close(gone, (gone @ reference) / (reference @ reference)
                                           * reference, rtol=1e-9, atol=1e-12)  # fmt: skip
    assert seen == {True, False}
    assert plan.plain is False


def test_mixed_targets_are_refused(float64):
    a = classes("A", (0, 1))
    values = Task(name="V", train=Split(a.train.x, torch.randn(16, 4)), test=a.test, loss="mse")
    flat, theta = starts(1)
    with pytest.raises(ValueError, match="one kind"):
        step_of(ExperienceReplay(memory=4), flat, theta, (a, values), a)


def test_a_memory_too_small_for_two_batches_is_refused(float64):
    a, b, _ = three()
    flat, theta = starts(1)
    with pytest.raises(ValueError, match="memory = 1 is too small"):
        step_of(DarkReplayLabels(label_strength=1.0, memory=1), flat, theta, (a,), b)
