"""The committed pages of the gallery: each lets its own parts run and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from report.test_report_contract import policy_holes

REPORTS = Path(__file__).parents[2] / "reports"
PAGES = sorted(path.name for path in REPORTS.glob("*.html") if path.name != "index.html")
OLDER = pytest.mark.xfail(
    strict=True, reason="its study takes half an hour of a core to measure anew"
)
"""Of a page that an earlier version wrote; the mark goes when it is built again."""


def test_the_gallery_holds_the_pages_that_its_index_names():
    index = (REPORTS / "index.html").read_text(encoding="utf-8")
    assert "mixed-digits.html" in PAGES
    assert [name for name in PAGES if f'href="{name}"' not in index] == []


@pytest.mark.parametrize(
    "name",
    [pytest.param(p, marks=OLDER) if p == "training-jacobian.html" else p for p in PAGES],
)
def test_a_page_of_the_gallery_has_a_policy_without_holes(name):
    source = (REPORTS / name).read_text(encoding="utf-8")
    assert policy_holes(source) == []
    assert policy_holes(source.replace("<style>", "<style> ", 1))
