"""A page of a cheaper run says what the full level would add, and the most that it would cost."""

from __future__ import annotations

import pytest

from capacity.recipe.config import Measure
from capacity.report.full_cost import full_seconds, full_sentence
from capacity.results.view import RunView

MEASURE = Measure().model_dump(mode="json")


def view(trained=6.0, steps=(10, 20, 30), **measure):
    tasks = [{"name": f"t{k}", "status": "learned", "steps": n} for k, n in enumerate(steps)]
    return RunView(
        result={"tasks": tasks, "replicas": 2, "name": "mine", "status": "finished"},
        recipe={"measure": MEASURE | measure},
        status={"seconds": {"train": trained}} if trained else {},
    )


def test_it_counts_products_at_the_pace_of_a_step_for_one_replica():
    # 60 steps in 6 s for two replicas: 0.05 s a gradient, 0.065 s a product.
    passes = 60 * (16 + 4 * 3 + 2 * 16 * 12)
    room = (2 * 10 + 20) * 2 * 16 * 10  # the first task lies before two, the second before one
    assert full_seconds(view()) == pytest.approx(0.065 * (passes + room))
    assert "up to about 41 min." in full_sentence(view())


def test_less_effort_costs_less_and_one_task_needs_no_room():
    assert full_seconds(view(sweeps=2)) < full_seconds(view())
    alone = full_seconds(view(steps=(60,)))
    assert alone == pytest.approx(0.065 * 60 * (16 + 4 * 3 + 2 * 16 * 12))


def test_without_the_time_of_a_step_nothing_is_promised():
    assert full_seconds(view(trained=None)) is None
    assert full_sentence(view(trained=None)).endswith("the same without.")
