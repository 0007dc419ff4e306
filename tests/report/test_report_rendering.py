"""Text that no renderer takes, and a renderer that dies: the run and its numbers stay."""

from __future__ import annotations

import json
import re
import sys
from xml.etree import ElementTree

import pytest
import torch

import capacity
from capacity.base.files import parse_json, to_json
from capacity.base.printable import visible, visible_record
from capacity.cli import main
from capacity.report import render, renderer
from report.fabricated_run import write

# Everything below U+0020, what XML forbids, halves of characters, overrides of the direction.
HOSTILE = "".join(map(chr, [*range(32), 0x7F, 0x85, 0x9B, 0x202E, 0x2066, 0xDFFF, 0xD800, 0xFFFE]))
CHART = {
    "data": {"values": [{"a": 1, "b": "x\x1by"}]},
    "mark": "point",
    "encoding": {"x": {"field": "a", "type": "quantitative"}, "y": {"field": "b"}},
}


def test_what_cannot_be_printed_becomes_a_mark():
    assert visible("sec\x1b[31mond\x00\x7f") == "sec\u241b[31mond\u2400\u2421"
    assert visible("\ud800 \ufffe \u202e") == "\ufffd \ufffd \ufffd"
    assert visible("tab\tline\n\u00fc \u2713 \U0001f600 \u05d0") == (
        "tab\tline\n\u00fc \u2713 \U0001f600 \u05d0"
    )
    assert not set(visible(HOSTILE)) & (set(HOSTILE) - set("\t\n"))
    record = {"a\x07": ["b\x1b", 1, None, {"c": ("\ud800",)}], "\U0001f600": True}
    assert visible_record(record) == {
        "a\u2407": ["b\u241b", 1, None, {"c": ["\ufffd"]}],
        "\U0001f600": True,
    }
    plain = {"a": ["b\t"]}
    assert visible_record(plain) is plain


@pytest.mark.parametrize("text", [HOSTILE, "half \udc80"])
def test_records_keep_any_text(text):
    assert parse_json(to_json({"name": text})) == {"name": text}


@pytest.fixture
def hostile(tmp_path):
    """A run whose tasks, name, description and message hold everything that cannot be printed."""
    folder = write(tmp_path / "run")
    path = folder / "result.json"
    result = json.loads(path.read_text())
    result["name"] = f"run{HOSTILE}"
    for i, task in enumerate(result["tasks"]):
        task["name"] = f"task{HOSTILE}{i}"
    for transition in result["transitions"]:
        for entry in transition.get("by_strategy") or []:
            entry["name"] += "\x1b"
    path.write_text(json.dumps(result))
    status = {"state": "failed", "message": f"ValueError: {HOSTILE}", "seconds": {}}
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "env.json").write_text(json.dumps({"command": f"capacity{HOSTILE}", "packages": {}}))
    return folder


@pytest.mark.slow
def test_no_control_character_reaches_the_report(hostile):
    page = render(hostile).read_text(encoding="utf-8")
    assert "task\u2400\u2401" in page
    assert not set(page) & (set(HOSTILE) - set("\t\n"))
    drawn = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawn) > 10
    for picture in drawn:
        ElementTree.fromstring(picture)
    assert "\\u001b" not in page


def test_no_control_character_reaches_a_terminal_or_a_notebook(hostile, tmp_path, capsys):
    rows = capacity.query("SELECT t.name, message FROM tasks t JOIN runs USING (run)", hostile)
    assert rows.rows[0][0].startswith("task\x00\x01")
    shown = [str(rows), rows._repr_html_(), capacity.open_run(hostile)._repr_html_()]
    shown += [str(made := capacity.compare(hostile)), made._repr_html_()]
    (hostile / "result.json").write_text('{"schema": "\\u001b]0;owned\\u0007"}')
    assert main(["report", str(hostile)]) == 2
    assert main(["report", str(tmp_path / "\x1b[2J")]) == 2
    assert main(["validate", "\x1b[2J"]) == 2
    shown += capsys.readouterr()
    assert not set("".join(shown)) & (set(HOSTILE) - set("\t\n"))


