"""Rebuild the gallery: run the reference recipes and write their reports beside this file.

    python reports/build.py                  # the committed ones, and the comparison
    python reports/build.py permuted-digits  # another recipe, for a look
    python reports/build.py --comparison     # the comparison alone
    python reports/build.py --index          # the index alone, after a study wrote its page
    python reports/build.py --work DIR       # runs are kept there: a build that was cut off goes on

A recipe gives the same numbers on every run, so a report changes only when the code does.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment

import capacity
from capacity.recipe import config

HERE = Path(__file__).parent
REFERENCE = ("mixed-digits", "split-digits", "rotated-digits")
PICTURED = "mixed-digits"
"""The report that the README shows."""


class Comparison(NamedTuple):
    """A page of many runs.

    Attributes:
        name: Of the page.
        description: For the index.
        recipe: The recipe that they share.
        settings: What is changed in it for all of them.
        strategies: One variant each, as `training.strategy` takes it.
        seeds: Of every variant.
    """

    name: str
    description: str
    recipe: str
    settings: tuple[str, ...]
    strategies: tuple[str, ...]
    seeds: range


COMPARISON = Comparison(
    name="strategies",
    description="Strategies against forgetting on split-digits, each trained with three seeds: "
    "what they keep, what they lose, and how well their forgetting was forecast.",
    recipe="split-digits",
    settings=(
        "replicas=4",
        "measure.strategies=[]",
        # Only what the comparison shows: the rest is in the reports of single runs.
        "measure.transport=false",
        "measure.capacity=false",
    ),
    strategies=("naive", "ewc", "lwf", "replay", "gpm"),
    seeds=range(3),
)


class Study(NamedTuple):
    """A page that a script of its own writes.

    Attributes:
        name: Of the page.
        description: For the index.
        script: Writes the page.
        recorded: Whether the script draws it from committed records when it is called alone.
    """

    name: str
    description: str
    script: str
    recorded: bool = False


STUDIES = (
    Study(
        "forecast-score",
        "How good the forecasts are on transitions that nothing was fitted to, beside every "
        "simpler predictor; which goals are reached, and which are not.",
        "benchmarks/forecast/score_page.py",
        recorded=True,
    ),
    Study(
        "training-jacobian",
        "The dense training Jacobian of a digits network: its three regions, the alignment of its "
        "bulk, and what it owes to inputs and to labels.",
        "benchmarks/training_jacobian.py",
    ),
    Study(
        "thermodynamics",
        "The Epistemic Speed Limit in experiments: a Gaussian where all is known, learning rate, "
        "curriculum, ensemble size, noise level, two networks, the reachable set, beliefs "
        "about an angle.",
        "benchmarks/thermo/experiments/run.py",
        recorded=True,
    ),
    Study(
        "geometries",
        "Which way of learning forgets less, and what it pays: optimisers, geometries, noise and "
        "strategies on two task sequences, each with accuracy, forgetting, efficiency and cost.",
        "benchmarks/thermo/geometries_page.py",
        recorded=True,
    ),
)

INDEX = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>capacity: reference reports</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; --page: #fbfbfa; --ink: #1c2024; --muted: #5c646d; --accent: #0b5cad; --rule: #d9dcdf; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171a; --ink: #e8eaec; --muted: #a0a8b0; --accent: #7ab8f5; --rule: #3a4148; }
}
body { font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", "Noto Sans", "Liberation Sans", sans-serif; max-width: 44rem;
  margin: 3.5rem auto; padding: 0 1.25rem; background: var(--page); color: var(--ink); }
a { color: var(--accent); text-underline-offset: 2px; }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -.015em; margin: 0 0 .5rem; }
h2 { margin: 2.5rem 0 0; padding-top: 1.25rem; border-top: 1px solid var(--rule); font-size: 1.25rem; }
dt { margin-top: 1.1rem; font-weight: 600; }
dd { margin: 0; }
p, dd { color: var(--muted); overflow-wrap: anywhere; }
code { font-size: .875em; }
</style>
<main>
<h1>Reference reports</h1>
<p>Each is one HTML file that needs no network. Rebuilt by <code>python reports/build.py</code>; how to read one is in <code>capacity/how_to_read.md</code>.</p>
<dl>
{% for recipe in recipes %}<dt><a href="{{ recipe.name }}.html">{{ recipe.name }}</a></dt>
<dd>{{ recipe.description }}</dd>
{% endfor %}</dl>
{% if comparison %}
<h2>Comparison</h2>
<dl>
<dt><a href="{{ comparison.name }}.html">{{ comparison.name }}</a></dt>
<dd>{{ comparison.description }}</dd>
</dl>
{% endif %}
{% if studies %}
<h2>Studies</h2>
<p>Each is written by a script of its own in <code>benchmarks/</code>.</p>
<dl>
{% for study in studies %}<dt><a href="{{ study.name }}.html">{{ study.name }}</a></dt>
<dd>{{ study.description }} <code>python {{ study.script }}</code></dd>
{% endfor %}</dl>
{% endif %}
</main>
</html>
"""  # noqa: E501


