"""The theory page and what cites it: every anchor is there, once, and every citation finds one."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGE = files("capacity").joinpath("theory.md").read_text(encoding="utf-8")
ANCHORS = re.findall(r'<a id="([^"]*)"></a>', PAGE)
CITED = re.compile(r"theory\.md#([\w-]*)")
SOURCES = [
    path
    for folder in ("capacity", "benchmarks", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path != Path(__file__)
]


def test_every_anchor_is_unique_and_stable():
    assert len(ANCHORS) > 40
    assert sorted(set(ANCHORS)) == sorted(ANCHORS)
    assert [a for a in ANCHORS if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", a)] == []


def test_every_citation_has_its_anchor():
    found = {path: set(CITED.findall(path.read_text(encoding="utf-8"))) for path in SOURCES}
    dangling = {
        f"{path.relative_to(ROOT)}: {anchor}"
        for path, anchors in found.items()
        for anchor in anchors - set(ANCHORS)
    }
    assert dangling == set()
    assert sum(map(len, found.values())) > 40


def test_links_inside_the_page_have_their_anchors():
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= set(ANCHORS)


def test_theory_is_cited_by_anchor_alone():
    # A number of a section says nothing to whoever has the package and not its history.
    by_number = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if re.search(r"\btheory\W{1,3}\s*sections?\s+\d", path.read_text(encoding="utf-8"))
    ]
    assert by_number == []


def test_readme_and_page_name_files_that_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count("(capacity/theory.md)") == 1
    named = re.findall(r"`((?:capacity|benchmarks|tests)/[\w/.]+)`", PAGE)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("mark", ["I", "II", "S", "B", "FR", "G"])
def test_every_mark_has_its_reference(mark):
    assert PAGE.count(f"\n- [{mark}] ") == 1


def test_papers_that_are_cited_for_the_theory_are_on_the_page():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"]
    assert len(cited) >= 4
    for paper in cited:
        number = paper["url"].rsplit("/", 1)[1]
        assert f"*{paper['title']}*" in " ".join(PAGE.split())
        assert f"arXiv {number}" in " ".join(PAGE.split())


def test_numbers_of_papers_in_the_code_are_on_the_page():
    in_code = {
        number
        for path in SOURCES
        if path.is_relative_to(ROOT / "capacity")
        for number in re.findall(r"arXiv\s+(\d{4}\.\d{5})", path.read_text(encoding="utf-8"))
    }
    assert {n for n in in_code if f"arXiv {n}" not in " ".join(PAGE.split())} == set()
