"""Life on a shell: readers that leave, streams that are full, closed or ASCII."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys

import pytest

from capacity.base.console import Lenient
from capacity.base.files import parse_json
from capacity.runs.progress import Progress

pytestmark = pytest.mark.slow

CAPACITY = f"{shlex.quote(sys.executable)} -m capacity.cli"


def shell(line, cwd=None, **env):
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **env},
    )


QUIET = {
    # how it is called: the exit code; none of these has anything to say
    "{} recipes ls | head -1 >/dev/null": 0,
    "{} recipes ls | true": 0,
    "{} recipes ls >&-": 0,
    "{} --help >/dev/full": 0,
    "{} validate tiny-digits | head -1 >/dev/null": 0,
    "{} validate nowhere 2>&-": 2,
    "{} validate nowhere 2>/dev/full": 2,
    "{} validate nowhere 2>&1 | true": 2,
    "{} recipes ls <&- >/dev/null": 0,
    "mkdir gone; cd gone; rmdir ../gone; {} recipes ls >/dev/null": 0,
    "unset HOME; {} recipes ls >/dev/null": 0,
    "HOME=/dev/null/none {} validate tiny-digits >/dev/null": 0,
    "LC_ALL=C PYTHONIOENCODING=ascii {} recipes ls >/dev/null": 0,
}


@pytest.mark.parametrize("line", QUIET)
def test_what_a_shell_does_to_streams_is_no_failure(line, tmp_path):
    done = shell(line.format(CAPACITY), tmp_path)
    assert done.stderr == ""
    assert done.returncode == QUIET[line]


def test_a_full_output_and_a_directory_that_is_gone_are_said_in_one_line(tmp_path):
    for line, code, said in (
        (f"{CAPACITY} recipes ls >/dev/full", 1, "standard output cannot be written (No space"),
        (f"mkdir a; cd a; rmdir ../a; {CAPACITY} recipes cp tiny-digits", 2, "cannot be written"),
    ):
        done = shell(line, tmp_path)
        assert done.returncode == code
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_ascii_shows_escapes(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: \u2713\n", encoding="utf-8")
    done = shell(f"{CAPACITY} validate mine.yaml", tmp_path, LC_ALL="C", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.startswith("name: \\u2713")


class Full(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


def test_progress_that_nobody_can_read_ends_no_run():
    closed = io.StringIO()
    closed.close()
    for stream in (Full(), closed):
        progress = Progress(stream=stream)
        progress.line("a")
        progress.start("b", 1)
        progress.advance("c")
        progress.close()
        assert not progress.terminal
    assert Lenient(None).write("abc") == 3
    assert not Lenient(None).isatty()
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Lenient(ascii_only).write("\u2713")
    ascii_only.flush()
    assert ascii_only.buffer.getvalue() == b"\\u2713"


def test_a_reader_that_leaves_ends_no_run(tmp_path):
    light = "training.epochs=1 tasks.experiences=1 measure.transport=false replicas=1"
    done = shell(f"{CAPACITY} run tiny-digits {light} --out run 2>&1 | head -1", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "report.html").is_file()
    state = parse_json((tmp_path / "run" / "status.json").read_bytes())
    assert state["state"] == "finished"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_json_without_an_end_is_a_value_error(text):
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(text.encode())
