"""What `cnn_study.py` found: sentences, figures and tables."""

from __future__ import annotations

import math

from cnn_study import COLD, WARM, Findings, Moment, Size, Start
from thermo_drawing import COLORS, Claim, Section, Series, Value, held, plotted, value_of

from capacity.estimate import Estimate
from capacity.report.format import Cell, cell, header_cell, number, say
from capacity.report.tables import Table

_NAMES = {
    "displacement_sq": "|\u0394\u03b8|\u00b2",
    "loss_drop": "loss drop",
    "length_ratio": "length over chord",
    "inefficiency": "inefficiency",
}
_COLOR = {COLD: COLORS[0], WARM: COLORS[1]}
_PALE = {COLD: COLORS[5], WARM: COLORS[4]}


def claims(findings: Findings) -> dict[str, Claim]:
    """Hold theory and the source against what came out."""
    cold, warm = findings.starts
    late = _exponent(cold)
    ends = [start.moments[-1] for start in findings.starts]
    below = [m for start in findings.starts for m in start.moments if value_of(m.by_drop) < 1]
    lowest = min((m for start in findings.starts for m in start.moments), key=_by_drop)
    firmly = [m for m in below if value_of(m.by_drop) + 2 * (m.by_drop.stderr or 0) < 1]
    misses = {start.name: max(start.held, key=_off) for start in findings.starts}
    worst = max(misses.values(), key=_off)
    gap = value_of(ends[0].by_drop) - value_of(ends[1].by_drop)
    error = math.hypot(ends[0].by_drop.stderr or 0, ends[1].by_drop.stderr or 0)
    sizes = [size.quarter for size in findings.sizes if size.quarter is not None]
    return {
        "scaling": Claim(
            "after a short costly regime learning is optimal in scaling: the inefficiency stops "
            "growing with T ([S])",
            f"over the last decade of T it grows as T to the power {number(late, 2)} (0 is optimal "
            "in scaling, 1 is standing still)",
            held(late < 0.5),
        ),
        "limit": Claim(
            "T dL is at least |\u0394\u03b8|\u00b2 for gradient flow",
            f"lowest {say(lowest.by_drop)} at T = {lowest.time:g}; {len(firmly)} moments "
            f"lie below 1 by more than two standard errors, by the length of the steps: the path's "
            f"own cost there is {number(value_of(lowest.of_path), 3)}",
            held(not firmly),
        ),
        "warm": Claim(
            "past that first regime, from a warm start, learning is closer to the limit ([S])",
            f"{say(ends[1].by_drop)} warm, {say(ends[0].by_drop)} cold, at the end",
            held(gap > 0 if abs(gap) > 2 * error else None),
        ),
        "kernel": Claim(
            "the kernel at the start foretells displacement, loss drop, length and inefficiency "
            "(exact if it stood still)",
            f"within 10 % for {_within(cold)} of {len(cold.held)} from the cold start, "
            f"{_within(warm)} of {len(warm.held)} from the warm one; worst {_miss(worst)}",
            held(all(_off(h) < 0.1 for start in findings.starts for h in start.held)),
        ),
        "size": Claim(
            "the inefficiency of learning to the same share of the loss does not depend on the "
            "size of the data set",
            f"to a quarter {say(sizes[0].by_drop)} for the smallest, {say(sizes[-1].by_drop)} for "
            "the largest"
            if len(sizes) > 1
            else "too few sizes came to a quarter of their loss",
            held(None if len(sizes) < 2 or _flat(sizes) else False),
        ),
    }


def _by_drop(moment: Moment) -> float:
    return value_of(moment.by_drop)


def _exponent(start: Start) -> float:
    """Exponent of T in the inefficiency, over the last decade of T."""
    last = start.moments[-1]
    first = min(start.moments, key=lambda m: abs(m.time - last.time / 10))
    rise = math.log(value_of(last.by_drop) / value_of(first.by_drop))
    return rise / math.log(last.time / first.time)


def _within(start: Start) -> int:
    return sum(_off(one) < 0.1 for one in start.held)


def _flat(moments: list[Moment]) -> bool:
    first, last = moments[0].by_drop, moments[-1].by_drop
    error = math.hypot(first.stderr or 0.0, last.stderr or 0.0)
    return abs(value_of(first) - value_of(last)) <= 2 * error


