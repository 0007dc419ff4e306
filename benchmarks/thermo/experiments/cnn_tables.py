"""Tables of what `cnn_study.py` found, and its loss."""

from __future__ import annotations

from cnn_study import COLD, WARM, Findings, Moment
from thermo_drawing import COLORS, Series, plotted

from capacity.records.estimate import Estimate
from capacity.records.number_format import Cell, cell, header_cell
from capacity.records.numbers import number
from capacity.report.charts import Figure
from capacity.report.tables import Table

COLOR = {COLD: COLORS[0], WARM: COLORS[1]}
NAMES = {
    "displacement_sq": "|\u0394\u03b8|\u00b2",
    "loss_drop": "loss drop",
    "length_ratio": "length over chord",
    "loss_drop_ratio": "T dL/|\u0394\u03b8|\u00b2",
}


def kernel_table(findings: Findings) -> Table:
    """Predicted against measured over the whole stretch."""
    return Table(
        caption="What the kernel at the start predicts for the whole stretch",
        columns=("Quantity", "Start", "Predicted", "Measured", "Predicted over measured"),
        rows=[
            (
                header_cell(NAMES[held.name]),
                Cell(start.name, numeric=False),
                _plain(held.predicted),
                _plain(held.measured),
                _plain(held.ratio),
            )
            for start in findings.starts
            for held in start.held
        ],
        remark=f"Full kernel on {findings.kernel_samples} images; the warm start is where the mean "
        f"loss has halved, T = {findings.starts[1].began:g}. Errors of the ratio are "
        "added as if independent.",
    )


def size_table(findings: Findings) -> Table:
    """Costs by number of samples."""

    def at(moment: Moment | None) -> tuple[Cell, ...]:
        if moment is None:
            return (Cell("never", numeric=False), Cell("\u2013"), Cell("\u2013"))
        return (
            Cell(number(moment.time, 3)),
            _plain(moment.of_path),
            _plain(moment.length_ratio),
        )

    return Table(
        caption=f"By size of the data set, T = {findings.learning_time:g}, lr = {findings.lr:g}",
        columns=(
            "Images",
            "At the end::loss",
            "At the end::T dL / |\u0394\u03b8|\u00b2",
            "At the end::inefficiency",
            "At the end::length over chord",
            "At a quarter of the loss::T",
            "At a quarter of the loss::inefficiency",
            "At a quarter of the loss::length over chord",
        ),
        rows=[
            (
                header_cell(str(size.samples)),
                _plain(size.end.loss),
                _plain(size.end.by_drop),
                _plain(size.end.of_path),
                _plain(size.end.length_ratio),
                *at(size.quarter),
            )
            for size in findings.sizes
        ],
        remark=f"Mean \u00b1 standard error over {findings.replicas} initialisations. The path "
        "costs a little more than the loss drop: steps are finite.",
    )


def loss_figure(findings: Findings, spread: str) -> Figure:
    """Draw the loss over learning time: what the cost of the other figures has bought."""
    return plotted(
        [
            Series(
                start.name,
                [(start.began + m.time, m.loss) for m in start.moments],
                COLOR[start.name],
                "both",
            )
            for start in findings.starts
        ],
        anchor=f"fig-{findings.network}-loss",
        title="Training loss over learning time",
        caption="One training, noted from either start: time counts from the initialisation. "
        f"{spread}",
        alt_text="Training loss against learning time, both axes logarithmic, falling.",
        x="learning time since the initialisation",
        y="training loss",
        log_x=True,
        log_y=True,
    )


def _plain(estimate: Estimate) -> Cell:
    return Cell(cell(estimate).text)
