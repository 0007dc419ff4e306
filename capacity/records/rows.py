"""The answer to a query: rows under named columns, ready for pandas or Arrow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from capacity.base.checks import one_of
from capacity.base.printable import visible
from capacity.records.html_table import table

_SHOWN = 40
_WIDEST = 32


@dataclass(frozen=True)
class Rows:
    """Rows under named columns.

    Attributes:
        columns: Names of the columns.
        rows: One tuple per row; None where there is no value.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            yield dict(zip(self.columns, row, strict=True))

    def column(self, name: str) -> list[Any]:
        """Take one column.

        Args:
            name: Its name.

        Returns:
            Its values. An unknown name is a ValueError.
        """
        k = self.columns.index(one_of("column", name, self.columns))
        return [row[k] for row in self.rows]

    def to_pandas(self) -> Any:
        """Hand the rows to pandas.

        Returns:
            A `pandas.DataFrame`.

        Raises:
            ValueError: If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise ValueError(_missing("to_pandas", "pandas")) from None
        return pd.DataFrame(self.rows, columns=list(self.columns))

    def to_arrow(self) -> Any:
        """Hand the rows to Arrow.

        Returns:
            A `pyarrow.Table`.

        Raises:
            ValueError: If pyarrow is not installed.
        """
        try:
            import pyarrow as pa
        except ImportError:
            raise ValueError(_missing("to_arrow", "pyarrow")) from None
        return pa.table({name: self.column(name) for name in self.columns})

    def __str__(self) -> str:
        shown = [self.columns, *([_cut(value) for value in row] for row in self.rows[:_SHOWN])]
        widths = [max(len(row[k]) for row in shown) for k in range(len(self.columns))]
        lines = [
            "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
            for row in shown
        ]
        rest = len(self.rows) - _SHOWN
        return "\n".join([*lines, f"... and {rest} more rows"] if rest > 0 else lines)

    def _repr_html_(self) -> str:
        title = f"{len(self.rows)} rows"
        return table(title, [self.columns, *([_cut(value) for value in row] for row in self.rows)])


def _cut(value: object) -> str:
    text = (
        f"{value:.6g}" if isinstance(value, float) else visible(str("" if value is None else value))
    )
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}\u2026"


def _missing(method: str, package: str) -> str:
    return (
        f"{method} needs {package}, which is not installed; install it with: pip install "
        f"{package}, or read .rows"
    )
