"""From a run directory to one HTML file. Reading and writing happen here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from capacity.base.files import sweep, write_atomically
from capacity.report import (
    capacity_detail,
    closure_curve,
    cost_over_time,
    forgetting,
    learning,
    measure_figures,
    prediction,
    predictors,
    sentences,
    spectra,
    spectrum_parts,
    strategies,
    strategy_forecasts,
    tables,
    transition_lights,
)
from capacity.report.charts import Figure
from capacity.report.reproduce import python_call, runs_from_recipe
from capacity.report.shell import page
from capacity.report.shell import symbols as symbols
from capacity.results.reader import RunReader
from capacity.results.view import RunView
from capacity.results.view_of_run import view_of
from capacity.tasks.scoring import scoring_words


def render(run_dir: Path, output: Path | None = None) -> Path:
    """Write the report of a run: one HTML file that needs no network and no other file.

    A directory without a run, or with a file that cannot be read, is a `ValueError`.

    Args:
        run_dir: The run directory, in whatever state the run is.
        output: The HTML file; None writes `report.html` into the run directory.

    Returns:
        Path of the report.
    """
    target = Path(run_dir) / "report.html" if output is None else Path(output)
    content = to_html(read(Path(run_dir))).encode()
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


def to_html(view: RunView) -> str:
    """Make the page.

    Args:
        view: The run.

    Returns:
        HTML.
    """
    groups = figures(view)
    everything = [figure for group in groups.values() for figure in group]
    several = view.learned > 0
    scored_pairs = (view.result.get("scores") or {}).get("pairs", 0)
    return page(
        "page.html",
        everything,
        len(view.tasks),
        view=view,
        state=sentences.state_word(view),
        warning=" ".join(
            filter(None, (sentences.state_sentence(view), sentences.digest_sentence(view)))
        ),
        headline=sentences.headline(view),
        facts=sentences.facts(view),
        scoring=scoring_words(view.tasks),
        sentences=[
            (f"transition-{int(t['task']) + 1}", sentences.transition_sentence(view, t))
            for t in view.transitions
        ],
        light_table=transition_lights.light_table(view) if view.transitions else None,
        strategies=strategy_forecasts.strategies_sentence(view),
        literal=sentences.literal_sentence(view),
        scored=sentences.score_sentence(view),
        forecast_table=tables.forecast_table(view) if view.transitions else None,
        room_table=tables.room_table(view) if view.transitions else None,
        score_table=tables.score_table(view) if scored_pairs else None,
        forgetting=forgetting.forgetting_tables(view),
        transport_table=measure_figures.transport_table(view),
        parts_sentence=spectrum_parts.parts_sentence(view),
        parts_table=spectrum_parts.parts_table(view),
        rank_table=spectrum_parts.rank_table(view),
        thermo_table=measure_figures.thermo_table(view),
        groups=groups,
        eps_rows=tables.eps_table(view),
        verdict_table=capacity_detail.verdict_table(view),
        preserving_table=capacity_detail.preserving_table(view),
        sensitivity_table=capacity_detail.sensitivity_table(view),
        plasticity_table=capacity_detail.plasticity_table(view),
        from_recipe=runs_from_recipe(view.recipe),
        python_call=python_call(view.recipe),
        measured=several,
    )


def figures(view: RunView) -> dict[str, list[Figure]]:
    """Make every figure that the run has data for.

    Args:
        view: The run.

    Returns:
        Figures by section; a section without data has none.
    """
    targets = ("accuracy_drop", "loss_increase") if view.classifies else ("loss_increase",)
    made: dict[str, Iterable[Figure | None]] = {
        "verdict": [prediction.drop_figure(view)],
        "accuracy": [learning.matrix_figure(view)],
        "curves": [
            learning.curve_figure(view),
            forgetting.forgetting_figure(view),
            learning.train_figure(view),
        ],
        "scatter": [prediction.scatter_figure(view, target) for target in targets],
        "predictors": [predictors.predictor_figure(view)],
        "parts": [spectra.composed_figure(view)],
        "transport": [
            measure_figures.spectrum_figure(view),
            measure_figures.volume_figure(view),
        ],
        "capacity": [prediction.capacity_figure(view)],
        "closure": [closure_curve.closure_figure(view)],
        "thermo": [
            measure_figures.thermo_figure(view),
            cost_over_time.cost_figure(view),
            cost_over_time.inefficiency_figure(view),
        ],
        "strategies": [strategies.strategy_figure(view)],
    }
    return {name: [f for f in group if f is not None] for name, group in made.items()}
