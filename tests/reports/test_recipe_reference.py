"""The recipe reference says what the classes say now, of every field."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

REPORTS = Path(__file__).parents[2] / "reports"


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.syspath_prepend(str(REPORTS))
    monkeypatch.delitem(sys.modules, "recipe_reference", raising=False)
    import recipe_reference

    return recipe_reference


def test_the_committed_page_is_what_the_classes_say(reference):
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), (
        "run: python reports/recipe_reference.py"
    )


def test_every_field_has_a_row_with_its_default_and_a_meaning(reference):
    said = reference.page()
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.*?) \|$", said, re.MULTILINE)
    for section in (*reference.SECTIONS.values(), *reference._strategies()):
        names = [name for name, *_ in rows]
        assert set(section.model_fields) <= set(names), section.__name__
    assert [row for row in rows if not all(part.strip() for part in row)] == []
    assert ("lr", "`0.1`", "number, above 0") in [row[:3] for row in rows]
    assert ("memory", "`200`", "whole number, at least 1") in [row[:3] for row in rows]


def test_a_field_that_nobody_explains_is_an_error(reference):
    class Silent(reference.Section):
        quiet: int = 1

    with pytest.raises(ValueError, match="'quiet'"):
        reference._table(Silent)
