"""The page of `score.py` for the gallery, made of what it saved: nothing is computed here.

python benchmarks/forecast/score_page.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from markupsafe import Markup

from capacity.report.shell import page

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PAGE = HERE.parents[1] / "reports" / "forecast-score.html"
FORECAST, CEILING = "forecast", "other data order"
COLUMNS = {
    "R2 drop": "R², drop",
    "R2 rise": "R², rise of loss",
    "rank drop": "rank, drop",
    "rank rise": "rank, rise",
    "AUROC": "AUROC",
}
_GOAL = re.compile(
    r"^  (?P<what>.+?) {2,}(?P<value>\S+)  (?P<goal>.+): (?P<end>reached|NOT reached)"
)
_STYLE = re.compile(r'style="([^"]*)"')
_SHEET = re.compile(r"<style.*?</style>", re.DOTALL)
"""Matplotlib's own: how lines are joined, which `score_page.css` repeats."""


def headline(scores: dict[str, Any]) -> str:
    """Say the result in one sentence."""
    value, low, high = scores[FORECAST]["R2 drop"]
    ceiling = scores[CEILING]["R2 drop"][0]
    return (
        "For 5 % of the training's operations, and before it, the forecast explains "
        f"{100 * value:.1f} % ({100 * low:.1f} to {100 * high:.1f}) of the variance of how much "
        "accuracy is forgotten, on pairs of tasks that nothing was fitted to; training the same "
        f"network in another data order explains {100 * ceiling:.1f} %."
    )


def rows(scores: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Lay the scores out: one row per predictor, in the order of the table."""

    def shown(found: list[float] | None) -> str:
        if found is None or found[0] is None or found[0] != found[0]:
            return "–"
        value, low, high = (f"{x:.3f}" if abs(x) < 100 else f"{x:.2g}" for x in found)
        return f"{value} ({low} to {high})".replace("-", "\N{MINUS SIGN}")

    return [
        (name.replace("_", " "), [shown(kinds.get(kind)) for kind in COLUMNS])
        for name, kinds in scores.items()
    ]


def goals(text: str) -> list[dict[str, str]]:
    """Read the goals off the table's end."""
    tail = text[text.index("\nGoals, ") :].splitlines()
    return [found.groupdict() for line in tail if (found := _GOAL.match(line))]


def drawing(name: str, label: str) -> Markup:
    """Inline a figure, so that the page needs no other file, with attributes in place of styles."""
    svg = (RESULTS / name).read_text()
    svg = svg[svg.index("<svg") :]
    # The page's policy refuses styles that are not its own sheet's.
    svg = _SHEET.sub("", svg)
    svg = _STYLE.sub(lambda found: _attributes(found[1]), svg)
    ids = re.findall(r'id="([^"]+)"', svg)
    for own in sorted(set(ids), key=len, reverse=True):
        svg = re.sub(rf'(id="|#){re.escape(own)}(?=["\)])', rf"\g<1>{Path(name).stem}-{own}", svg)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))


def _attributes(style: str) -> str:
    pairs = (one.split(":", 1) for one in style.split(";") if one.strip())
    return " ".join(f'{name.strip()}="{value.strip()}"' for name, value in pairs)


def main() -> None:
    """Write the page."""
    text = (RESULTS / "score.txt").read_text()
    saved = json.loads((RESULTS / "score.json").read_text())
    scores = saved["scores"]
    content = page(
        "score_page.html",
        [],
        folder=HERE,
        scripts=False,
        headline=headline(scores),
        first=text.splitlines()[0],
        note=saved.get("note", ""),
        goals=goals(text),
        columns=list(COLUMNS.values()),
        rows=rows(scores),
        scatter=drawing(
            "score-scatter.svg", "Forecast against measured forgetting, per transition"
        ),
        calibration=drawing("score-calibration.svg", "Measured against nominal coverage"),
        text=text,
    )
    PAGE.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
