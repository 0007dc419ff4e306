"""How a run's files are written and read: whole or not at all, and JSON without surprises."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # seconds to import
    from torch import Tensor


NOT_AS_WRITTEN = "it is not as it was written: its digest is another"
_LEVELS = 4
"""How deep `to_lines` indents: to the entries of a list in a section of an entry."""
_LEAVE_OUT = "delete this line, and the others are read"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Args:
        path: The file.
        content: Its bytes.
    """
    write_all({path: content})


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Write files one after the other, each whole or not at all, a power cut included.

    Args:
        contents: Bytes by path.
    """
    for path, content in contents.items():
        _make_folder(path.parent)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    for folder in dict.fromkeys(path.parent for path in contents):
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder outlast a power cut, as the files themselves do.

    Args:
        folder: The folder.
    """
    if os.name == "nt":  # no such call there
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


def sweep(folder: Path, pattern: str) -> None:
    """Remove what processes that are no longer there left half-written; what is not ours stays.

    Args:
        folder: Where to look.
        pattern: The file or folder that they were writing, or a pattern of names.
    """
    for path in folder.glob(f".{pattern}.*.tmp"):
        number = path.name.split(".")[-2]
        if number.isdecimal() and alive(int(number)):
            continue
        with suppress(FileNotFoundError, PermissionError):  # another one's sweep, another user's
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def alive(process: int) -> bool:
    """Tell whether a process of this machine is still there.

    Args:
        process: Its number.

    Returns:
        Whether it is; another user's counts.
    """
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def is_temporary(name: str) -> bool:
    """Tell the leftovers of a killed process from files.

    Args:
        name: Name of a file.

    Returns:
        Whether it is one that `write_atomically` did not come to rename.
    """
    return name.startswith(".") and name.endswith(".tmp")