def told(findings: Findings) -> list[str]:
    """Say what came out."""
    cold, warm = findings.starts
    last = cold.moments[-1]
    small, large = findings.sizes[0], findings.sizes[-1]
    worst = {start.name: max(start.held, key=_off) for start in findings.starts}
    return [
        f"From a cold start, {number(findings.parameters, 6)} parameters and "
        f"{findings.kernel_samples} images, training takes {say(last.by_drop)} times as long as "
        f"the speed limit after T = {last.time:g}; from where the loss has halved, "
        f"{say(warm.moments[-1].by_drop)} times.",
        f"Training starts at the limit ({say(cold.moments[0].by_drop)} after the first noted step) "
        f"and {_course(cold)}. At the end the curve is {say(last.length_ratio)} times as long as "
        f"its chord: of the inefficiency, {_share(last)} is detour (its square), the rest is "
        "speed that falls along the way.",
        f"More data, same learning time: {say(small.end.by_drop)} at {small.samples} images, "
        f"{say(large.end.by_drop)} at {large.samples}. " + _quarters(small, large),
        f"Half of the residue lies in the first {say(cold.half_modes)} modes of the kernel at the "
        f"cold start, and in the first {say(warm.half_modes)} at the warm one: "
        + (
            "what is easy has been learned, and the residue has moved to slower modes."
            if value_of(warm.half_modes) > value_of(cold.half_modes)
            else "the kernel has aligned with what is left."
        ),
        "The kernel at the start, held still, misses most on "
        f"{_miss(worst[COLD])} from the cold start and on {_miss(worst[WARM])} from the warm one "
        "(predicted over measured).",
        _agreement(findings),
    ]


def _off(held: object) -> float:
    ratio = held.ratio  # type: ignore[attr-defined]
    return abs(value_of(ratio) - 1) if ratio.value is not None else 0.0


def _miss(held: object) -> str:
    return f"the {_NAMES[held.name]}, {say(held.ratio)}"  # type: ignore[attr-defined]


def _course(start: Start) -> str:
    values = [value_of(m.by_drop) for m in start.moments]
    peak = max(range(len(values)), key=values.__getitem__)
    if peak == len(values) - 1:
        return "is farthest from it at the end"
    return (
        f"is worst at T = {number(start.moments[peak].time, 2)}, with "
        f"{say(start.moments[peak].by_drop)}"
    )


def _share(moment: Moment) -> str:
    detour = value_of(moment.length_ratio) ** 2
    return f"a factor of {number(detour, 3)} out of {number(value_of(moment.of_path), 3)}"


def _quarters(small: Size, large: Size) -> str:
    if small.quarter is None or large.quarter is None:
        return "Not every size brought its loss down to a quarter in that time."
    return (
        f"To a quarter of the loss it is {say(small.quarter.by_drop)} and "
        f"{say(large.quarter.by_drop)}."
    )


def _agreement(findings: Findings) -> str:
    lines = []
    for start in findings.starts:
        near = [
            (m.time, value_of(m.by_drop), value_of(p))
            for m, p in zip(start.moments, start.predicted, strict=True)
        ]
        good = [t for t, m, p in near if abs(p / m - 1) > 0.1]
        lines.append(
            f"from the {start.name} its inefficiency is within 10 % of the measured one "
            + (f"up to T = {number(_before(near, good[0]), 2)}" if good else "throughout")
        )
    return f"How far the still kernel carries: {'; '.join(lines)}."


def _before(near: list[tuple[float, float, float]], first_bad: float) -> float:
    return max((t for t, _, _ in near if t < first_bad), default=0.0)


