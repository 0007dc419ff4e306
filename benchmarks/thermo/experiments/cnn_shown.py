"""What `cnn_study.py` found: sentences, figures and tables."""

from __future__ import annotations

import math
from collections.abc import Iterable

from cnn_study import CNN, COLD, FCN, WARM, Findings, Moment, Size, Start
from cnn_tables import COLOR, NAMES, kernel_table, loss_figure, size_table
from thermo_claims import Check, Claim, Section, exponent, held, visible
from thermo_drawing import COLORS, Series, Value, plotted, value_of

from capacity.records.estimate import Estimate
from capacity.records.number_format import say
from capacity.records.numbers import number, with_interval
from capacity.thermo.regime import CLOSE, FAR

WIDE = 0.1
"""Half-width of an exponent's interval from which nothing is said of its being 0."""
TITLES = {CNN: "A convolutional network", FCN: "A fully connected network"}
_PALE = {COLD: COLORS[5], WARM: COLORS[4]}


def claims(findings: Findings) -> dict[str, Claim]:
    """Hold theory and the source against what came out."""
    cold, warm = findings.starts
    growth = {start.name: exponent(_decade(start)) for start in findings.starts}
    ends = [start.moments[-1] for start in findings.starts]
    every = [m for start in findings.starts for m in start.moments]
    flow = [m for m in every if _follows_flow(m)]
    nearest = min(every, key=_by_drop)
    lowest = min(flow, key=_by_drop) if flow else nearest
    firmly = [m for m in flow if value_of(m.by_drop) + 2 * (m.by_drop.stderr or 0) < 1]
    misses = {start.name: max(start.held, key=_off) for start in findings.starts}
    worst = max(misses.values(), key=_off)
    gap = value_of(ends[0].of_path) - value_of(ends[1].of_path)
    error = math.hypot(ends[0].of_path.stderr or 0, ends[1].of_path.stderr or 0)
    sizes = [(s.samples, s.quarter.of_path) for s in findings.sizes if s.quarter is not None]
    by_size = exponent(sizes) if len(sizes) > 2 else None
    return {
        "scaling": Claim(
            "after a short costly regime learning is optimal in scaling: the inefficiency stops "
            "growing with T ([S])",
            "over the last decade of T it grows as T to the power "
            + ", ".join(
                f"{_interval(power)} from the {name} ({power.n} points)"
                for name, power in growth.items()
            ),
            _level(growth.values()),
            "an exponent above 0 beyond its 95 % interval, in a fit over every noted moment of "
            f"that decade; {number(max(_half(power) for power in growth.values()), 2)} would have "
            "shown from either start (by the scatter about the line; moments share their networks)",
        ),
        "limit": Claim(
            "T dL is at least |\u0394\u03b8|\u00b2 for gradient flow",
            f"of {len(flow)} moments of {len(every)} at which the path and the loss drop agree the "
            f"lowest is {say(lowest.by_drop)}, at T = {lowest.time:g}; at the others the steps are "
            f"too long for the flow, and the ratio comes to {say(nearest.by_drop)}"
            if flow
            else "at no moment do the path and the loss drop agree",
            held(not firmly if flow else None),
            "one of these moments below 1 by two standard errors; at the lowest, "
            f"{visible([lowest.by_drop], errors=2)} would have shown",
        ),
        "warm": Claim(
            "past that first regime, from a warm start, learning is closer to the limit ([S])",
            f"{say(ends[1].of_path)} warm, {say(ends[0].of_path)} cold, at the end",
            held(gap > 0 if abs(gap) > 2 * error else None),
            "a warm start farther from the limit by two standard errors; a difference of "
            f"{number(2 * error, 2)} would have shown, either way",
        ),
        "kernel": Claim(
            "the kernel at the start foretells displacement, loss drop, length and inefficiency "
            "(exact if it stood still)",
            f"within 10 % for {_within(cold)} of {len(cold.held)} from the cold start, "
            f"{_within(warm)} of {len(warm.held)} from the warm one; worst {_miss(worst)}",
            held(all(_off(h) < 0.1 for start in findings.starts for h in start.held)),
            "one of them off by 10 %; their errors are "
            f"{visible((h.ratio for start in findings.starts for h in start.held), errors=1)} at "
            "most (one standard error)",
        ),
        "size": Claim(
            "the inefficiency of learning to the same share of the loss does not depend on the "
            "size of the data set",
            f"to a quarter {say(sizes[0][1])} for {sizes[0][0]} images, {say(sizes[-1][1])} for "
            f"{sizes[-1][0]}: as the size to the power {_interval(by_size)}, a fit over all "
            f"{by_size.n} sizes"
            if by_size
            else "too few sizes came to a quarter of their loss",
            _level([by_size]) if by_size else "inconclusive",
            "an exponent that is not 0, beyond its 95 % interval; "
            + (f"{number(_half(by_size), 2)} would have shown" if by_size else "none was fitted"),
        ),
    }


