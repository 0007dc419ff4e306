"""How far does a scaling law of forgetting come, that knows of tasks only their sizes?

Bethune et al., *Scaling Laws for Forgetting during Finetuning with Pretraining Data Injection*
(arXiv 2502.06042): the old loss rises by A D^beta / ((1 + B p) N)^alpha, with D samples of the new
task, N parameters and a share p of the old data mixed in. Here p is 0, or 1/2 under replay: its
memory is as much of a batch as the new samples are. The law's constants are fitted, on the scale of
asinh, to all kinds of data but one, and say the rise on that one; beside it stands what the
compressed training says there, as it is and as the package corrects it for pairs not seen. The rows
are those of the corpus that ships with the package.

    python benchmarks/forecast/forgetting_law.py [--save]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from score_plain import explained

from capacity.forecasting.shipped import shipped

RESULT = Path(__file__).parent / "results" / "forgetting-law.txt"
MIXED = {"naive": 0.0, "replay": 0.5}
_START, _LEAST, _MOST = (0.0, 0.5, 0.5, 1.0), (-30, -3, -3, -10), (30, 3, 3, 10)
"""log A, beta, alpha, log B: where the fit begins, and between what it stays."""


def law(constants: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Say the rise of the old loss.

    Args:
        constants: log A, beta, alpha and log B.
        sizes: Samples of the new task, parameters, and the share of old data (n, 3).

    Returns:
        The rises (n,).
    """
    log_a, beta, alpha, log_b = constants
    kept = alpha * (np.log1p(np.exp(log_b) * sizes[:, 2]) + np.log(sizes[:, 1]))
    return np.exp(log_a + beta * np.log(sizes[:, 0]) - kept)


def unseen(rows: Sequence[dict], family: str) -> NDArray[np.float64]:
    """Fit the law to all kinds of data but one, and ask it about that one.

    Args:
        rows: Rows of the corpus.
        family: The kind of data that is left out.

    Returns:
        The rises that the law says of its rows.
    """
    sizes = np.array([[r["samples"], r["parameters"], MIXED[r["strategy"]]] for r in rows], float)
    rises = np.array([r["measured_rise"] for r in rows])
    own = np.array([r["family"] == family for r in rows])

    def off(constants: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.arcsinh(law(constants, sizes[~own])) - np.arcsinh(rises[~own])

    return law(least_squares(off, _START, bounds=(_LEAST, _MOST)).x, sizes[own])


def table(rows: Sequence[dict]) -> str:
    """Write R^2 of the rise on the scale of asinh, by kind of data and strategy.

    Args:
        rows: Rows of the corpus, without and under replay.

    Returns:
        The text.
    """
    lines = ["R^2 of the rise of the old loss (asinh), kinds of data that the law has not seen", ""]
    heads = ("the law", "compressed", "corrected")
    families = sorted({r["family"] for r in rows})
    law_of = {family: iter(unseen(rows, family)) for family in families}
    said = [float(next(law_of[r["family"]])) for r in rows]
    for strategy in MIXED:
        lines.append(f"{strategy:<14}{'n':>6}" + "".join(f"{head:>14}" for head in heads))
        for name in ("all", *families):
            some = [
                (r, one)
                for r, one in zip(rows, said, strict=True)
                if r["strategy"] == strategy and name in ("all", r["family"])
            ]
            if not some:
                continue
            measured = np.arcsinh([r["measured_rise"] for r, _ in some])
            columns = [
                [one for _, one in some],
                [r["rise"] for r, _ in some],
                [r["unseen_rise"] for r, _ in some],
            ]
            scores = [explained(np.arcsinh(column), measured) for column in columns]
            lines.append(f"{name:<14}{len(some):>6}" + "".join(f"{s:>14.2f}" for s in scores))
        lines.append("")
    return "\n".join(lines).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"write results/{RESULT.name}")
    known = shipped()
    assert known is not None
    text = table([dict(row) for row in known.rows if row["strategy"] in MIXED])
    options = parser.parse_args()
    print(text)
    if options.save:
        RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()
