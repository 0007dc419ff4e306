"""`capacity.compare`: many runs on one page and in one table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from capacity.comparison import tables, words
from capacity.comparison.gather import Gathered, gather
from capacity.comparison.page import to_html
from capacity.notebook import table
from capacity.runs.files import sweep, write_atomically


@dataclass(frozen=True)
class Comparison:
    """Runs side by side; what differs between their recipes was found by itself.

    Attributes:
        gathered: The runs, sorted into variants.
    """

    gathered: Gathered

    @property
    def variants(self) -> dict[str, list[Path]]:
        """Directories of the runs by the name of their variant."""
        return {v.label: [entry.path for entry in v.entries] for v in self.gathered.variants}

    @property
    def differences(self) -> dict[str, dict[str, object]]:
        """By field of the recipe that differs, its value in every variant."""
        return {
            field: {v.label: v.values[field] for v in self.gathered.variants}
            for field in self.gathered.differences
        }

    @property
    def headline(self) -> str:
        """What the comparison shows, in one or two sentences."""
        return words.headline(self.gathered)

    def report(self, output: str | Path) -> Path:
        """Write the page: one HTML file that needs no network and no other file.

        Args:
            output: The file.

        Returns:
            Its path.

        Raises:
            ValueError: If the file cannot be written.
        """
        target = Path(output)
        if target.is_dir():
            raise ValueError(f"output = {str(target)!r} is a directory; name an .html file")
        try:
            sweep(target.parent, target.name)
            write_atomically(target, to_html(self.gathered).encode())
        except OSError as error:
            raise ValueError(
                f"output = {str(target)!r} cannot be written ({error.strerror}); name another file"
            ) from None
        return target

    def __str__(self) -> str:
        return tables.terminal(self.gathered)

    def _repr_html_(self) -> str:
        made = tables.summary_table(self.gathered)
        rows = [[f"{c.text} {c.status}".strip() for c in row] for row in made.rows]
        return table(self.headline, [made.heads, *rows])


def compare(*runs: object, output: str | Path | None = None) -> Comparison:
    """Set many runs side by side: seeds with their spread, strategies, recipes.

    Runs of one recipe that differ by their seed form a variant. Only finished runs enter a mean;
    the others are shown with their state.

    Args:
        *runs: Paths of run directories, folders of run directories, `Run`s, or lists of these.
        output: The HTML file to write; None writes none.

    Returns:
        The comparison; it prints as a table.

    Example:
        >>> import capacity
        >>> made = capacity.compare("runs/ewc", "runs/replay")  # doctest: +SKIP
        >>> print(made)  # doctest: +SKIP
    """
    made = Comparison(gather(paths_of(runs)))
    if output is not None:
        made.report(output)
    return made


def paths_of(runs: Iterable[object]) -> list[str | Path]:
    """Turn runs, paths and lists of them into paths.

    Args:
        runs: What a user named.

    Returns:
        Paths; what is neither is passed on, for the check of paths to name.
    """
    out: list[str | Path] = []
    for run in runs:
        if isinstance(run, list | tuple | set | frozenset):
            out += paths_of(run)
        elif hasattr(run, "path"):
            out.append(run.path)
        else:
            out.append(run)  # type: ignore[arg-type]
    return out
