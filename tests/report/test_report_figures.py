"""Every chart draws from data that it has: no field is missing, no row is out of a log axis."""

from __future__ import annotations

import pytest

from capacity.report.page import figures, read
from report.fabricated_run import CASES, write


@pytest.fixture(scope="module", params=CASES)
def made(request, tmp_path_factory):
    """The figures of one case."""
    view = read(write(tmp_path_factory.mktemp("run") / "run", request.param))
    return [figure for group in figures(view).values() for figure in group]


def _channels(layer):
    """All channel definitions of a layer; a tooltip is several."""
    for channel in layer.get("encoding", {}).values():
        yield from channel if isinstance(channel, list) else [channel]


def _rows(spec, layer):
    source = layer.get("data") or spec.get("data")
    return source["values"] if "values" in source else spec["datasets"][source["name"]]


def test_every_field_that_is_drawn_or_told_is_in_every_row(made):
    for figure in made:
        for layer in figure.spec["layer"]:
            fields = {c["field"] for c in _channels(layer) if "field" in c}
            for row in _rows(figure.spec, layer):
                assert fields <= row.keys(), (figure.id, fields - row.keys())


def test_logarithmic_axes_get_positive_numbers_only(made):
    for figure in made:
        for layer in figure.spec["layer"]:
            for channel in _channels(layer):
                if (channel.get("scale") or {}).get("type") != "log":
                    continue
                for row in _rows(figure.spec, layer):
                    assert row[channel["field"]] > 0, (figure.id, channel["field"])


def test_layers_that_answer_the_pointer_have_something_to_say(made):
    for figure in made:
        assert any("tooltip" in layer.get("encoding", {}) for layer in figure.spec["layer"])
