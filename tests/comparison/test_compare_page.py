"""The page of a comparison holds what the report's page holds: words, figures, nothing foreign."""

from __future__ import annotations

import re

import pytest

import capacity
from report.fabricated_run import HOSTILE
from report.fabricated_runs import seeded, two_variants
from report.test_report_chromium import browser as browser
from report.test_report_chromium import visit as visit
from report.test_report_contract import MOST_BYTES, Page, policy_holes


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = two_variants(tmp_path_factory.mktemp("many"))
    hostile = {"training": {"strategy": {"name": "freeze", "parameters": [HOSTILE]}}}
    for seed in (0, 1):
        seeded(folder / f"hostile-{seed}", seed, 0.5 + 0.1 * seed, **hostile, name=HOSTILE)
    return capacity.compare(folder).report(folder / "page.html")


@pytest.fixture(scope="module")
def source(path):
    return path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_page_is_one_small_file_with_unique_ids_and_links_that_lead_somewhere(source):
    page = Page(source)
    assert len(source.encode()) <= MOST_BYTES
    ids = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.tags:
        assert not (tag in {"script", "img", "iframe", "source"} and attributes.get("src"))
        target = attributes.get("href") or ""
        assert tag != "a" or not target.startswith("#") or target[1:] in ids


@pytest.mark.slow
def test_policy_lets_the_page_s_own_scripts_and_styles_run_and_nothing_else(source):
    assert policy_holes(source) == []


@pytest.mark.slow
def test_text_from_outside_appears_as_text(source):
    page = Page(source)
    assert HOSTILE not in source
    assert "document.title='owned'" in page.text
    assert not [a for _, a in page.tags if any(key.startswith("on") for key in a)]
    assert not [s for s in page.scripts if "document.title='owned'" in s]


@pytest.mark.slow
def test_every_figure_has_words_and_numbers_of_its_own(source):
    figures = re.findall(r"<figure.*?</figure>", source, re.DOTALL)
    assert len(figures) == 8
    for figure in figures:
        assert "<svg" in figure
        assert "<figcaption" in figure
        assert re.search(r"<details.*<table", figure, re.DOTALL)


@pytest.mark.slow
def test_page_says_what_differs_who_is_best_and_what_is_left_out(source):
    text = Page(source).text
    assert "ewc ends best" in text
    assert "training.strategy.name" in text
    assert "3 of 10 runs enter no mean: 1 diverged, 2 interrupted" in text or (
        "3 of 10 runs enter no mean: 2 interrupted, 1 diverged" in text
    )
    assert not re.findall(r"\b(NaN|nan|None|undefined|Infinity|inf)\b", text)


@pytest.mark.slow
def test_page_in_a_browser_is_silent_and_fits_a_phone(visit, path):
    page, requests, heard = visit(path, 390)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    figures = page.locator("figure").all()
    assert len(figures) >= 7
    for figure in figures:
        figure.scroll_into_view_if_needed()
        figure.locator(".live svg").wait_for()
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert requests == [path.as_uri()]
    assert heard == []
