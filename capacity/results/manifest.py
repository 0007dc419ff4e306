"""What the files of a run should hold, so that one whose bits have changed is told from what ran.

`manifest.json` lists SHA-256 digests by file, and carries its own. A file's new digest is written
down before the file: until the next write, the one it replaces is listed beside it (null: there was
none), so that a kill between the two leaves nothing that a reader would call damaged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from capacity.base.files import read_bytes, seal, unseal, write_atomically

Listed = dict[str, list[str | None]]

_SCHEMA = "capacity/manifest"
_VERSION = 1


class Manifest:
    """The digests of one run directory.

    A process that writes keeps one of these; another one may write in between, when this one does
    not.

    Args:
        folder: The run directory.
    """

    NAME = "manifest.json"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / self.NAME
        self._known: Listed | None = None
        self._settled: dict[str, str] = {}

    @property
    def present(self) -> bool:
        """Whether there is one; a run of an earlier version has none."""
        return self._path.is_file()

    def listed(self) -> Listed:
        """Read the digests.

        Returns:
            Per file those that it may have, the newest first; empty where there is no manifest.

        Raises:
            ValueError: If the manifest is damaged.
        """
        data = read_bytes(self._path)
        if data is None:
            return {}
        try:
            record = unseal(data)
            if (record.get("schema"), record.get("schema_version")) != (_SCHEMA, _VERSION):
                raise ValueError("it is of another version of capacity")
        except ValueError as error:
            raise ValueError(
                f"{self._path}: damaged ({error}); restore it, or delete it, and the run is read "
                "without a check of its files"
            ) from None
        files: Listed = record["files"]
        return files

    def accepts(self, name: str, data: bytes) -> bool:
        """Say whether a file is as it was written.

        Args:
            name: Its path below the run directory.
            data: Its content.

        Returns:
            False, too, for a file that is not listed; True for all where there is no manifest.
        """
        for fresh in (False, True):
            # A run that goes on may have written both since the manifest was read.
            if self._known is None or fresh:
                self._known = self.listed()
            if not self._known and not self.present:
                return True
            if digest(data) in self._known.get(name, []):
                return True
        return False

    def begin(self, names: list[str]) -> None:
        """Make a manifest of the files that are there, unless there is one.

        Args:
            names: Paths below the run directory.
        """
        if self.present:
            return
        found = {name: read_bytes(self._folder / name) for name in names}
        self._write({name: [digest(data)] for name, data in found.items() if data is not None})

    def announce(self, contents: Mapping[str, bytes], *, unlisted: tuple[str, ...] = ()) -> None:
        """Write down what is about to be written; without a manifest, nothing is.

        Args:
            contents: What each file will hold.
            unlisted: Files that will not be listed any more.
        """
        if not self.present:
            return
        files = self.listed()
        before = {name: list(digests) for name, digests in files.items()}
        for name, settled in self._settled.items():
            if files.get(name, [None])[0] == settled:
                files[name] = [settled]
        for name in unlisted:
            files.pop(name, None)
        for name, data in contents.items():
            new, old = digest(data), self._current(name, files)
            files[name] = [new] if old == [new] else [new, *old]
        if files != before:
            self._write(files)

    def settle(self, contents: Mapping[str, bytes]) -> None:
        """Note that what was announced is written.

        Args:
            contents: What each file holds.
        """
        self._settled |= {name: digest(data) for name, data in contents.items()}

    def _current(self, name: str, files: Listed) -> list[str | None]:
        """Find what a file holds that will be replaced; nothing where that is damaged."""
        listed = files.get(name, [])
        if len(listed) == 1:
            return listed
        data = read_bytes(self._folder / name)
        now = None if data is None else digest(data)
        return [now] if now is None or now in listed else []

    def _write(self, files: Listed) -> None:
        record = {"schema": _SCHEMA, "schema_version": _VERSION, "files": files}
        write_atomically(self._path, seal(record))


def digest(data: bytes) -> str:
    """Take the digest of a file.

    Args:
        data: Its content.

    Returns:
        SHA-256, hexadecimal.
    """
    return hashlib.sha256(data).hexdigest()
