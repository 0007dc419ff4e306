"""Many runs as tables: every number of the files, one question at a time, bad questions named."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import duckdb
import pytest

import capacity
from capacity.recipe import config
from capacity.results.query import TABLES
from capacity.runs.directory import RunDirectory
from report.fabricated_run import accuracy, write
from report.fabricated_runs import seeded, two_variants


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return two_variants(tmp_path_factory.mktemp("many"))


@pytest.fixture(scope="module")
def tables(runs):
    return capacity.load_runs(runs)


@pytest.mark.slow
def test_runs_hold_one_row_per_run_whatever_its_state(tables):
    asked = "SELECT status, count(*) FROM runs GROUP BY status ORDER BY status"
    assert tables.query(asked).rows == [("diverged", 1), ("finished", 5), ("interrupted", 2)]


@pytest.mark.slow
def test_means_over_seeds_are_one_query(tables):
    asked = """SELECT strategy, count(*), avg(accuracy), fields['training.strategy.strength']
               FROM runs WHERE status = 'finished' GROUP BY ALL ORDER BY strategy"""
    assert tables.query(asked).rows == [
        ("ewc", 2, pytest.approx(0.915), "10.0"),
        ("naive", 3, pytest.approx(0.7), None),
    ]


@pytest.mark.slow
def test_recipe_is_json(tables):
    asked = "SELECT DISTINCT recipe ->> '$.training.lr' FROM runs"
    assert tables.query(asked).rows == [("0.1",)]


@pytest.mark.slow
def test_transitions_hold_forecast_and_measured(tables, runs):
    asked = """SELECT t.* FROM transitions t JOIN runs USING (run)
               WHERE path LIKE '%naive-0' AND task = 2 AND old_task = 1"""
    found = tables.query(asked)
    (row,) = found
    result = json.loads((runs / "naive-0" / "result.json").read_text())
    cell = result["transitions"][1]["old"][1]
    for side in ("forecast", "measured"):
        drop = cell[side]["accuracy_drop"]
        assert row[f"accuracy_drop_{side}"] == drop["value"]
        assert row[f"accuracy_drop_{side}_stderr"] == drop["stderr"]
        assert row[f"accuracy_drop_{side}_status"] == drop["status"]
    assert row["capacity_directions"] == result["transitions"][1]["capacity"]["directions"]["value"]


@pytest.mark.slow
def test_tasks_hold_what_was_learned_and_what_is_left(tables):
    asked = """SELECT task, accuracy_learned, accuracy_final, forgetting, inefficiency
               FROM tasks JOIN runs USING (run) WHERE path LIKE '%naive-0' ORDER BY task"""
    rows = tables.query(asked).rows
    assert [row[0] for row in rows] == [0, 1, 2]
    for task, learned, final, forgotten, inefficiency in rows:
        assert learned == pytest.approx(accuracy(task, task))
        assert final == pytest.approx(accuracy(2, task))
        if task < 2:
            assert forgotten == pytest.approx(learned - final)
        assert inefficiency == pytest.approx(1.9 + task)


@pytest.mark.slow
def test_metrics_hold_every_row_once_per_tested_task(tables, runs):
    count = tables.query("SELECT run, count(*) FROM metrics GROUP BY run ORDER BY run").rows
    lines = [
        sum(len(json.loads(line)["test_loss"]) for line in path.read_text().splitlines())
        for path in (folder / "metrics.jsonl" for folder in tables.paths)
    ]
    assert dict(count) == {k: n for k, n in enumerate(lines) if n}
    row = tables.query("SELECT test_accuracy FROM metrics WHERE task = 0 AND epoch = 0 LIMIT 1")
    assert row.rows == [(0.95,)]


@pytest.fixture(scope="module", params=[1, 2], ids=["one replica", "two replicas"])
def measured(quick_runs, request, tmp_path_factory):
    light = ["tasks.samples=32", "training.epochs=2", "measure.transport=false"]
    light += ["measure.verdicts=false", "measure.strategies=[naive, lwf]"]
    recipe = config.load("tiny-digits", [*light, f"replicas={request.param}"])
    return capacity.run(recipe, out=tmp_path_factory.mktemp("query") / "run", quiet=True)


@pytest.mark.slow
def test_rows_of_the_log_are_those_of_the_parquet_file(measured):
    asked = "SELECT task, epoch, lr, train_loss, test_loss[tested + 1] AS test_loss"
    path = measured.path.resolve() / "metrics.parquet"
    kept = duckdb.sql(f"{asked} FROM '{path}', range(2) AS t(tested) ORDER BY task, epoch, tested")
    asked = (
        "SELECT task, epoch, lr, train_loss, test_loss FROM metrics ORDER BY task, epoch, tested"
    )
    assert capacity.query(asked, measured).rows == kept.fetchall()
    assert len(capacity.query(asked, measured)) == 2 * 3 * 2


# Patterns, partitions, homes, schemes, options and quotes: all of them names of directories.
NAMES = [
    "run1", "run[12]", "run*", "run?", "{run1,run2}", "lr=0.9", "task=5", "~", "s3:", "-rf",
    "it's", 'a "b"', "two\nlines", " space ", "\u00fc\u2713", "a;b", "%41", "\\x",
]  # fmt: skip


@pytest.mark.slow
def test_names_of_directories_are_literal_in_reading_and_in_writing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "run1"))
    for k, name in enumerate(NAMES):
        seeded(Path(name) / "inner", k, 0.5)
        log = Path(name) / "inner" / "metrics.jsonl"
        log.write_text(log.read_text().replace('"lr": 0.1', f'"lr": {k + 1}'))
    asked = "SELECT DISTINCT lr, task FROM metrics ORDER BY task"
    for k, name in enumerate(NAMES):
        folder = Path(name) / "inner"
        RunDirectory(folder).compact_metrics()
        content = (folder / "metrics.parquet").read_bytes()
        (tmp_path / "plain.parquet").write_bytes(content)
        written = duckdb.read_parquet(str(tmp_path / "plain.parquet"))
        assert set(written.select("lr").fetchall()) == {(k + 1,)}, name
        assert capacity.query(asked, folder).rows == [(k + 1, 0), (k + 1, 1), (k + 1, 2)], name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*NAMES, "plain.parquet"])
    everything = capacity.query(
        "SELECT path, max(lr) FROM metrics JOIN runs USING (run) GROUP BY path", *NAMES
    )
    assert dict(everything.rows) == {f"{name}/inner": k + 1 for k, name in enumerate(NAMES)}


@pytest.mark.slow
def test_strategies_hold_the_ranking(measured):
    found = capacity.query("FROM strategies ORDER BY rank", measured)
    ranked = measured.result["transitions"][0]["by_strategy"]
    assert found.column("strategy") == [entry["name"] for entry in ranked]
    assert found.column("rank") == [1, 2]
    for row, entry in zip(found, ranked, strict=True):
        assert row["average_accuracy"] == entry["average_accuracy"]["value"]
        assert row["new_loss_status"] == entry["new"]["loss"]["status"]
        drop = entry["old"][0]["forecast"]["accuracy_drop"]["value"]
        assert row["mean_accuracy_drop"] == drop


def test_a_run_with_nothing_measured_has_empty_tables_with_all_columns(tmp_path):
    tables = capacity.load_runs(write(tmp_path / "a", "stopped_early"))
    for name in ("tasks", "transitions", "strategies", "metrics"):
        found = getattr(tables, name)
        assert found.rows == []
        assert "run" in found.columns
    assert len(tables.runs.rows) == 1


@pytest.mark.slow
def test_one_question_is_one_call(runs):
    found = capacity.query("SELECT count(*) AS n FROM runs", runs)
    assert found.rows == [(8,)]
    assert list(found) == [{"n": 8}]


@pytest.mark.slow
def test_rows_print_and_show_cut_and_escaped(tables):
    found = tables.query(
        "SELECT 'abc' AS name, 0.123456789::DOUBLE AS x, '<b>' || repeat('y', 99) AS y"
    )
    lines = str(found).splitlines()
    assert lines[0].split() == ["name", "x", "y"]
    assert lines[1].split()[:2] == ["abc", "0.123457"]
    assert len(lines[1]) < 60
    assert "&lt;b&gt;" in found._repr_html_()
    many = tables.query("SELECT * FROM range(100)")
    assert str(many).endswith("... and 60 more rows")
    assert len(many) == 100


@pytest.mark.slow
def test_rows_go_to_pandas_and_arrow_or_say_what_is_missing(tables, monkeypatch):
    found = tables.query("SELECT seed, accuracy FROM runs WHERE strategy = 'ewc' ORDER BY seed")
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="pip install pandas"):
        found.to_pandas()
    with pytest.raises(ValueError, match="pip install pyarrow"):
        found.to_arrow()
    with pytest.raises(ValueError, match="did you mean 'accuracy'"):
        found.column("acuracy")
    monkeypatch.undo()
    frame = pytest.importorskip("pandas") and found.to_pandas()
    assert list(frame.columns) == ["seed", "accuracy"]
    assert frame["seed"].tolist() == [0, 1, 2]
    table = pytest.importorskip("pyarrow") and found.to_arrow()
    assert table.column("accuracy").to_pylist() == found.column("accuracy")


def test_regression_has_no_accuracy(tmp_path):
    tables = capacity.load_runs(write(tmp_path / "a", "regression"))
    assert tables.query("SELECT max(accuracy_final) FROM tasks").rows == [(None,)]
    assert tables.query("SELECT count(loss_final) FROM tasks").rows == [(3,)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT acuracy FROM runs", "acuracy"),
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM run", "run does not exist"),
        ("", "is no query"),
        (3, "is no query"),
        ("SELECT 1; DROP TABLE runs", "holds SELECT and DROP, and one SELECT is accepted"),
        ("-- nothing", "holds nothing, and one SELECT"),
        ("COPY runs TO 'stolen.csv'", "holds COPY"),
        ("ATTACH 'other.db'", "holds ATTACH"),
        ("INSTALL httpfs", "holds LOAD"),
        ("PRAGMA threads = 1", "sql holds "),
        ("SET threads = 1", "holds SET"),
        ("EXPORT DATABASE 'stolen'", "holds EXPORT"),
        ("DELETE FROM runs", "holds DELETE"),
        ("CREATE TABLE more AS SELECT 1", "holds CREATE"),
        ("WITH gone AS (DELETE FROM runs RETURNING *) FROM gone", "sql: "),
        ("FROM read_text('pyproject.toml')", "disabled by configuration"),
        ("FROM read_parquet('https://example.org/a.parquet')", "sql: "),
        ("FROM glob('*')", "disabled by configuration"),
        ("FROM 'pyproject.toml'", "sql: "),
        ("FROM runs_of_python", "does not exist"),
        ("SELECT '\ud800'", "sql: "),
    ],
)
def test_a_wrong_question_is_a_value_error(tables, sql, message):
    runs_of_python = duckdb.sql("SELECT 1") if "python" in str(sql) else None
    before = tables.runs
    with pytest.raises(ValueError, match=message):
        tables.query(sql)
    assert tables.runs == before
    assert runs_of_python is None or runs_of_python.fetchall() == [(1,)]


@pytest.mark.slow
def test_questions_that_only_read_are_answered(tables):
    for sql in ("FROM runs;", "DESCRIBE runs", "WITH x AS (SELECT 1 AS y) FROM x -- so"):
        assert tables.query(sql).rows


@pytest.mark.slow
def test_a_question_of_any_depth_is_answered_or_refused(tables):
    # How deep a question may be nested differs between versions of DuckDB.
    try:
        answer = tables.query("SELECT " + 3000 * "(" + "1" + 3000 * ")").rows
    except ValueError as error:
        answer = str(error)
    assert answer == [(1,)] or answer.startswith("sql: ")


def test_paths_without_runs_are_value_errors(tmp_path):
    with pytest.raises(ValueError, match="runs is empty"):
        capacity.load_runs()
    with pytest.raises(ValueError, match="holds no run"):
        capacity.query("SELECT 1", tmp_path)
    path = seeded(tmp_path / "a", 0, 0.5) / "result.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(ValueError, match="schema_version 2"):
        capacity.load_runs(tmp_path)


@pytest.mark.slow
def test_tables_are_these(tables):
    found = tables.query("SELECT table_name FROM duckdb_tables() ORDER BY 1").rows
    assert [name for (name,) in found] == sorted(TABLES)
