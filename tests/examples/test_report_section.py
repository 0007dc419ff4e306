"""A section of one's own is one file, `section_of_sizes`, and one line."""

from __future__ import annotations

import re

import pytest

from capacity.report import render
from capacity.report.sections import SECTIONS, Section, register
from examples.section_of_sizes import SECTION
from report.fabricated_run import HOSTILE, write
from report.test_report_contract import Page, policy_holes


@pytest.fixture
def registered():
    register(SECTION, before="methods")
    yield
    SECTIONS.remove(SECTION)


@pytest.fixture
def run(tmp_path):
    return write(tmp_path / "run", "one_task", name=HOSTILE)


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
def test_it_stands_in_the_page_and_in_its_contents(run):
    source = render(run).read_text(encoding="utf-8")
    contents = re.findall(r'<li><a href="#([a-z]+)">([^<]+)</a></li>', source)
    assert [anchor for anchor, _ in contents][-3:-1] == ["sizes", "methods"]
    assert ("sizes", "Samples &lt;per task&gt;") in contents
    section = re.search(r'<section id="sizes".*?</section>', source, re.DOTALL)[0]
    assert "100 samples in all." in section
    assert '<figure id="fig-sizes"' in section
    assert "<svg" in section


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
def test_its_text_is_escaped_and_the_policy_of_the_page_is_the_same(run):
    source = render(run).read_text(encoding="utf-8")
    assert HOSTILE not in source
    assert "document.title='owned'" in Page(source).text
    assert policy_holes(source) == []


@pytest.mark.usefixtures("registered")
def test_where_it_has_nothing_to_show_it_is_left_out(tmp_path):
    source = render(write(tmp_path / "run", "stopped_early")).read_text(encoding="utf-8")
    assert "sizes" not in source


def test_a_page_takes_a_list_of_its_own(run):
    source = render(run, sections=[*SECTIONS[:1], SECTION]).read_text(encoding="utf-8")
    assert re.findall(r'<section id="([a-z]+)"', source) == ["verdict", "sizes", "glossary"]
    assert SECTION not in SECTIONS


@pytest.mark.parametrize("anchor", ["", "Sizes", "two words", '"><script>'])
def test_an_anchor_that_is_no_id_is_refused(anchor):
    with pytest.raises(ValueError, match="is no id; give small letters"):
        Section(anchor, "Title", lambda _: [])


def test_a_place_that_is_taken_or_unknown_is_refused():
    with pytest.raises(ValueError, match="anchor = 'methods' is taken"):
        register(Section("methods", "Title", lambda _: []))
    with pytest.raises(ValueError, match="before = 'end' is no section; accepted: verdict, acc"):
        register(SECTION, before="end")
    assert SECTION not in SECTIONS


def test_what_no_page_shows_is_refused_by_the_name_of_its_section(run):
    wrong = Section("wrong", "Wrong", lambda _: ["text", 3])
    with pytest.raises(ValueError, match="section 'wrong' gives a int; accepted: str, Heading"):
        render(run, sections=[wrong])