def checks(findings: Findings) -> list[Check]:
    """Say what the meter had to find, whatever was trained."""
    moments = [m for start in findings.starts for m in start.moments]
    lowest = min(moments, key=lambda m: value_of(m.of_path))
    return [
        Check(
            "T \u03a3|\u0394\u03b8\u2096|\u00b2/lr is at least |\u0394\u03b8|\u00b2 at every "
            "moment (Cauchy-Schwarz)",
            f"lowest of {len(moments)} moments {number(value_of(lowest.of_path), 4)}, at "
            f"T = {lowest.time:g}",
            value_of(lowest.of_path) >= 1,
        )
    ]


def _decade(start: Start) -> list[tuple[float, Value]]:
    """Moments of the last decade of T, all of them."""
    last = start.moments[-1].time
    return [(m.time, m.of_path) for m in start.moments if m.time >= 0.0999 * last]


def _interval(power: Estimate) -> str:
    assert power.interval is not None
    return with_interval(value_of(power), power.interval)


def _half(power: Estimate) -> float:
    assert power.interval is not None
    return (power.interval[1] - power.interval[0]) / 2


def _level(powers: Iterable[Estimate]) -> str:
    """Word whether exponents are 0: not where one is beyond its interval, open where it is wide."""
    found = list(powers)
    if any(e.interval is not None and not e.interval[0] <= 0 <= e.interval[1] for e in found):
        return held(False)
    return held(True if all(_half(e) < WIDE for e in found) else None)


def _follows_flow(moment: Moment) -> bool:
    """Whether the loss drop and the path agree, by the package's own criterion."""
    path, drop = moment.of_path, moment.by_drop
    error = math.hypot(path.stderr or 0.0, drop.stderr or 0.0)
    off = abs(value_of(path) - value_of(drop))
    return off <= max(CLOSE * value_of(path), min(error, FAR * value_of(path)))


def _by_drop(moment: Moment) -> float:
    return value_of(moment.by_drop)


def _within(start: Start) -> int:
    return sum(_off(one) < 0.1 for one in start.held)


