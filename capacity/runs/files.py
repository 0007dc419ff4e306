"""How a run's files are written and read: whole or not at all, and JSON without surprises."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # seconds to import
    from torch import Tensor


_LEAVE_OUT = "delete this line, and the others are read"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Args:
        path: The file.
        content: Its bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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


def parse_json(content: bytes) -> Any:
    """Read JSON the way `to_json` writes it.

    Args:
        content: UTF-8 bytes.

    Returns:
        What it holds. Anything else, NaN and infinity among it, is a ValueError.
    """

    def no_number(name: str) -> None:
        raise ValueError(f"{name} is no number of JSON")

    return json.loads(content.decode(), parse_constant=no_number)


def read_json(path: Path, remedy: str = "") -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        remedy: What to do if it is damaged, for the message.

    Returns:
        The object; empty where there is no file.

    Raises:
        ValueError: If it is not readable as a JSON object.
    """
    if not path.is_file():
        return {}
    said = f"; {remedy}" if remedy else ""
    try:
        record = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not readable as JSON ({error}){said}") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}){said}") from None
    if not isinstance(record, dict):
        raise ValueError(f"{path}: not a JSON object{said}")
    return record


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object per line.

    Args:
        path: The file.

    Returns:
        The objects, none where there is no file. A last line cut short by a kill is left out.

    Raises:
        ValueError: If another line is damaged.
    """
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}: line {number} is damaged ({error}); {_LEAVE_OUT}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}: line {number} is not a JSON object; {_LEAVE_OUT}")
        rows.append(row)
    return rows


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Args:
        path: The file.

    Returns:
        Its tensors on the CPU, by name; empty where there is no file.

    Raises:
        ValueError: If it is not readable.
    """
    if not path.is_file():
        return {}
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not readable as safetensors ({error})") from None
