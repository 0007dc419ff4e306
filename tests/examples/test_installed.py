"""A package of one's own is found where it is installed, by its entry points alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ENTRY_POINTS = """
[capacity.optimizers]
lion = examples.test_lion:Lion

[capacity.tasks]
moons = examples.source_of_moons:SOURCE

[capacity.predictors]
conflict = examples.gradient_conflict:GRADIENT_CONFLICT

[capacity.report.sections]
sizes = examples.section_of_sizes:SECTION
broken = no_such_module:SECTION
"""
ASK = """
import json
from capacity.base.registry import registry_of
from capacity.predictors.registry import run_controls
from capacity.report.sections import SECTIONS
from capacity.tasks.sources import REGISTRY as SOURCES

print(json.dumps({
    "optimizers": registry_of("capacity.optimizers").names(),
    "sources": SOURCES.names(),
    "controls": run_controls(),
    "sections": [section.anchor for section in SECTIONS],
}))
"""


def asked(tmp_path, entry_points):
    installed = tmp_path / "mine-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(entry_points)
    paths = [str(tmp_path), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    made = subprocess.run(
        [sys.executable, "-c", ASK],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(made.stdout), made.stderr


@pytest.mark.slow
def test_everything_that_it_brings_is_known_and_what_is_broken_is_named(tmp_path):
    known, said = asked(tmp_path, ENTRY_POINTS)
    assert "lion" in known["optimizers"]
    assert "moons" in known["sources"]
    assert "gradient_conflict" in known["controls"]
    assert known["sections"][-3:] == ["sizes", "reproduce", "methods"]
    assert "broken = 'no_such_module:SECTION' of the group capacity.report.sections is left" in said


@pytest.mark.slow
def test_nothing_is_known_without_it(tmp_path):
    known, said = asked(tmp_path, "")
    assert not {"lion", "moons"} & {*known["optimizers"], *known["sources"]}
    assert "gradient_conflict" not in known["controls"]
    assert "sizes" not in known["sections"]
    assert "entry point" not in said
