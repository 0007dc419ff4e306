"""What `ensemble_size.py` found: sentences, figures and tables."""

from __future__ import annotations

import math

from ensemble_size import Findings
from scipy import stats
from thermo_claims import Claim, Section, exponent, held, rare, visible
from thermo_drawing import COLORS, Series, plotted, value_of

from capacity.records.estimate import Estimate
from capacity.records.number_format import Cell, cell, header_cell, say
from capacity.records.numbers import number, with_interval
from capacity.report.tables import Table


def claims(findings: Findings) -> dict[str, Claim]:
    """Hold theory against what came out."""
    rows, nets = findings.gaussian, findings.networks
    total = len(rows) * findings.repeats
    inside = sum(round(row.bracketed * findings.repeats) for row in rows)
    false = sum(round(row.faked_rule * findings.repeats) for row in rows)
    power = exponent([(n.count, n.half_width / stats.t.ppf(0.975, n.count - 1)) for n in nets])
    assert power.interval is not None
    return {
        "bracket": Claim(
            "W2\u00b2 lies between the trace bound and the path coupling",
            f"in {inside} of {total} ensembles, intervals included",
            held(inside >= 0.95 * total),
            f"more than 5 % of the ensembles outside; a share of {rare(total)} would have shown at "
            "least once, 19 times out of 20",
        ),
        "assignment": Claim(
            "assignment between independent samples estimates W2\u00b2",
            f"{say(rows[0].assignment)} times W2\u00b2 at N = {rows[0].count}, "
            f"{say(rows[-1].assignment)} times at N = {rows[-1].count}",
            held(abs(value_of(rows[-1].assignment) - 1) < 0.1),
            f"more than 10 % off at the largest N; {visible([rows[-1].assignment])} would have "
            "shown",
        ),
        "rule": Claim(
            "the rule fakes no violation",
            f"{false} of {total} ensembles on the geodesic",
            held(false <= 0.05 * total),
            f"more than 5 % called faster than possible; a share of {rare(total)} would have "
            "shown, 19 times out of 20. It is not blind: of costs understated by half it catches "
            + ", ".join(f"{100 * row.caught:.0f} % (N = {row.count})" for row in rows),
        ),
        "width": Claim(
            "standard errors (half-widths over Student's t) shrink as 1/\u221aN",
            f"as N to the power {_power(power)}, a fit over all {power.n} sizes",
            held(power.interval[0] <= -0.5 <= power.interval[1]),
            "an interval of the exponent (95 %) without \u22120.5; "
            f"{number((power.interval[1] - power.interval[0]) / 2, 2)} off would have shown",
        ),
    }


def _power(power: Estimate) -> str:
    assert power.interval is not None
    return with_interval(value_of(power), power.interval)


def told(findings: Findings) -> list[str]:
    """Say what came out."""
    rows, nets = findings.gaussian, findings.networks
    enough = next((row for row in rows if row.caught >= 0.95), None)
    few, many = nets[0], nets[-1]
    return [
        "On a geodesic, where T\u03a3 = W2\u00b2, assignment between samples of the two ends says "
        f"{say(rows[-1].assignment)} times W2\u00b2 even at N = {rows[-1].count}, and calls "
        f"{number(100 * rows[-1].faked_assignment, 3)} % of the ensembles faster than possible; "
        "the rule of this package calls "
        f"{round(sum(r.faked_rule for r in rows) * findings.repeats)} of "
        f"{len(rows) * findings.repeats} so, over all sizes.",
        "A true violation, T\u03a3 understated by half, is caught in "
        + ", ".join(f"{100 * row.caught:.0f} % (N = {row.count})" for row in rows)
        + (f"; N = {enough.count} is enough here." if enough else "; no size is enough here."),
        f"The path coupling of the noisy particles is {say(rows[-1].path)} times W2\u00b2 and more "
        "replicas do not help: it is another coupling, not a noisy estimate. The trace bound is "
        f"{say(rows[-1].trace)} times W2\u00b2.",
        "Networks: T dL/|\u0394\u03b8|\u00b2 per replica is "
        f"{number(value_of(many.loss_drop_ratio), 4)} with {many.count} of them, known to "
        f"\u00b1 {number(100 * few.half_width, 2)} % with {few.count} and to "
        f"\u00b1 {number(100 * many.half_width, 2)} % with {many.count} (half-width at 95 %).",
        "Of the whole population it is only known to lie between "
        f"{number(value_of(many.by_path), 4)} and {number(value_of(many.by_trace), 4)}: networks "
        "do not pin W2 from below. That its lower end is above 1 is no finding: every path obeys "
        "its own limit, and so does their mean.",
    ]


