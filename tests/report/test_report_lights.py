"""Traffic lights: lit only where the whole interval is on one side, and never by colour alone."""

from __future__ import annotations

import pytest

from capacity.records.estimate import Estimate, Status, not_defined
from capacity.report.page import read
from capacity.report.transition_lights import FORGETS, judged, light_table, threshold
from report.fabricated_run import write


@pytest.mark.parametrize(
    ("found", "color", "word"),
    [
        (Estimate(value=0.1, interval=(0.06, 0.2)), "bad", "forgets"),
        (Estimate(value=0.01, interval=(-0.01, 0.04)), "good", "keeps"),
        (Estimate(value=0.1, interval=(0.04, 0.2)), "warn", "undecided"),
        (Estimate(value=0.01, interval=(-0.1, 0.06)), "warn", "undecided"),
        (Estimate(value=0.2), "bad", "forgets, spread not known"),
        (Estimate(value=0.2, interval=(0.1, 0.3), status=Status.NOT_RESOLVED), "warn", "undecided"),
        (not_defined("why"), "off", "no value"),
        (None, "off", "no value"),
    ],
)
def test_a_light_needs_the_whole_interval(found, color, word):
    light = judged(found, FORGETS)
    assert (light.color, light.word) == (color, word)


def test_without_a_threshold_no_light_is_lit():
    assert judged(Estimate(value=9.0, interval=(8.0, 10.0)), None).color == "off"


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    for case in ("finished", "refusals", "regression", "diverged", "one_replica"):
        view = read(write(folder / case, case))
        made[case] = (view, light_table(view))
    return made


def test_the_table_holds_criterion_forecast_measurement_and_strategy(tables):
    view, table = tables["finished"]
    assert threshold(view) == FORGETS
    first, second = table.rows
    # 14 points were forecast and 12 came, each with an interval of two points up and down.
    assert [entry.light for entry in first] == ["", "bad", "bad", "", "bad", ""]
    assert first[4].small == "forgets; threshold 5.0"
    assert (first[1].text, first[1].small) == ("14.0", "forgets; 12.0 to 16.0")
    assert first[3].text == "yes"
    assert (first[5].text, first[5].small) == ("replay: 90 %", "plain training: 70 %")
    assert second[5].text == "EWC, strength = 100.0: 90 %"
    assert "5.0 points" in table.remark
    for shape in "\u25b2\u25cf\u25c6\u25cb":
        assert shape in table.remark


def test_every_light_has_a_word(tables):
    for _, table in tables.values():
        for row in table.rows:
            for entry in row:
                if entry.light:
                    assert entry.small or entry.text.isascii(), entry


def test_what_is_missing_is_not_lit(tables):
    _, table = tables["refusals"]
    assert [entry.light for entry in table.rows[1]][1:5] == ["off", "bad", "", "off"]
    assert table.rows[1][1].text == "not forecast"
    _, table = tables["diverged"]
    assert table.rows[0][2].text == "diverged"
    assert table.rows[0][2].light == "off"


def test_regression_goes_by_the_criterions_threshold(tables):
    view, table = tables["regression"]
    assert threshold(view) == 0.05
    assert "points" not in " ".join([table.remark, *table.columns])
    assert table.rows[0][1].light == "bad"


def test_one_network_says_that_its_spread_is_not_known(tables):
    _, table = tables["one_replica"]
    assert table.rows[0][2].small.endswith("spread not known")
