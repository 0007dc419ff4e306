"""One process at a time works on a run directory."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

try:
    import fcntl
except ImportError:  # no such locks on Windows, where two processes are the user's own care
    fcntl = None  # type: ignore[assignment]


class InUseError(ValueError):
    """Another process works on the directory."""


class DirectoryLock:
    """An exclusive lock on a directory, which the kernel takes back when its process dies.

    So there is no stale lock to recover, whatever ended the process. Process and host stand in the
    file for the message alone.

    Args:
        folder: The directory.
    """

    NAME = ".lock"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / self.NAME
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            InUseError: If another process has it.
        """
        if fcntl is None:
            return
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                said = _holder(file)
                os.close(file)
                raise InUseError(
                    f"out = {str(self._folder)!r} is in use by {said}; wait for it to end, or name "
                    "another directory"
                ) from None
            except OSError:  # a file system without locks
                os.close(file)
                return
            if _is_still(file, self._path):
                break
            os.close(file)  # its last holder removed it in between
        self._file = file
        content = {"pid": os.getpid(), "host": platform.node()}
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(content).encode(), 0)

    def taken(self) -> bool:
        """Look whether a living process has the lock.

        Returns:
            False, too, where the file is there and its process is not.
        """
        if fcntl is None or not self._path.is_file():
            return False
        file = os.open(self._path, os.O_RDONLY)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return False
        finally:
            os.close(file)
        return False

    @property
    def lost(self) -> bool:
        """Whether it was taken, and the file that it is on was removed since, or replaced."""
        return self._file is not None and not _is_still(self._file, self._path)

    def renew(self) -> None:
        """Take the lock again after the directory was removed; as `acquire` where that fails."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self.acquire()

    def release(self) -> None:
        """Give the lock back; nothing happens where it was not taken."""
        if self._file is None:
            return
        self._path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = None


def _holder(file: int) -> str:
    try:
        content = json.loads(os.pread(file, 1024, 0))
        return f"process {content['pid']} on {content['host']}"
    except (ValueError, KeyError, TypeError, OSError):
        return "another process"


def _is_still(file: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(file)
    return (mine.st_ino, mine.st_dev) == (there.st_ino, there.st_dev)
