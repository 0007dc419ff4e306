"""Methods by name: the package's, a user's, an installed package's."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from capacity.base import registry as home
from capacity.base.registry import Registry


@pytest.fixture
def registry(monkeypatch):
    point = EntryPoint("theirs", "fractions:Fraction", "some.methods")
    monkeypatch.setattr(home, "entry_points", lambda *, group: [point] * (group == "some.methods"))
    return Registry("kind", "some.methods", {"ours": "decimal:Decimal"})


def test_three_sources_and_their_order(registry):
    registry.register("mine", dict)
    assert registry.names() == ["ours", "mine", "theirs"]
    loaded = [registry.load(name).__name__ for name in registry.names()]
    assert loaded == ["Decimal", "dict", "Fraction"]
    registry.register("mine", list)
    assert registry.load("mine") is list


def test_an_unknown_name_and_a_taken_one_are_refused(registry):
    with pytest.raises(
        ValueError, match="kind = 'their' is not known; accepted: ours, theirs; did"
    ):
        registry.load("their")
    with pytest.raises(ValueError, match="name = 'ours' is the package's own"):
        registry.register("ours", dict)
    with pytest.raises(ValueError, match="name = '' is none"):
        registry.register("", dict)
