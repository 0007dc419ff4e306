"""The table of optimisers, geometries and strategies at toy size."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "thermo"))

import geometries_page
from geometries import learned
from geometries_page import Row, said


def test_the_sentences_follow_from_the_table(tmp_path):
    rows = [
        Row("sgd", "naive", 0.2, 0.9, 0.9, 0.1, 1.0),
        Row("sgd", "replay", 0.8, 0.9, 0.1, 0.1, 1.0),
        Row("adam", "naive", 0.3, 0.9, 0.8, 0.5, 1.0),
        Row("mirror", "naive", 0.4, 0.9, 0.7, 0.6, 1.0),
        Row("momentum", "naive", 0.4, 0.45, 0.7, 0.05, 1.0),
        Row("sgld", "naive", 0.1, 0.9, 0.6, None, 1.0),
    ]
    best, spread, rank = said(rows)
    assert best == "Best at the end: sgd with replay, 0.800."
    assert "5 methods forget amounts that lie 0.30 apart" in spread
    assert "adds up to 0.60" in spread
    assert "over 4 methods: Spearman -1.00 (p = 0.00), so a cheaper way forgets less" in rank


def test_the_page_is_drawn_from_the_committed_record(tmp_path):
    geometries_page.write(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == geometries_page.PAGE.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "strategy", "known"),
    [
        ("mirror, hypentropy", "replay", True),
        ("belief, information", "naive", True),
        ("belief, information", "fisher_rao", False),
        ("underdamped", "naive", False),
        ("natural, diagonal", "ewc", False),
    ],
)
def test_a_cell_has_its_scores_and_its_efficiency_where_it_is_defined(method, strategy, known):
    made = learned("permuted-digits", method, strategy, epochs=1, samples=60)
    assert 0 <= made.accuracy <= 1
    assert -1 <= made.forgotten <= 1
    assert (made.efficiency is not None) is known
    if "mirror" in method:  # of a path it is at most 1; a belief's short epoch need be no flow
        assert 0 < made.efficiency <= 1