def section(findings: Findings) -> Section:
    """Make the section of the page."""
    rows, nets = findings.gaussian, findings.networks
    found = claims(findings)
    counts = [float(row.count) for row in rows]
    scale = nets[0].half_width * math.sqrt(nets[0].count)
    spread = [(float(n.count), 1.96 * n.spread) for n in nets if n.spread and n.ensembles >= 4]
    return Section(
        "ensemble-size",
        "Ensemble size",
        told(findings),
        [
            plotted(
                [
                    Series(name, list(zip(counts, values, strict=True)), color, "both")
                    for name, values, color in (
                        (
                            "assignment of independent samples",
                            [r.assignment for r in rows],
                            COLORS[1],
                        ),
                        ("path coupling, upper bound", [r.path for r in rows], COLORS[2]),
                        ("trace bound, lower bound", [r.trace for r in rows], COLORS[0]),
                    )
                ],
                anchor="fig-size-bounds",
                title="Estimates of W2\u00b2 over the truth",
                caption=f"Gaussian with P = {findings.dimension}, {findings.repeats} ensembles of "
                "each size. The truth, 1, must lie between the two bounds; assignment must not be "
                f"read as W2\u00b2. {found['bracket'].caption} {found['assignment'].caption}",
                alt_text="Three estimates of W2 squared over its true value against the number of "
                "replicas, both axes logarithmic: assignment and path coupling far above 1, the "
                "trace bound just below 1.",
                x="replicas N",
                y="estimate / W2\u00b2",
                log_x=True,
                log_y=True,
                one=True,
                one_label="1, the truth",
                half=True,
            ),
            plotted(
                [
                    Series(
                        "faked: assignment above T\u03a3",
                        [(float(r.count), 100 * r.faked_assignment) for r in rows],
                        COLORS[1],
                        "both",
                    ),
                    Series(
                        "faked: by the rule",
                        [(float(r.count), 100 * r.faked_rule) for r in rows],
                        COLORS[0],
                        "both",
                    ),
                    Series(
                        "true violation caught by the rule",
                        [(float(r.count), 100 * r.caught) for r in rows],
                        COLORS[2],
                        "both",
                    ),
                ],
                anchor="fig-size-verdicts",
                title="Violations called",
                caption="Share of the ensembles that are called faster than possible. On the "
                "geodesic none is; for the last line T\u03a3 is understated by half, and all are. "
                f"{found['rule'].caption}",
                alt_text="Share of ensembles called violated against the number of replicas: "
                "assignment always, the rule never; true violations are caught more often with "
                "more replicas.",
                x="replicas N",
                y="ensembles, %",
                log_x=True,
                half=True,
            ),
            plotted(
                [
                    Series(
                        "half-width of the interval",
                        [(float(n.count), 100 * n.half_width) for n in nets],
                        COLORS[0],
                        "both",
                    ),
                    Series(
                        "1.96 standard deviations over ensembles",
                        [(x, 100 * y) for x, y in spread],
                        COLORS[1],
                    ),
                    Series(
                        "1/\u221aN",
                        [
                            (float(n), 100 * scale / math.sqrt(n))
                            for n in (nets[0].count, nets[-1].count)
                        ],
                        COLORS[3],
                        "dash",
                    ),
                ],
                anchor="fig-size-networks",
                title="How well the inefficiency of networks is known",
                caption=f"MLP 64-64-10 on digits, T = {findings.learning_time:g}: the "
                "interval that one ensemble claims at 95 %, and how far ensembles truly differ. "
                f"{found['width'].caption}",
                alt_text="Relative half-width of the inefficiency's interval against the number of "
                "replicas, both axes logarithmic, falling along the line of 1 over root N, with "
                "the spread over ensembles beside it.",
                x="replicas N",
                y="% of the inefficiency",
                log_x=True,
                log_y=True,
                half=True,
            ),
            plotted(
                [
                    Series(
                        "over the trace bound",
                        [(float(n.count), n.by_trace) for n in nets],
                        COLORS[0],
                        "both",
                    ),
                    Series(
                        "T dL / |\u0394\u03b8|\u00b2, per replica",
                        [(float(n.count), n.loss_drop_ratio) for n in nets],
                        COLORS[1],
                        "both",
                    ),
                    Series(
                        "over the path coupling",
                        [(float(n.count), n.by_path) for n in nets],
                        COLORS[2],
                        "both",
                    ),
                ],
                anchor="fig-size-population",
                title="Inefficiency of networks: per replica and of the population",
                caption="The population's lies between the outer lines, whatever N: a random "
                "initialisation spreads wider than training moves it. Per replica W2 is exact; "
                "that line lies on the path coupling's.",
                alt_text="Three inefficiencies against the number of replicas on a logarithmic "
                "axis: over the trace bound highest, per replica and over the path coupling lower "
                "and close to each other.",
                x="replicas N",
                y="T\u03a3 / W2\u00b2",
                log_x=True,
                one=True,
                half=True,
            ),
        ],
        [gaussian_table(findings), network_table(findings)],
        list(found.values()),
    )


