"""The report of a run: one HTML file, readable without a network and without JavaScript."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capacity.report.page import render as render

__all__ = ["render"]


def __getattr__(name: str) -> Any:
    # The page takes a second to import; its formats are of use without it.
    if name != "render":
        raise AttributeError(f"module 'capacity.report' has no attribute {name!r}")
    from capacity.report.page import render

    return render