def told(findings: Findings) -> list[str]:
    """Say what came out."""
    cold, warm = findings.starts
    last = cold.moments[-1]
    small, large = findings.sizes[0], findings.sizes[-1]
    worst = {start.name: max(start.held, key=_off) for start in findings.starts}
    return [
        f"From a cold start, {number(findings.parameters, 6)} parameters and "
        f"{findings.kernel_samples} images, training takes {say(last.of_path)} times as long as "
        f"the speed limit after T = {last.time:g}; from where the loss has halved, "
        f"{say(warm.moments[-1].of_path)} times.",
        f"Training starts at the limit ({say(cold.moments[0].of_path)} after the first noted step) "
        f"and {_course(cold)}. At the end the curve is {say(last.length_ratio)} times as long as "
        f"its chord: of the inefficiency, {_share(last)} is detour (its square), the rest is "
        "speed that falls along the way.",
        f"More data, same learning time: {say(small.end.of_path)} at {small.samples} images, "
        f"{say(large.end.of_path)} at {large.samples}. " + _quarters(small, large),
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
    return f"the {NAMES[held.name]}, {say(held.ratio)}"  # type: ignore[attr-defined]


def _course(start: Start) -> str:
    values = [value_of(m.of_path) for m in start.moments]
    peak = max(range(len(values)), key=values.__getitem__)
    if peak == len(values) - 1:
        return "is farthest from it at the end"
    return (
        f"is worst at T = {number(start.moments[peak].time, 2)}, with "
        f"{say(start.moments[peak].of_path)}"
    )


def _share(moment: Moment) -> str:
    detour = value_of(moment.length_ratio) ** 2
    return f"a factor of {number(detour, 3)} out of {number(value_of(moment.of_path), 3)}"


def _quarters(small: Size, large: Size) -> str:
    if small.quarter is None or large.quarter is None:
        return "Not every size brought its loss down to a quarter in that time."
    return (
        f"To a quarter of the loss it is {say(small.quarter.of_path)} and "
        f"{say(large.quarter.of_path)}."
    )


def _agreement(findings: Findings) -> str:
    lines = []
    for start in findings.starts:
        near = [
            (m.time, value_of(m.of_path), value_of(p))
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
    kind = findings.network
    spread = f"Mean and standard error over {findings.replicas} initialisations."
    found = claims(findings)
    inefficiency: list[Series] = []
    for start in findings.starts:
        times = [m.time for m in start.moments]
        of_path = [m.of_path for m in start.moments]
        inefficiency += [
            Series(f"{start.name}, measured", _zip(times, of_path), COLOR[start.name]),
            Series(
                f"{start.name}, by its kernel",
                _zip(times, [p.value for p in start.predicted]),
                _PALE[start.name],
                "line",
            ),
        ]
    sizes = [float(s.samples) for s in findings.sizes]
    quarter = [(float(s.samples), s.quarter.of_path) for s in findings.sizes if s.quarter]
    overlap = [
        Series(
            f"residue, {start.name}", _zip(start.ranks, start.overlap), COLOR[start.name], "both"
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
        kind,
        TITLES[kind],
        told(findings),
        [
            plotted(
                inefficiency,
                anchor=f"fig-{kind}-time",
                title="Inefficiency over training",
                caption="Time counts from each start. Lines: what the tangent kernel at the start, "
                f"held still, predicts. {spread} {found['scaling'].caption} "
                f"{found['limit'].caption}",
                alt_text="Inefficiency against learning time on a logarithmic axis, measured and "
                "predicted, from the cold and from the warm start.",
                x="learning time since the start",
                y="inefficiency",
                log_x=True,
                one=True,
                height=300,
            ),
            loss_figure(findings, spread),
            plotted(
                [
                    Series(
                        "at the end",
                        _zip(sizes, [s.end.of_path for s in findings.sizes]),
                        COLORS[0],
                        "both",
                    ),
                    *(
                        [Series("at a quarter of the loss", quarter, COLORS[2], "both")]
                        if quarter
                        else []
                    ),
                ],
                anchor=f"fig-{kind}-size",
                title="Inefficiency over the size of the data set",
                caption=f"At T = {findings.learning_time:g}, and where the mean loss has "
                f"fallen to a quarter. {spread} {found['size'].caption}",
                alt_text="Inefficiency against the number of images on a logarithmic axis.",
                x="training images",
                y="inefficiency",
                log_x=True,
                one=True,
                half=True,
            ),
            plotted(
                [
                    Series(
                        start.name,
                        [(m.time, m.length_ratio) for m in start.moments],
                        COLOR[start.name],
                        "both",
                    )
                    for start in findings.starts
                ],
                anchor=f"fig-{kind}-length",
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
                anchor=f"fig-{kind}-overlap",
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
                        COLOR[start.name],
                        "line",
                    )
                    for start in findings.starts
                ],
                anchor=f"fig-{kind}-spectrum",
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
        checks(findings),
    )


def _zip(
    xs: list[float] | list[int], values: list[Estimate] | list[Value]
) -> list[tuple[float, Value]]:
    return [(float(x), value) for x, value in zip(xs, values, strict=True)]