def build_comparison(work: Path) -> None:
    """Train every strategy with every seed, and set the runs side by side."""
    runs = []
    for k, strategy in enumerate(COMPARISON.strategies):
        for seed in COMPARISON.seeds:
            given = strategy if strategy.startswith("{") else f"{{name: {strategy}}}"
            settings = (*COMPARISON.settings, f"training.strategy={given}", f"seed={seed}")
            recipe = config.load(COMPARISON.recipe, settings)
            out = work / COMPARISON.name / f"{k}-{seed}"
            runs.append(capacity.run(recipe, out=out, quiet=True))
            sys.stderr.write(f"{COMPARISON.name}: {strategy}, seed {seed}\n")
    capacity.compare(*runs, output=HERE / f"{COMPARISON.name}.html")


def picture(name: str) -> None:
    """Take a picture of a report's beginning, for the README; without a browser, say so."""
    found = (shutil.which(browser) for browser in ("chromium", "chromium-browser", "google-chrome"))
    browser = next((path for path in found if path), None)
    if browser is None:
        sys.stderr.write("no Chromium: the picture of the README stays as it is\n")
        return
    subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--virtual-time-budget=5000", "--window-size=1160,680",
            f"--screenshot={HERE / f'{name}.png'}", (HERE / f"{name}.html").as_uri(),
        ],
        check=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def main() -> None:
    """Write pages and index."""
    arguments = argparse.ArgumentParser(description="Rebuild the gallery of reference reports.")
    arguments.add_argument("recipes", nargs="*", help="default: those of the gallery, and the rest")
    arguments.add_argument("--comparison", action="store_true", help="build the comparison alone")
    arguments.add_argument("--index", action="store_true", help="write the index alone")
    arguments.add_argument("--work", type=Path, help="where runs are kept; a temporary folder")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        build(chosen, chosen.work or Path(folder))
    write_index()


def build(chosen: argparse.Namespace, work: Path) -> None:
    """Write the pages that were asked for."""
    everything = not (chosen.index or chosen.comparison or chosen.recipes)
    for name in REFERENCE if everything else chosen.recipes:
        capacity.run(name, out=work / name).report(HERE / f"{name}.html")
        if name == PICTURED:
            picture(name)
    if everything or chosen.comparison:
        build_comparison(work)
    for study in STUDIES if everything else ():
        if study.recorded:
            subprocess.run([sys.executable, HERE.parent / study.script], check=True)


def write_index() -> None:
    """Name every page that is there."""
    built = [
        config.load(name) for name in config.recipe_names() if (HERE / f"{name}.html").is_file()
    ]
    studies = [study for study in STUDIES if (HERE / f"{study.name}.html").is_file()]
    template = Environment(autoescape=True, trim_blocks=True).from_string(INDEX)
    compared = COMPARISON if (HERE / f"{COMPARISON.name}.html").is_file() else None
    index = template.render(recipes=built, comparison=compared, studies=studies)
    (HERE / "index.html").write_text(index, encoding="utf-8")


if __name__ == "__main__":
    main()
