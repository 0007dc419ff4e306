"""From a run directory to one HTML file. Reading and writing happen here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from capacity.base.files import sweep, write_atomically
from capacity.records.numbers import number, plural
from capacity.report import sentences
from capacity.report.blocks import Section, figures_in
from capacity.report.charts import Figure
from capacity.report.sections import SECTIONS
from capacity.report.shell import sections_page
from capacity.report.shell import symbols as symbols
from capacity.results.reader import RunReader
from capacity.results.view import RunView
from capacity.results.view_of_run import view_of


def render(
    run_dir: Path, output: Path | None = None, *, sections: Sequence[Section[RunView]] = SECTIONS
) -> Path:
    """Write the report of a run: one HTML file that needs no network and no other file.

    A directory without a run, or with a file that cannot be read, is a `ValueError`.

    Args:
        run_dir: The run directory, in whatever state the run is.
        output: The HTML file; None writes `report.html` into the run directory.
        sections: What the page shows, in its order.

    Returns:
        Path of the report.
    """
    target = Path(run_dir) / "report.html" if output is None else Path(output)
    content = to_html(read(Path(run_dir)), sections).encode()
    sweep(target.parent, target.name)
    write_atomically(target, content)
    return target


def read(run_dir: Path) -> RunView:
    """Read everything that a report shows.

    Args:
        run_dir: The run directory.

    Returns:
        Its content. A directory without a run, or a file that cannot be read, is a ValueError.
    """
    return view_of(RunReader.open(run_dir))


def to_html(view: RunView, sections: Sequence[Section[RunView]] = SECTIONS) -> str:
    """Make the page.

    Args:
        view: The run.
        sections: What it shows, in its order.

    Returns:
        HTML.
    """
    warning = f"{sentences.state_sentence(view)} {sentences.digest_sentence(view)}".strip()
    return sections_page(
        sections,
        view,
        len(view.tasks),
        title=f"{view.name} \u2013 capacity report",
        name=view.name,
        state=(view.state, sentences.state_word(view)),
        lines=[view.recipe.get("description"), _set_up(view)],
        warnings=[warning] if warning else [],
        footer=_footer(view),
    )


def figures(view: RunView) -> dict[str, list[Figure]]:
    """Make every figure that the run has data for.

    Args:
        view: The run.

    Returns:
        Figures by the anchor of their section; a section without data has none.
    """
    return {section.anchor: figures_in(section.blocks(view)) for section in SECTIONS}


def _set_up(view: RunView) -> str:
    """Say what was trained, and how."""
    if not view.result:
        return ""
    model, training = view.result["model"], view.recipe.get("training") or {}
    steps, curriculum = training.get("max_steps"), training.get("curriculum")
    length = plural(steps, "step") if steps else plural(training["epochs"], "epoch")
    first = f", {curriculum['first']} samples first" if curriculum else ""
    return " \u00b7 ".join([
        plural(len(view.tasks), "task"),
        model["description"],
        f"{number(model['parameters'], 6)} parameters",
        f"{training['optimizer']}, learning rate {training['lr']:g}, {length} per task{first}",
        plural(view.replicas, "replica"),
    ])


def _footer(view: RunView) -> str:
    seed = (view.result or view.recipe).get("seed")
    version = view.env.get("packages", {}).get("capacity", "")
    updated = view.status.get("updated")
    return f"{view.name} \u00b7 seed {seed} \u00b7 capacity {version}" + (
        f" \u00b7 {updated}" if updated else ""
    )
