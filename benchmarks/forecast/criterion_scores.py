"""How well a score tells forgetting from none: AUROC and rank correlation, halves, thresholds.

The halves are fixed by a hash of the streams' names before anything is measured. Thresholds and the
choice among measures come from the choosing half alone. Bootstrap intervals draw whole streams, so
that cells of the same pair of tasks never count as independent.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

Cells = Sequence[dict]

FORGETS = 0.05
"""Drop of accuracy above which a network counts as having forgotten."""
DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Measure:
    """One number per cell that should tell forgetting.

    Attributes:
        key: Its name in a cell.
        form: The form of the criterion that it belongs to.
        sign: 1 where more means more forgetting, else -1.
    """

    key: str
    form: str
    sign: int


MEASURES = (
    Measure("literal", "literal", -1),
    Measure("kept", "capacity", -1),
    Measure("log_volume", "capacity", -1),
    Measure("cost", "transport cost", 1),
    Measure("extra", "transport cost", 1),
    Measure("needed", "needed modes", 1),
    Measure("participation", "needed modes", 1),
    Measure("new_loss", "loss of B", 1),
    Measure("lost", "directional", 1),
    Measure("rise", "directional", 1),
    Measure("second_order", "directional", 1),
    Measure("distance", "directional", 1),
    Measure("first_order", "directional", 1),
)


def halves(families: Mapping[str, str]) -> dict[str, str]:
    """Divide streams into two halves, every family by itself, in the order of a hash of the names.

    Args:
        families: Family of every stream, by its name.

    Returns:
        `choose` or `report` by name.
    """
    made = {}
    for number, family in enumerate(sorted(set(families.values()))):
        names = sorted((name for name in families if families[name] == family), key=_hash)
        for place, name in enumerate(names):
            made[name] = ("choose", "report")[(place + number) % 2]
    return made


def scores(cells: Cells, measure: Measure) -> np.ndarray:
    """Orient a measure so that more means more forgetting; a missing value sorts lowest."""
    values = [cell[measure.key] for cell in cells]
    return np.array([-math.inf if v is None else measure.sign * v for v in values])


def drops(cells: Cells) -> np.ndarray:
    """Measured drops of accuracy."""
    return np.array([cell["drop"] for cell in cells])


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive cell scores above a negative one, ties counting half."""
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return math.nan
    ranks = stats.rankdata(score)
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def rank_correlation(score: np.ndarray, drop: np.ndarray) -> float:
    """Spearman's rank correlation; NaN where one side is constant."""
    if len(score) < 3 or np.ptp(stats.rankdata(score)) == 0 or np.ptp(drop) == 0:
        return math.nan
    return float(np.corrcoef(stats.rankdata(score), stats.rankdata(drop))[0, 1])


def bootstrap(
    cells: Cells, statistic: Callable[[np.ndarray], float], *, seed: int = 0
) -> tuple[float, float]:
    """Interval of a statistic over draws of whole streams.

    Args:
        cells: The cells.
        statistic: A function of indices into them.
        seed: Seed of the draws.

    Returns:
        Ends of the interval.
    """
    names = [cell["stream"] for cell in cells]
    groups = [np.flatnonzero([n == name for n in names]) for name in dict.fromkeys(names)]
    source, found = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        drawn = source.integers(len(groups), size=len(groups))
        value = statistic(np.concatenate([groups[g] for g in drawn]))
        if math.isfinite(value):
            found.append(value)
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def best_threshold(score: np.ndarray, positive: np.ndarray) -> float:
    """Find the threshold with the highest balanced accuracy, in the middle of where it is highest.

    Args:
        score: Scores, more meaning more forgetting.
        positive: Which cells forgot.

    Returns:
        The threshold, to two significant digits.
    """
    known = np.unique(score[np.isfinite(score)])
    cuts = (known[1:] + known[:-1]) / 2
    if not len(cuts):
        return float(known[0]) if len(known) else math.nan
    good = np.array([balanced_accuracy(score > cut, positive) for cut in cuts])
    best = np.flatnonzero(good >= good.max() - 1e-12)
    middle = best[len(best) // 2]
    return float(f"{cuts[middle]:.2g}")


def balanced_accuracy(fires: np.ndarray, positive: np.ndarray) -> float:
    """Mean of the shares of forgetting and of sparing cells that are told right."""
    return float((fires[positive].mean() + (~fires)[~positive].mean()) / 2)


def coverage_stretch(off: np.ndarray, width: np.ndarray, *, level: float = 0.9) -> float:
    """Find the factor by which half-widths must be stretched to hold a share of the errors.

    Args:
        off: Errors.
        width: Half-widths, above 0.
        level: The share.

    Returns:
        The conformal quantile of |off| / width, to two significant digits, rounded up.
    """
    ratio = np.sort(np.abs(off) / width)
    place = min(math.ceil(level * (len(ratio) + 1)), len(ratio)) - 1
    value = float(ratio[place])
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return round(math.ceil(value / unit - 1e-9) * unit, 12)


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
