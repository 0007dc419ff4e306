"""Numbers and footnotes of the report, against what a person would write by hand."""

from __future__ import annotations

import json

import pytest

from capacity.records.estimate import Estimate, Status, not_defined
from capacity.records.number_format import Cell, cell, correlation
from capacity.records.numbers import number, with_error, with_interval
from capacity.report import render
from capacity.report.tables import Table
from report.fabricated_run import estimate, write


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("inf"), "–"),
        (0.0, "0"),
        (0.0512, "0.0512"),
        (-4.256, "−4.26"),
        (1234.5, "1234"),
        (3.2e9, "3.20 × 10⁹"),
        (-4.1e-5, "−4.10 × 10⁻⁵"),
    ],
)
def test_numbers_keep_three_digits(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (96.4321, 0.31, "96.4 ± 0.3"),
        (96.4321, 0.131, "96.43 ± 0.13"),
        (11144.2, 62.0, "11\u202f140 ± 60"),
        (-484.1, 22.6, "−484 ± 23"),
        (0.004, 0.2, "0.00 ± 0.20"),
        (1.45e7, 1.8e6, "(1.45 ± 0.18) × 10⁷"),
        (25.0, 0.0, "25.0"),
        (0.0, 0.0, "0"),
    ],
)
def test_digits_follow_the_error(value, stderr, text):
    assert with_error(value, stderr) == text


def test_intervals_are_cut_at_what_is_possible():
    assert with_interval(80.4, (25.5, 135.4), (0.0, 100.0)) == "80 (30 to 100)"
    assert with_interval(31.2, (24.1, 38.3)) == "31 (24 to 38)"


def test_an_interval_that_reads_like_its_value_is_not_printed():
    assert with_interval(100.0, (100.0, 100.0)) == "100"
    assert with_interval(32.9, (32.8999, 32.9001)) == "32.90"
    assert with_interval(100.0, (99.0, 101.0), (0.0, 100.0)) == "100.0 (99.0 to 100.0)"


def test_a_correlation_has_two_decimals():
    made = Estimate(value=0.951, interval=(0.8359, 1.2), status=Status.UNCALIBRATED)
    assert correlation(made) == "0.95 (0.84 to 1.00)"
    assert correlation(not_defined("why")) == "–"


def test_a_missing_value_keeps_its_status_and_note():
    entry = cell(not_defined("Momentum has no volume."))
    assert (entry.text, entry.status, entry.note) == ("–", "not defined", "Momentum has no volume.")


def test_notes_that_differ_in_a_number_are_one_footnote():
    notes = [
        "34 of 460 steps fold.",
        "142 of 460 steps fold.",
        "Another thing.",
        "65 of 460 steps fold.",
    ]
    rows = [(Cell(str(k), note=note),) for k, note in enumerate(notes)]
    table = Table(caption="", columns=("value",), rows=rows)
    assert table.notes == [("†", "34 to 142 of 460 steps fold."), ("‡", "Another thing.")]
    assert [table.mark(row[0]) for row in rows] == ["†", "†", "‡", "†"]
    assert table.mark(Cell("plain")) == ""


def test_a_footnote_of_several_numbers_is_a_sentence():
    notes = [
        "Of |H|: 50 % is negative; the trace over its norm is 0.649 \u00b1 2.4.",
        "Of |H|: 51 % is negative; the trace over its norm is \u22120.564 \u00b1 3.1.",
    ]
    table = Table(caption="", columns=("a",), rows=[(Cell("1", note=note),) for note in notes])
    said = "Of |H|: 50 to 51 % is negative; the trace over its norm is \u22120.564 to 0.649."
    assert table.notes == [("†", said)]
    alone = Table(caption="", columns=("a",), rows=[(Cell("1", note=notes[0]),)])
    assert alone.notes == [("†", notes[0])]
    same = ["W2 of task 2-3 after step 7.", "W2 of task 2-3 after step 9."]
    table = Table(caption="", columns=("a",), rows=[(Cell("1", note=note),) for note in same])
    assert table.notes == [("†", "W2 of task 2-3 after step 7 to 9.")]


def test_the_same_note_under_two_statuses_is_two_footnotes():
    rows = [(Cell("1", note="Why."), Cell("2", status="not resolved", note="Why."))]
    table = Table(caption="", columns=("a", "b"), rows=rows)
    assert table.notes == [("†", "Why."), ("‡", "Not resolved: Why.")]


def test_a_page_says_how_long_a_task_is_trained_and_what_comes_first(tmp_path):
    training = {"max_steps": 60, "curriculum": "hard"}
    page = render(write(tmp_path / "run", training=training)).read_text(encoding="utf-8")
    assert "60 steps per task, hard samples first" in page
    assert "10 epochs per task" not in page


def test_what_not_to_trust_has_words_for_the_distance_from_the_gibbs_law(tmp_path):
    path = write(tmp_path / "run") / "result.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    doubted = {
        f"gibbs_{end}": estimate(40.0, 1.0, "uncalibrated", "A bound.")
        for end in ("before", "after")
    }
    result["phases"][0]["thermo"] |= doubted
    path.write_text(json.dumps(result), encoding="utf-8")
    page = render(path.parent).read_text(encoding="utf-8")
    assert " from the Gibbs law)." in page
    assert "gibbs before" not in page
