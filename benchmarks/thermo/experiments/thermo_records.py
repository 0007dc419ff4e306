"""Records of the experiments on disk: JSON beside this file, read back as the same dataclass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

RESULTS = Path(__file__).parent / "results"
_WIDTH = 100
Record = TypeVar("Record")


def save(record: Any, path: Path) -> None:
    """Write a record as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_laid_out(_plain(record), 0) + "\n", encoding="utf-8")


def rounded(record: Record) -> Record:
    """Give the record that `load` would give back: what is printed of both is the same."""
    return TypeAdapter(type(record)).validate_python(_plain(record))


def load(kind: type[Record], path: Path) -> Record:
    """Read a record back."""
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(
            f"{path} does not hold what the experiment records now ({error.error_count()} entries "
            "differ); run it again"
        ) from error


def _plain(record: Any) -> Any:
    adapter = TypeAdapter(type(record))
    return _short(adapter.dump_python(record, mode="json", exclude_defaults=True))


def _short(value: Any) -> Any:
    """Drop digits that nothing prints: they would change with every machine."""
    if isinstance(value, dict):
        return {name: _short(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_short(part) for part in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _laid_out(value: Any, depth: int) -> str:
    """Write JSON with what fits a line on one line."""
    flat = json.dumps(value, allow_nan=False)
    if len(flat) + depth <= _WIDTH or not isinstance(value, dict | list):
        return flat
    inside, outside = "\n" + " " * (depth + 1), "\n" + " " * depth
    if isinstance(value, list):
        parts = [_laid_out(part, depth + 1) for part in value]
        return f"[{inside}{(',' + inside).join(parts)}{outside}]"
    parts = [f"{json.dumps(name)}: {_laid_out(part, depth + 1)}" for name, part in value.items()]
    return f"{{{inside}{(',' + inside).join(parts)}{outside}}}"
