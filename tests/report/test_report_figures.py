"""Every chart draws from data that it has: no field is missing, no row is out of a log axis."""

from __future__ import annotations

import altair as alt
import pytest
from jsonschema import ValidationError

from capacity.report import charts
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


@pytest.mark.slow
def test_every_field_that_is_drawn_or_told_is_in_every_row(made):
    for figure in made:
        for layer in figure.spec["layer"]:
            fields = {c["field"] for c in _channels(layer) if "field" in c}
            for row in _rows(figure.spec, layer):
                assert fields <= row.keys(), (figure.id, fields - row.keys())


@pytest.mark.slow
def test_every_chart_of_a_page_is_one_that_vega_lite_knows(tmp_path):
    # Our configuration has no background, which only the library that draws knows.
    view = read(write(tmp_path / "run"))
    specs = [figure.spec | {"config": {}} for group in figures(view).values() for figure in group]
    assert len(specs) > 10
    for spec in specs:
        alt.LayerChart.validate(spec)
    with pytest.raises(ValidationError):
        alt.LayerChart.validate(specs[0] | {"layer": [{"mark": "unheard"}]})


@pytest.mark.slow
def test_logarithmic_axes_get_positive_numbers_only(made):
    for figure in made:
        for layer in figure.spec["layer"]:
            for channel in _channels(layer):
                if (channel.get("scale") or {}).get("type") != "log":
                    continue
                for row in _rows(figure.spec, layer):
                    assert row[channel["field"]] > 0, (figure.id, channel["field"])


@pytest.mark.slow
def test_layers_that_answer_the_pointer_have_something_to_say(made):
    for figure in made:
        assert any("tooltip" in layer.get("encoding", {}) for layer in figure.spec["layer"])


@pytest.mark.slow
def test_every_column_of_a_download_is_in_the_data(made):
    for figure in made:
        assert figure.csv, figure.id
        sources = [_rows(figure.spec, layer) for layer in figure.spec["layer"]]
        assert any(rows and figure.csv.keys() <= rows[0].keys() for rows in sources), figure.id


@pytest.mark.slow
def test_packed_rows_are_the_rows(made):
    def unpacked(part):
        if isinstance(part, list):
            return [unpacked(value) for value in part]
        if not isinstance(part, dict):
            return part
        if set(part) != {"packed"}:
            return {key: unpacked(value) for key, value in part.items()}
        columns = {
            name: column.get("plain") or [column["words"][k] for k in column["at"]]
            for name, column in part["packed"].items()
        }
        rows = zip(*columns.values(), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    for figure in made:
        assert unpacked(figure.script()["spec"]) == figure.spec


@pytest.mark.slow
def test_axes_that_the_zoom_moves_have_one_scale_per_channel(made):
    # The page gives every layer the same raw domain: layers with scales of their own would part.
    for figure in made:
        assert "resolve" not in figure.spec
        for layer in figure.spec["layer"]:
            for channel in ("x", "y"):
                assert (layer.get("encoding", {}).get(channel) or {}).get("scale", {}) is not None


def test_a_chart_is_changed_without_copying_its_rows():
    rows = charts.data([{"x": 1.23456789, "task": "a"}, {"x": 2.0, "task": "b"}])
    base = alt.Chart(rows).encode(x=alt.X("x:Q"), opacity=charts.dimmed("task"))
    chart = alt.layer(base.mark_point(), base.mark_rule()).add_params(charts.focus())
    assert chart.properties(height=9).data is rows
    made = charts.spec(chart, height=100)
    assert rows.to_dict()["values"][0] == {"x": 1.23457, "task": "a"}
    faded = alt.condition(
        "focus == null || datum['task'] == focus", alt.value(1.0), alt.value(0.12)
    )
    assert made["layer"][0]["encoding"]["opacity"] == faded
