"""The rows of a run as Parquet, for those who read many of them elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def to_parquet(rows: Sequence[dict[str, Any]], part: Path) -> bytes:
    """Write rows as Parquet.

    Args:
        rows: Plain types; at least one row.
        part: A file to write on the way; it is gone afterwards.

    Returns:
        The bytes of the file.
    """
    import duckdb  # 0.2 s to import, and only the end of a run needs it

    text = json.dumps(rows)
    with duckdb.connect() as connection:
        asked = "SELECT json_structure(?::JSON)"
        (structure,) = connection.execute(asked, [text]).fetchone()
        structure = structure.replace('"UBIGINT"', '"BIGINT"')  # or epoch - 1 fails
        table = "unnest(from_json(?::JSON, ?), max_depth := 2)"
        connection.execute(f"CREATE TABLE kept AS SELECT {table}", [text, structure])
        connection.table("kept").write_parquet(str(part))
    content = part.read_bytes()
    part.unlink()
    return content
