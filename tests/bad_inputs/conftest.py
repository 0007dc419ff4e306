"""One finished run that the damaged ones are copies of, and that no bad input may touch."""

from __future__ import annotations

import pytest

from bad_inputs.checkers import TINY, fingerprint
from capacity.cli import main


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run; nobody writes into it."""
    path = tmp_path_factory.mktemp("bad_inputs") / "finished"
    assert main(["run", *TINY, "--quiet", "--out", str(path)]) == 0
    return path


@pytest.fixture
def kept(finished):
    """The finished run, and the check afterwards that every byte of it is as it was."""
    before = fingerprint(finished)
    yield finished
    assert fingerprint(finished) == before
