"""The scores behind `benchmarks/forecast/criterion.py`, and the table that they made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from forecast.criterion_scores import (
    FORGETS,
    MEASURES,
    auroc,
    balanced_accuracy,
    best_threshold,
    bootstrap,
    coverage_stretch,
    drops,
    halves,
    rank_correlation,
    scores,
)
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

RESULTS = Path(__file__).parents[2] / "benchmarks" / "forecast" / "results"


def test_auroc_and_ranks_against_libraries():
    source = np.random.default_rng(0)
    score = source.integers(8, size=60).astype(float)  # with ties
    drop = score / 8 + source.standard_normal(60)
    positive = drop > 0.3
    assert auroc(score, positive) == pytest.approx(roc_auc_score(positive, score))
    assert auroc(-score, positive) == pytest.approx(1 - roc_auc_score(positive, score))
    assert rank_correlation(score, drop) == pytest.approx(stats.spearmanr(score, drop).statistic)
    assert balanced_accuracy(score > 4, positive) == pytest.approx(
        balanced_accuracy_score(positive, score > 4)
    )
    assert np.isnan(auroc(score, positive | True))
    assert np.isnan(rank_correlation(np.ones(60), drop))


def test_threshold_lies_in_the_middle_of_the_gap():
    score = np.array([0.0, 0.1, 0.2, 0.6, 0.9])
    positive = np.array([False, False, False, True, True])
    assert best_threshold(score, positive) == pytest.approx(0.4)
    assert best_threshold(np.append(score, -np.inf), np.append(positive, False)) == 0.4


def test_stretch_holds_the_share():
    off = np.random.default_rng(1).standard_normal(2000)
    assert coverage_stretch(off, np.ones(2000)) == pytest.approx(1.645, abs=0.1)
    assert coverage_stretch(2 * off, np.ones(2000)) == pytest.approx(3.29, abs=0.2)
    made = coverage_stretch(off, np.ones(2000))
    assert (np.abs(off) <= made).mean() >= 0.9


def test_halves_divide_every_family_and_hang_on_names_alone():
    families = {f"{kind} {k}": kind for kind in ("a", "b") for k in range(7)}
    made = halves(families)
    assert made == halves(dict(reversed(families.items())))
    for kind in ("a", "b"):
        part = [made[name] for name in families if families[name] == kind]
        assert abs(part.count("choose") - part.count("report")) == 1
    assert abs(list(made.values()).count("choose") - 7) == 0


def test_bootstrap_draws_whole_streams():
    # Ten copies of each of four cells are four independent ones, not forty.
    values = np.repeat([0.0, 1.0, 2.0, 3.0], 10)
    cells = [{"stream": str(v)} for v in values]
    low, high = bootstrap(cells, lambda i: float(values[i].mean()))
    assert high - low > 1.5


def test_the_committed_table_follows_from_the_committed_cells():
    record = json.loads((RESULTS / "criterion.json").read_text())
    cells = [dict(zip(record["columns"], row, strict=True)) for row in record["rows"]]
    assert len(cells) >= 150
    assert len({cell["stream"] for cell in cells if cell["family"] == "sequence"}) >= 3
    part = halves({cell["stream"]: cell["family"] for cell in cells})
    held = [cell for cell in cells if part[cell["stream"]] == "report"]
    choosing = [cell for cell in cells if part[cell["stream"]] == "choose"]
    text = (RESULTS / "criterion.txt").read_text().splitlines()
    for measure in MEASURES:
        (line,) = (line for line in text if line.startswith(f"{measure.key:<14}{measure.form}"))
        for half, place in ((choosing, 0), (held, 1)):
            area = auroc(scores(half, measure), drops(half) > FORGETS)
            shown = float(line[30:].split()[place])
            assert area == pytest.approx(shown, abs=6e-4), (measure.key, place)
    forgot = drops(choosing) > FORGETS
    lost = next(measure for measure in MEASURES if measure.key == "lost")
    assert record["chosen"]["thresholds"]["lost"] == best_threshold(scores(choosing, lost), forgot)