def section(findings: Findings) -> Section:
    """Make the section of the page."""
    spread = f"Mean and standard error over {findings.replicas} initialisations."
    found = claims(findings)
    inefficiency: list[Series] = []
    for start in findings.starts:
        times = [m.time for m in start.moments]
        by_drop = [m.by_drop for m in start.moments]
        inefficiency += [
            Series(f"{start.name}, measured", _zip(times, by_drop), _COLOR[start.name]),
            Series(
                f"{start.name}, by its kernel",
                _zip(times, [p.value for p in start.predicted]),
                _PALE[start.name],
                "line",
            ),
        ]
    sizes = [float(s.samples) for s in findings.sizes]
    quarter = [(float(s.samples), s.quarter.by_drop) for s in findings.sizes if s.quarter]
    overlap = [
        Series(
            f"residue, {start.name}", _zip(start.ranks, start.overlap), _COLOR[start.name], "both"
        )
        for start in findings.starts
    ]
    trace = [
        Series(
            f"trace, {start.name}",
            _zip(start.ranks, [value_of(e) for e in start.trace_share]),
            _PALE[start.name],
            "dash",
        )
        for start in findings.starts
    ]
    return Section(
        "cnn",
        "A convolutional network",
        told(findings),
        [
            plotted(
                inefficiency,
                anchor="fig-cnn-time",
                title="Inefficiency over training",
                caption="Time counts from each start. Lines: what the tangent kernel at the start, "
                f"held still, predicts. {spread} {found['scaling'].caption} "
                f"{found['limit'].caption}",
                alt_text="Inefficiency against learning time on a logarithmic axis, measured and "
                "predicted, from the cold and from the warm start.",
                x="learning time since the start",
                y="T dL / |\u0394\u03b8|\u00b2",
                log_x=True,
                one=True,
                height=300,
            ),
            plotted(
                [
                    Series(
                        "at the end",
                        _zip(sizes, [s.end.by_drop for s in findings.sizes]),
                        COLORS[0],
                        "both",
                    ),
                    *(
                        [Series("at a quarter of the loss", quarter, COLORS[2], "both")]
                        if quarter
                        else []
                    ),
                ],
                anchor="fig-cnn-size",
                title="Inefficiency over the size of the data set",
                caption=f"At T = {findings.learning_time:g}, and where the mean loss has "
                f"fallen to a quarter. {spread} {found['size'].caption}",
                alt_text="Inefficiency against the number of images on a logarithmic axis.",
                x="training images",
                y="T dL / |\u0394\u03b8|\u00b2",
                log_x=True,
                one=True,
                half=True,
            ),
            plotted(
                [
                    Series(
                        start.name,
                        [(m.time, m.length_ratio) for m in start.moments],
                        _COLOR[start.name],
                        "both",
                    )
                    for start in findings.starts
                ],
                anchor="fig-cnn-length",
                title="Curve length over chord",
                caption="1 is a straight line in parameter space; its square is the share of the "
                f"inefficiency that detours make. {spread} {found['warm'].caption}",
                alt_text="Length of the curve over its chord against learning time on a "
                "logarithmic axis, from the cold and from the warm start.",
                x="learning time since the start",
                y="length / chord",
                log_x=True,
                one=True,
                half=True,
            ),
            plotted(
                [*overlap, *trace],
                anchor="fig-cnn-overlap",
                title="Residue overlap",
                caption="Share of the squared residue in the kernel's first k modes, and, dashed, "
                f"share of its trace. The theory of the still kernel needs no more than these "
                f"shares; where the residue lags the trace, slow modes are left to learn. {spread}",
                alt_text="Cumulative share of the residue against the number of leading kernel "
                "modes on a logarithmic axis, cold and warm, with the share of the trace.",
                x="leading modes k",
                y="share",
                log_x=True,
                half=True,
            ),
            plotted(
                [
                    Series(
                        start.name,
                        [
                            (float(k), value)
                            for k, value in zip(start.ranks, start.eigenvalues, strict=True)
                            if value > 1e-8
                        ],
                        _COLOR[start.name],
                        "line",
                    )
                    for start in findings.starts
                ],
                anchor="fig-cnn-spectrum",
                title="Spectrum of the tangent kernel",
                caption="Eigenvalues of \u0398/n, mean over initialisations: straight here is a "
                f"power law. {found['kernel'].caption}",
                alt_text="Eigenvalues of the tangent kernel against their rank, both axes "
                "logarithmic, at the cold and at the warm start.",
                x="rank",
                y="eigenvalue of \u0398/n",
                log_x=True,
                log_y=True,
                half=True,
            ),
        ],
        [kernel_table(findings), size_table(findings)],
        list(found.values()),
    )


def kernel_table(findings: Findings) -> Table:
    """Predicted against measured over the whole stretch."""
    return Table(
        caption="What the kernel at the start predicts for the whole stretch",
        columns=("Quantity", "Start", "Predicted", "Measured", "Predicted over measured"),
        rows=[
            (
                header_cell(_NAMES[held.name]),
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
            _plain(moment.by_drop),
            _plain(moment.length_ratio),
        )

    return Table(
        caption=f"By size of the data set, T = {findings.learning_time:g}, lr = {findings.lr:g}",
        columns=(
            "Images",
            "At the end::loss",
            "At the end::T dL / |\u0394\u03b8|\u00b2",
            "At the end::of the path",
            "At the end::length over chord",
            "At a quarter of the loss::T",
            "At a quarter of the loss::T dL / |\u0394\u03b8|\u00b2",
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


def _zip(
    xs: list[float] | list[int], values: list[Estimate] | list[Value]
) -> list[tuple[float, Value]]:
    return [(float(x), value) for x, value in zip(xs, values, strict=True)]


def _plain(estimate: Estimate) -> Cell:
    return Cell(cell(estimate).text)
