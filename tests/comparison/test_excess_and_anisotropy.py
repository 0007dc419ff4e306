"""Excess dissipation against the anisotropy of J: each number, and each verdict, by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

import capacity
from capacity.comparison.excess_and_anisotropy import link, plain, points, sentence, verdict
from report.fabricated_run import estimate
from report.fabricated_runs import seeded

COLUMNS = ("excess", "anisotropy", "moved")
SAME = (0,) * 9


def swept(folder, ranks, moved=SAME):
    """One run per effective rank of J; run k spends 20 + k on every task, and moves 11 + moved."""
    for k, rank in enumerate(ranks):
        run = seeded(folder / f"run-{k}", k, 0.7)
        path = run / "result.json"
        result = json.loads(path.read_text())
        for phase in result["phases"]:
            phase["thermo"]["action"] = estimate(20.0 + k)
            phase["thermo"]["displacement_sq"] = estimate(11.0 + moved[k])
            phase["transport"]["effective_rank"] = estimate(rank)
        path.write_text(json.dumps(result))
        (run / "manifest.json").unlink(missing_ok=True)
    return capacity.compare(folder)


def test_a_run_s_numbers_are_the_means_over_its_tasks(tmp_path):
    made = swept(tmp_path, [4.0])
    (point,) = points(made.gathered)
    result = json.loads((tmp_path / "run-0" / "result.json").read_text())
    phase = result["phases"][0]
    # action 20, displacement 11, learning time 9
    assert point.excess == pytest.approx(20 - 11 / 9)
    assert point.anisotropy == pytest.approx(math.log(phase["transport"]["dimension"] / 4))
    assert link(points(made.gathered)).value is None
    assert sentence(made.gathered) == ""
    assert "fig-anisotropy" not in made.report(tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        ([9, 8, 7, 6, 5, 4, 3], "supported"),
        ([3, 4, 5, 6, 7, 8, 9], "refuted"),
        ([6, 9, 4, 8, 3, 7, 5], "undecided"),
    ],
)
def test_the_verdict_follows_the_interval(ranks, said, tmp_path):
    made = swept(tmp_path, ranks)
    assert verdict(link(points(made.gathered))) == said
    assert f"is {said}: rank correlation" in sentence(made.gathered)
    html = made.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'id="fig-anisotropy"' in html
    assert f"is {said}" in html


def test_a_run_with_a_task_that_lacks_a_number_is_no_point(tmp_path):
    swept(tmp_path, [4.0, 5.0])
    path = tmp_path / "run-1" / "result.json"
    result = json.loads(path.read_text())
    result["phases"][0]["transport"] = None
    path.write_text(json.dumps(result))
    assert [p.seed for p in points(capacity.compare(tmp_path).gathered)] == [0]


def test_what_goes_with_the_distance_alone_is_no_support(tmp_path):
    # Both rise with the distance moved, and what is left of them is unrelated, or opposed.
    ranks, moved = [9, 8, 7, 6, 5, 4, 3, 2], [0, 0.2, 0.1, 0.3, 0.5, 0.4, 0.6, 0.7]
    found = points(swept(tmp_path / "a", ranks, moved).gathered)
    assert plain(found).value == 1
    x, y, z = (stats.rankdata([getattr(p, n) for p in found]) for n in COLUMNS)
    rests = [v - np.polyval(np.polyfit(z, v, 1), z) for v in (x, y)]
    assert link(found).value == pytest.approx(np.corrcoef(*rests)[0, 1], abs=1e-9)
    tied = points(swept(tmp_path / "b", [9, 8, 6, 7, 5, 4, 3, 2], range(8)).gathered)
    assert plain(tied).value > 0.9
    assert link(tied).value is None
    assert verdict(link(tied)) == "undecided"