def gaussian_table(findings: Findings) -> Table:
    """List the Gaussian ensembles by size."""
    return Table(
        caption=f"Gaussian on the geodesic, T\u03a3 = W2\u00b2 = {number(findings.w2_squared, 4)}",
        columns=(
            "N",
            "Estimate over W2\u00b2::trace, lower",
            "Estimate over W2\u00b2::path, upper",
            "Estimate over W2\u00b2::assignment",
            "W2\u00b2 bracketed, %",
            "Called violated, %::by assignment",
            "Called violated, %::by the rule",
            "Called violated, %::by the rule, true",
        ),
        rows=[
            (
                header_cell(str(row.count)),
                cell(row.trace),
                cell(row.path),
                cell(row.assignment),
                *(
                    Cell(f"{100 * share:.0f}")
                    for share in (row.bracketed, row.faked_assignment, row.faked_rule, row.caught)
                ),
            )
            for row in findings.gaussian
        ],
        remark=f"P = {findings.dimension}, {findings.repeats} ensembles of each size; in the last "
        "column T\u03a3 is understated by half.",
    )


def network_table(findings: Findings) -> Table:
    """List the networks by size."""
    return Table(
        caption=f"Networks, P = {number(findings.parameters, 5)}, T = {findings.learning_time:g}",
        columns=(
            "N",
            "Ensembles",
            "T dL / |\u0394\u03b8|\u00b2::per replica",
            "Inefficiency::over path",
            "Inefficiency::over trace",
            "95 % half-width, %",
        ),
        rows=[
            (
                header_cell(str(net.count)),
                Cell(str(net.ensembles)),
                cell(net.loss_drop_ratio),
                cell(net.by_path),
                cell(net.by_trace),
                Cell(number(100 * net.half_width, 2)),
            )
            for net in findings.networks
        ],
        remark="Means over the ensembles \u00b1 their standard error.",
    )
