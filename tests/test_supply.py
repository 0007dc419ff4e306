"""What the package says about itself and its dependencies agrees, wherever it says it."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
import torch
import yaml

import capacity
from capacity.base.distribution import DISTRIBUTION, install
from capacity.exporters.export import TRACKERS
from capacity.runs.environment import describe

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXTRAS = PROJECT["project"]["optional-dependencies"]

# How metadata spell a licence: as an SPDX name, in words, or as a classifier.
SPELLINGS = {
    "Apache-2.0": r"Apache",
    "BSD-3-Clause": r"BSD",
    "MIT": r"\bMIT\b",
    "MIT-0": r"MIT-0",
    "MPL-2.0": r"MPL-2\.0",
    "PSF-2.0": r"PSF-2\.0|Python Software Foundation",
    "Matplotlib": r"matplotlib",
}


def direct() -> dict[str, str]:
    """Every requirement that pyproject.toml names, by the name of its distribution."""
    asked = [
        *PROJECT["build-system"]["requires"],
        *PROJECT["project"]["dependencies"],
        *(one for extra in EXTRAS.values() for one in extra),
    ]
    split = [re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?(?:>=([\w.]+))?", one) for one in asked]
    assert all(split), asked
    bounds = {found[1]: found[2] or "" for found in split if found}
    bounds.pop(DISTRIBUTION)
    return bounds


def bill() -> dict[str, tuple[str, str]]:
    """The table of DEPENDENCIES.md: bound and licence by distribution."""
    text = (ROOT / "DEPENDENCIES.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w.-]+) \| ([\w.]*) \| ([^|]+) \| [^|]+ \|$", text, flags=re.M)
    return {name: (bound, licence) for name, bound, licence in rows if name != "Package"}


def test_bill_names_every_direct_dependency_with_its_bound():
    assert {name: bound for name, (bound, _) in bill().items()} == direct()


@pytest.mark.parametrize("name", bill())
def test_bill_gives_the_licence_of_what_is_installed(name):
    try:
        found = metadata(name)
    except PackageNotFoundError:
        pytest.skip("not installed here")
    said = " ".join([
        found.get("License-Expression") or "",
        (found.get("License") or "")[:200],
        *(c for c in found.get_all("Classifier", []) if c.startswith("License")),
    ])
    for licence in bill()[name][1].split(" AND "):
        assert re.search(SPELLINGS[licence], said), said


@pytest.mark.parametrize("bound", ["torch>=2.10", "jinja2>=3.1.6", "duckdb>=1.4.2"])
def test_bounds_stay_above_known_holes(bound):
    def version(text):
        return [int(part) for part in text.split(".")]

    name, least = bound.split(">=")
    assert version(direct()[name]) >= version(least)


def test_one_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    logged = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    quoted = re.search(r"version = \{([\d.]+)\}", README)
    assert cited["version"] == PROJECT["project"]["version"] == capacity.__version__
    assert logged[1] == quoted[1] == capacity.__version__


def test_one_licence():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    text = (ROOT / PROJECT["project"]["license-files"][0]).read_text(encoding="utf-8")
    assert text.startswith(f"{PROJECT['project']['license']} License")
    assert cited["license"] == PROJECT["project"]["license"]
    assert f"under the {PROJECT['project']['license']} licence" in README


def test_one_name():
    assert PROJECT["project"]["name"] == DISTRIBUTION
    others = re.compile(r"(?<![\w-])capacity\[(\w+)\]")
    for path in [*(ROOT / "capacity").rglob("*.py"), ROOT / "README.md", ROOT / "pyproject.toml"]:
        named = [
            part for part in others.findall(path.read_text(encoding="utf-8")) if part in EXTRAS
        ]
        assert not named, f"{path} names extras of another project's distribution"


def test_messages_name_extras_that_exist():
    source = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "capacity").rglob("*.py"))
    named = {*re.findall(r"\binstall\('(\w+)'\)", source), *TRACKERS}
    assert {"wandb", "mlflow"} <= named <= set(EXTRAS)
    assert install("mlflow") == "pip install 'continual-capacity[mlflow]'"


def test_hooks_before_a_commit_are_what_ci_checks():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    checks = re.findall(r"^(\.venv/bin/(?:ruff|mypy).*)$", script, flags=re.MULTILINE)
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    assert [hook["entry"] for hook in hooks] == checks
    assert {(hook["language"], hook["pass_filenames"]) for hook in hooks} == {("system", False)}


def test_a_run_writes_down_the_version_of_this_code_not_of_a_distribution_of_that_name():
    assert describe(torch.device("cpu"))["packages"]["capacity"] == capacity.__version__
