"""The examples of README and guide run as they stand, and stay short; links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
ROOT = README.parent
PAGES = [README, *(ROOT / "capacity" / f"{n}.md" for n in ("guide", "how_to_read", "networks"))]
EXAMPLES = [
    example
    for page in PAGES
    for example in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
]


def test_there_is_one_per_entry_point():
    for call in ("capacity.run(", "capacity.forecast(", "capacity.TransportTracker("):
        assert sum(call in example for example in EXAMPLES) == 1


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example_runs(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sum(bool(line.strip()) for line in example.splitlines()) < 10
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.strip(), "every example shows a result"
    assert "None" not in printed


def test_it_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    here = [link for link in links if not link.startswith("http")]
    assert here
    assert [link for link in here if not (page.parent / link).exists()] == []


def test_two_commands_come_first():
    blocks = re.findall(
        r"<!-- (\w+) -->\n```bash\n(.*?)```", README.read_text(encoding="utf-8"), re.S
    )
    assert [name for name, _ in blocks] == ["run", "test"]
    for _, command in blocks:
        assert command.count("\n") == 1, "one line to copy"
