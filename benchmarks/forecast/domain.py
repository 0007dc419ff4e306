"""Does the corpus know where it ends? Each kind of data is left out in turn.

The domain, the correction and the intervals are fitted on the other kinds of data alone, and asked
about the one that was left out: how much of it counts as inside, how often the calibrated interval
covers inside and outside (0.9 wanted), and how far forecasts are off with the correction and
without. Plain forecasts; reads nothing but the corpus that ships.

    python benchmarks/forecast/domain.py [--save]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from capacity.forecasting.corpus import PLAIN, Corpus, conformal_row
from capacity.forecasting.shipped import shipped

RESULT = Path(__file__).parent / "results" / "domain.txt"
QUANTITIES = ("drop", "rise")


def left_out(corpus: Corpus, family: str) -> tuple[list[dict], dict[str, np.ndarray]]:
    """Ask the other kinds of data about one.

    Args:
        corpus: The corpus.
        family: The kind of data that is left out.

    Returns:
        Its plain rows; and for each whether it is inside, and by quantity its error without and
        with the correction, and whether the interval around each covers.
    """
    plain = corpus.of(PLAIN)
    known = replace(corpus, rows=tuple(row for row in plain if row["family"] != family))
    asked = [dict(row) for row in plain if row["family"] == family]
    found = {"inside": np.array([known.why_far(row) is None for row in asked])}
    for name in QUANTITIES:
        measured = np.array([row[f"measured_{name}"] for row in asked])
        physics = np.array([row[name] for row in asked])
        corrected = np.array(known.corrected(name, asked))
        inputs = [
            conformal_row(value, row[f"{name}_half"], row["steps"])
            for value, row in zip(corrected, asked, strict=True)
        ]
        low, high = known.conformal(name, PLAIN).predict_interval(np.array(inputs), 0.9).T
        found |= {
            f"{name} physics": physics - measured,
            f"{name} corrected": corrected - measured,
            f"{name} covered": (low <= measured) & (measured <= high),
        }
    return asked, found


def table(corpus: Corpus) -> str:
    """Write the table.

    Args:
        corpus: The corpus.

    Returns:
        The text.
    """
    lines = [
        "A kind of data left out at a time; plain forecasts at 5 % of the training. in/out: inside "
        "or outside the others' domain.",
        "RMSE of the drop in accuracy, of the rise in nats. What is outside is reported "
        "uncalibrated and uncorrected.",
        f"{'left out':<12}{'rows':>6}{'inside':>8}"
        + "".join(
            f"{f'{name} {what}':>17}"
            for name in QUANTITIES
            for what in ("cover in", "cover out", "bare in", "corr. in", "bare out", "corr. out")
        ),
    ]
    families = sorted({row["family"] for row in corpus.of(PLAIN)})
    every: dict[str, list[np.ndarray]] = {}
    for family in [*families, "all"]:
        if family == "all":
            found = {key: np.concatenate(parts) for key, parts in every.items()}
        else:
            _, found = left_out(corpus, family)
            for key, values in found.items():
                every.setdefault(key, []).append(values)
        lines.append(_line(family, found))
    return "\n".join(lines)


def _line(family: str, found: dict[str, np.ndarray]) -> str:
    inside = found["inside"]
    numbers = []
    for name in QUANTITIES:
        covered = found[f"{name} covered"]
        numbers += [_mean(covered[part]) for part in (inside, ~inside)]
        for part in (inside, ~inside):
            for what in ("physics", "corrected"):
                numbers.append(_mean(found[f"{name} {what}"][part] ** 2) ** 0.5)
    shown = "".join(f"{'-' if np.isnan(n) else f'{n:.3f}':>17}" for n in numbers)
    return f"{family:<12}{len(inside):>6}{inside.mean():>8.2f}{shown}"


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"write results/{RESULT.name}")
    asked = parser.parse_args()
    corpus = shipped()
    assert corpus is not None
    text = table(corpus)
    print(text)
    if asked.save:
        RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()
