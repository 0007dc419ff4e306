"""`capacity.compare`: many runs on one page and in one table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from capacity.base.files import sweep, write_atomically
from capacity.comparison import comparison_sentences, comparison_tables
from capacity.records.html_table import table
from capacity.results.gather import Gathered, gather, paths_of


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
        return comparison_sentences.headline(self.gathered)

    def report(self, output: str | Path) -> Path:
        """Write the page: one HTML file that needs no network and no other file.

        Args:
            output: The file.

        Returns:
            Its path.

        Raises:
            ValueError: If the file cannot be written.
        """
        from capacity.comparison.comparison_page import to_html  # charts take a second to import

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
        return comparison_tables.terminal(self.gathered)

    def _repr_html_(self) -> str:
        made = comparison_tables.summary_table(self.gathered)
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
