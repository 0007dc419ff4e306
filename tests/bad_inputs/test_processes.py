"""What only other processes show: a disk that is full, and a directory that is in use."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from forked import forked

pytestmark = pytest.mark.slow

RUN = [sys.executable, "-m", "capacity.cli", "run", "tiny-digits", "--out"]


@pytest.fixture(autouse=True)
def _forked():
    with forked():
        yield


def fill_up() -> None:
    """Let this process write no file as large as the first checkpoint, which has 38 kB."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def said_in_one_line(ended: subprocess.CompletedProcess[str]) -> str:
    """Give the last line of stderr, after progress, where there must be no traceback."""
    assert "Traceback" not in ended.stderr
    return ended.stderr.strip().splitlines()[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
@pytest.mark.usefixtures("kept")
def test_a_disk_that_is_full_ends_the_run_and_leaves_others_alone(tmp_path):
    ended = subprocess.run(
        [*RUN, str(tmp_path / "full"), "model.hidden=[64]"],
        capture_output=True, text=True, timeout=300, check=False, preexec_fn=fill_up,
    )  # fmt: skip
    assert ended.returncode == 1
    assert str(tmp_path / "full") in said_in_one_line(ended)


def test_a_directory_in_use_by_another_process_is_refused(tmp_path):
    place = tmp_path / "used"
    # Far longer than the second process takes to start, on any machine: it is killed in the end.
    first = subprocess.Popen(
        [*RUN, str(place), "training.epochs=100000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not (place / "status.json").exists() and time.monotonic() < deadline:
            assert first.poll() is None
            time.sleep(0.02)
        second = subprocess.run(
            [*RUN[:4], "--resume", str(place)],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert first.poll() is None
    finally:
        first.kill()
        first.wait(timeout=60)
    assert second.returncode == 2
    said = said_in_one_line(second)
    assert str(place) in said
    assert "is in use by" in said
