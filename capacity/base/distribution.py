"""The name under which the package is installed, and its version; it is imported as `capacity`."""

from __future__ import annotations

VERSION = "0.1.0"
DISTRIBUTION = "continual-capacity"
"""The package index has another project under the import's name."""


def install(extra: str) -> str:
    """Say how the packages of an optional part are installed.

    Args:
        extra: Name of the part, as in pyproject.toml.

    Returns:
        The command.
    """
    return f"pip install '{DISTRIBUTION}[{extra}]'"