@pytest.mark.slow
def test_a_chart_that_kills_the_renderer_is_an_error_and_the_next_is_drawn():
    with pytest.raises(renderer.RenderingError, match="ended with exit code -"):
        renderer.draw(CHART)
    assert renderer.draw({**CHART, "data": {"values": []}}).startswith("<svg")
    with pytest.raises(renderer.RenderingError, match="cannot be drawn"):
        renderer.draw({"mark": "nothing known"})


@pytest.mark.slow
def test_a_renderer_that_left_when_idle_is_started_again(monkeypatch):
    chart = {**CHART, "data": {"values": []}}
    first = renderer.draw(chart)
    process = renderer._RENDERER._process
    process.stdin.close()
    assert process.wait() == 0
    assert renderer.draw(chart) == first
    assert renderer._RENDERER._process is not process


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(renderer, "_AHEAD", [])
    asked = []
    monkeypatch.setattr(renderer._RENDERER, "ask", lambda line: asked.append(line) or "let a = 1;")
    return tmp_path / "cache" / "capacity", asked


def test_the_bundle_of_charts_is_made_once_and_a_damaged_one_anew(cache):
    folder, asked = cache
    assert [renderer.bundle(), renderer.bundle()] == ["let a = 1;"] * 2
    assert len(asked) == 1
    (kept,) = folder.iterdir()
    kept.write_bytes(kept.read_bytes()[:-3])
    assert renderer.bundle() == "let a = 1;"
    assert len(asked) == 2


def homeless():
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("home", [True, False])
def test_without_a_folder_for_the_bundle_it_is_made_each_time(home, cache, monkeypatch):
    folder, asked = cache
    folder.parent.write_text("a file stands where the cache would be")
    if not home:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr("capacity.report.renderer.Path.home", homeless)
    renderer.bundle_ahead()
    assert [renderer.bundle(), renderer.bundle()] == ["let a = 1;"] * 2
    assert len(asked) == 2


def test_a_bundle_that_was_begun_ahead_is_waited_for(cache, monkeypatch, tmp_path):
    folder, asked = cache
    library = (
        "import time\ndef javascript_bundle(script):\n    time.sleep(0.3)\n    return script\n"
    )
    (tmp_path / "vl_convert.py").write_text(library)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    renderer.bundle_ahead()
    assert renderer.bundle() == renderer._GLOBALS
    assert asked == []
    assert len(list(folder.iterdir())) == 1
    renderer.bundle_ahead()  # it is there
    assert renderer._AHEAD == []


@pytest.fixture
def dying(monkeypatch, tmp_path):
    script = tmp_path / "dying.py"
    script.write_text("import os, sys\nsys.stdin.readline()\nos.abort()\n")
    monkeypatch.setattr(renderer, "_SCRIPT", script)
    monkeypatch.setattr(renderer, "_RENDERER", renderer._Renderer())


def _run(out):
    x = torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(0))
    return capacity.run(
        [(x[k], (x[k, :, 0] > 0).long()) for k in range(2)],
        model=lambda: torch.nn.Linear(3, 2),
        training=capacity.Training(epochs=1),
        measure=capacity.Measure(
            forecast=False, transport=False, capacity=False, closure_points=0, verdicts=False
        ),
        replicas=2,
        quiet=True,
        out=out,
    )


@pytest.mark.slow
def test_a_run_whose_report_cannot_be_drawn_is_finished(dying, tmp_path, capsys, monkeypatch):
    made = _run(tmp_path / "run")
    assert made.status == "finished"
    assert not (made.path / "report.html").exists()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "the run is finished, but its report could not be written" in said
    assert f"try again with `capacity report {made.path}`" in said
    assert main(["report", str(made.path)]) == 1
    assert main(["compare", str(made.path), "-o", str(tmp_path / "c.html")]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all("the process that draws charts ended with exit code" in line for line in said)
    monkeypatch.undo()
    result = (made.path / "result.json").read_bytes()
    assert _run(tmp_path / "run").path == made.path  # only the report is left to do
    assert (made.path / "report.html").is_file()
    assert (made.path / "result.json").read_bytes() == result


def test_without_a_python_to_start_the_renderer_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(renderer.RenderingError, match="cannot start"):
        renderer._Renderer().ask({"chart": CHART})
