"""The script that holds a long report against its goals: its table can say no."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from capacity.recipe import config

PAGE = Path(__file__).parents[2] / "benchmarks" / "report" / "page.py"


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("report_page", PAGE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_recipe_is_valid_and_long(page):
    recipe = config.load(page.RECIPE)
    assert recipe.tasks.experiences == 20
    assert recipe.measure.strategies
    assert recipe.measure.composed_spectrum


def test_a_line_says_reached_missed_or_not_checked(page):
    assert page.line("goal", "1 MB", True).endswith(" reached")
    assert page.line("goal", "9 MB", False).endswith("NOT reached")
    assert page.line("goal", "no axe", None).endswith("not checked")


def test_axe_is_found_where_it_was_named_or_asked_for(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    assert page.find_axe(None, said.append) is None
    assert said == []
    page.find_axe("nowhere.js", said.append)
    assert "npm install axe-core" in said[0]
    place = tmp_path / "node_modules" / "axe-core" / "axe.min.js"
    place.parent.mkdir(parents=True)
    place.write_text("")
    assert page.find_axe(None, said.append) == Path("node_modules/axe-core/axe.min.js")
