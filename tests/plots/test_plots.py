"""Figures for papers: those of the report as files, with the run's numbers and their keys."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

import capacity
from capacity.plots.drawing import _SHAPES, Drawing, NothingToDrawError
from capacity.report.charts import task_keys
from capacity.report.page import figures, read
from report.fabricated_run import CASES, HOSTILE, accuracy, write

DRAWN = [case for case in CASES if case != "stopped_early"]
OF_REPORT = {
    "fig-closure",
    "fig-production",
    "fig-curves",
    "fig-drop",
    "fig-inefficiency",
    "fig-matrix",
    "fig-parts",
    "fig-capacity",
    "fig-spectrum",
    "fig-strategies",
    "fig-thermo",
    "fig-volume",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {case: write(folder / case, case) for case in CASES}


def texts(svg):
    """What a picture says, piece by piece; that it is XML is part of it."""
    return [text for text in map(str.strip, ElementTree.fromstring(svg).itertext()) if text]


@pytest.mark.slow
@pytest.mark.parametrize("case", DRAWN)
def test_every_figure_is_that_of_the_report_and_is_drawn(case, runs):
    shown = {f.id: f for group in figures(read(runs[case])).values() for f in group}
    drawn = {}
    for name, draw in capacity.plots.FIGURES.items():
        try:
            drawn[name] = draw(runs[case])
        except NothingToDrawError:
            continue
        assert drawn[name].figure.spec == shown[drawn[name].figure.id].spec
        svg = drawn[name].svg()
        assert "var(" not in svg
        assert {key.label for key in drawn[name].figure.keys} <= set(texts(svg))
        assert HOSTILE not in svg
    missing = OF_REPORT & shown.keys() - {one.figure.id for one in drawn.values()}
    assert not missing
    assert "accuracy_matrix" in drawn


@pytest.mark.slow
def test_every_key_of_a_report_has_a_shape(runs):
    groups = [figures(read(runs[case])).values() for case in DRAWN]
    shapes = {key.shape for case in groups for group in case for f in group for key in f.keys}
    assert shapes <= _SHAPES.keys()
    assert len(shapes) > 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "begin"), [("pdf", b"%PDF-"), ("svg", b"<svg "), ("png", b"\x89PNG\r\n")]
)
def test_a_file_is_of_the_kind_that_its_ending_says(kind, begin, runs, tmp_path):
    drawing = capacity.plots.spectrum(runs["finished"])
    path = drawing.save(tmp_path / f"figure.{kind}")
    content = path.read_bytes()
    assert content.startswith(begin)
    assert len(content) > 3000
    assert drawing.save(tmp_path / f"again.{kind.upper()}").read_bytes()[:500] == content[:500]


@pytest.mark.slow
def test_a_picture_is_as_wide_as_it_is_asked_for(runs, tmp_path):
    drawing = capacity.plots.spectrum(capacity.open_run(runs["finished"]))
    assert drawing._repr_svg_() == drawing.svg()
    assert re.match(r'<svg [^>]*width="450"', drawing.svg())
    assert re.match(r'<svg [^>]*width="300"', drawing.svg(300))
    png = drawing.save(tmp_path / "figure.png", width=300).read_bytes()
    assert int.from_bytes(png[16:20], "big") == 3 * 300


@pytest.mark.slow
def test_a_long_key_is_wrapped_inside_the_picture(runs):
    svg = capacity.plots.spectrum(runs["finished"]).svg(300)
    places = re.findall(r'<g transform="translate\(([\d.]+),([\d.]+)\)"><', svg)
    assert len({y for _, y in places}) > 1
    assert all(float(x) < 300 for x, _ in places)


@pytest.mark.slow
def test_matrix_prints_the_runs_accuracies(runs):
    said = texts(capacity.plots.accuracy_matrix(runs["finished"]).svg())
    expected = [f"{100 * accuracy(i, j):.0f}" for i in range(3) for j in range(3)]
    assert [text for text in said if text in expected and len(text) == 2] == expected


@pytest.mark.slow
def test_many_tasks_take_a_ramp_of_their_own_colours(runs):
    figure = capacity.plots.spectrum(runs["finished"]).figure
    many = replace(figure, keys=task_keys([f"task {i}" for i in range(12)], "dot"))
    key = Drawing(many, 12).svg().split("</g></g>")[0]
    colors = re.findall(r'fill="(#[0-9a-f]{6})"/>', key)
    assert len(set(colors)) == 12
    assert (colors[0], colors[-1]) == ("#3b2f8f", "#c98a00")


@pytest.mark.parametrize(("run", "message"), [(3, "run is a int"), ("/nowhere", "not a run dir")])
def test_no_run_is_a_value_error(run, message):
    with pytest.raises(ValueError, match=message):
        capacity.plots.spectrum(run)


@pytest.mark.slow
def test_a_run_without_a_learned_task_is_a_value_error(runs):
    with pytest.raises(ValueError, match="learned no task"):
        capacity.plots.accuracy_matrix(runs["stopped_early"])


@pytest.mark.slow
def test_what_was_not_measured_is_a_value_error(runs):
    with pytest.raises(ValueError, match="did not measure what this figure shows"):
        capacity.plots.closure_curves(runs["one_task"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["figure.jpg", "figure", "pdf"])
def test_another_ending_is_refused(name, runs, tmp_path):
    with pytest.raises(ValueError, match=r"no known ending; accepted: \.pdf, \.svg, \.png"):
        capacity.plots.spectrum(runs["finished"]).save(tmp_path / name)


@pytest.mark.slow
def test_a_file_that_cannot_be_written_is_a_value_error(runs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        capacity.plots.spectrum(runs["finished"]).save(tmp_path / "file" / "figure.svg")


@pytest.mark.slow
def test_a_run_draws_its_figures_by_name(runs, tmp_path):
    run = capacity.open_run(runs["finished"])
    assert len(capacity.plots.NAMES) == len(capacity.plots.FIGURES)
    drawing = run.figure("forecast")
    assert drawing.figure.id == "fig-drop"
    assert drawing.save(tmp_path / "forecast.svg").read_text().startswith("<svg ")
    with pytest.raises(ValueError, match=r"name = 'forecasts' is not known.*accepted: accuracy"):
        run.figure("forecasts")
    with pytest.raises(NothingToDrawError, match="did not measure"):
        capacity.open_run(runs["one_task"]).figure("forecast")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accuracy", "curves", "spectrum", "strategies"])
def test_a_figure_is_an_altair_chart_with_colours_of_its_own(name, runs):
    drawing = capacity.open_run(runs["finished"]).figure(name)
    chart = drawing.altair
    said = chart.to_json()
    assert "var(" not in said
    assert len(chart.layer) == len(drawing.figure.spec["layer"])
