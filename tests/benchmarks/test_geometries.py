"""The table of optimisers, geometries and strategies at toy size."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "thermo"))

from geometries import learned


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "strategy", "known"),
    [
        ("mirror, hypentropy", "replay", True),
        ("belief, information", "fisher_rao", True),
        ("underdamped", "naive", False),
    ],
)
def test_a_cell_has_its_scores_and_its_efficiency_where_it_is_defined(method, strategy, known):
    made = learned("permuted-digits", method, strategy, epochs=1, samples=60)
    assert 0 <= made.accuracy <= 1
    assert -1 <= made.forgotten <= 1
    assert (made.efficiency is not None) is known
    if "mirror" in method:  # of a path it is at most 1; a belief's short epoch need be no flow
        assert 0 < made.efficiency <= 1