def to_json(record: object) -> bytes:
    """Write JSON the way every file of a run has it.

    Args:
        record: Plain types without NaN or infinity.

    Returns:
        UTF-8 bytes.
    """
    text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a character: only an escape can say it
        return (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()


def to_lines(record: Mapping[str, Any]) -> bytes:
    """Write a large JSON object: indented at its first levels, and a line for each value below.

    Indenting all of it takes json's encoder in Python, tens of times as long, and twice the bytes.

    Args:
        record: Plain types without NaN or infinity.

    Returns:
        UTF-8 bytes.
    """
    return ("".join(_spread(record, _LEVELS, "\n")) + "\n").encode()


def _spread(value: Any, levels: int, end: str) -> Iterator[str]:
    if not (levels and value and isinstance(value, dict | list)):
        # An escape says what no UTF-8 can, half a character.
        yield json.dumps(value, allow_nan=False)
        return
    named = isinstance(value, dict)
    inner, between = end + " ", ""
    yield "{" if named else "["
    for item in value.items() if isinstance(value, dict) else value:
        yield between + inner
        if named:
            yield json.dumps(item[0]) + ": "
        yield from _spread(item[1] if named else item, levels - 1, inner)
        between = ","
    yield end + ("}" if named else "]")


def parse_json(content: bytes) -> Any:
    """Read JSON the way `to_json` writes it.

    Args:
        content: UTF-8 bytes.

    Returns:
        What it holds.

    Raises:
        ValueError: If it is anything else, NaN and infinity and deep nesting among it.
    """

    def no_number(name: str) -> None:
        raise ValueError(f"{name} is no number of JSON")

    try:
        return json.loads(content.decode(), parse_constant=no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def seal(record: Mapping[str, Any]) -> bytes:
    """Write a JSON object that carries its own digest.

    Args:
        record: Plain types without NaN or infinity.

    Returns:
        UTF-8 bytes.
    """
    return to_json({**record, "digest": hashlib.sha256(to_json(record)).hexdigest()})


def unseal(content: bytes) -> dict[str, Any]:
    """Read what `seal` has written.

    Args:
        content: UTF-8 bytes.

    Returns:
        The object, without its digest.

    Raises:
        ValueError: If a bit of it is not as it was written.
    """
    record = parse_json(content)
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    found = {name: value for name, value in record.items() if name != "digest"}
    if seal(found) != content:
        raise ValueError(NOT_AS_WRITTEN)
    return found


def to_row(record: Mapping[str, Any]) -> bytes:
    """Write a line of a file of rows; each carries its own digest.

    Args:
        record: Plain types without NaN or infinity.

    Returns:
        UTF-8 bytes, with the end of the line.
    """
    text = json.dumps(record, allow_nan=False)
    mark = hashlib.sha256(text.encode()).hexdigest()[:16]
    return (json.dumps({**record, "digest": mark}, allow_nan=False) + "\n").encode()


def read_bytes(path: Path, remedy: str = "") -> bytes | None:
    """Read a file.

    Args:
        path: The file.
        remedy: What to do if it cannot be read, for the message.

    Returns:
        Its content; None where there is none.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    except OSError as error:
        said = f"; {remedy}" if remedy else ""
        raise ValueError(f"{path}: cannot be read ({error.strerror}){said}") from None


def read_json(path: Path, remedy: str = "") -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        remedy: What to do if it is damaged, for the message.

    Returns:
        The object; empty where there is no file.
    """
    return as_object(path, read_bytes(path, remedy), remedy)


def as_object(path: Path, content: bytes | None, remedy: str = "") -> dict[str, Any]:
    """Understand a file as a JSON object.

    Args:
        path: The file, for the message.
        content: Its bytes; None where there is none.
        remedy: What to do if it is damaged, for the message.

    Returns:
        The object; empty where there is no file.

    Raises:
        ValueError: If it is not readable as a JSON object.
    """
    if content is None:
        return {}
    said = f"; {remedy}" if remedy else ""
    try:
        record = parse_json(content)
    except ValueError as error:
        raise ValueError(f"{path}: not readable as JSON ({error}){said}") from None
    if not isinstance(record, dict):
        raise ValueError(f"{path}: not a JSON object{said}")
    return record


def as_rows(path: Path, content: bytes, *, digests: bool) -> list[dict[str, Any]]:
    """Understand a file of one JSON object per line.

    Args:
        path: The file, for the message.
        content: Its bytes.
        digests: Whether every row must carry its digest, and be as it was written.

    Returns:
        The objects, without their digests. A last line cut short by a kill is left out.

    Raises:
        ValueError: If another line is damaged.
    """
    lines = content.split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            if number == len(lines) and not (digests and _is_row(line[:-1])):
                break
            raise ValueError(f"{path}: line {number} is damaged ({error}); {_LEAVE_OUT}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}: line {number} is not a JSON object; {_LEAVE_OUT}")
        row.pop("digest", None)
        if digests and to_row(row) != line + b"\n":
            raise ValueError(f"{path}: line {number} is damaged ({NOT_AS_WRITTEN}); {_LEAVE_OUT}")
        rows.append(row)
    return rows


def _is_row(line: bytes) -> bool:
    """Say whether a line is whole: then what follows it is no half-written row."""
    try:
        row = parse_json(line)
    except ValueError:
        return False
    return isinstance(row, dict)


def as_numbers(path: Path, content: bytes | None) -> dict[str, list[float]]:
    """Read the float64 tensors of a safetensors file as flat lists, without importing torch.

    Args:
        path: The file, for the message.
        content: Its bytes; None where there is none.

    Returns:
        Their numbers by name; empty where there is no file.

    Raises:
        ValueError: If it is not readable.
    """
    if content is None:
        return {}
    from safetensors import SafetensorError, deserialize

    try:
        parts = deserialize(content)
    except SafetensorError as error:
        raise ValueError(f"{path}: not readable as safetensors ({error})") from None
    kept = sorted((name, part["data"]) for name, part in parts if part["dtype"] == "F64")
    return {name: [number for (number,) in struct.iter_unpack("<d", data)] for name, data in kept}


def as_tensors(path: Path, content: bytes | None) -> dict[str, Tensor]:
    """Understand a file as safetensors.

    Args:
        path: The file, for the message.
        content: Its bytes; None where there is none.

    Returns:
        Its tensors on the CPU, by name; empty where there is no file.

    Raises:
        ValueError: If it is not readable.
    """
    if content is None:
        return {}
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return dict(sorted(load(content).items()))  # their order in a file says nothing
    except SafetensorError as error:
        raise ValueError(f"{path}: not readable as safetensors ({error})") from None
