"""Rebuild the gallery: run the reference recipes and write their reports beside this file.

    python reports/build.py                  # the committed ones
    python reports/build.py permuted-digits  # another recipe, for a look
    python reports/build.py --index          # the index alone, after a study wrote its page

A recipe gives the same numbers on every run, so a report changes only when the code does.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment

import capacity
from capacity import config

HERE = Path(__file__).parent
REFERENCE = ("split-digits", "rotated-digits")


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
        "training-jacobian",
        "The dense training Jacobian of a digits network: its three regions, the alignment of its "
        "bulk, and what it owes to inputs and to labels.",
        "benchmarks/training_jacobian.py",
    ),
    Study(
        "thermodynamics",
        "The Epistemic Speed Limit in experiments: a Gaussian where all is known, learning rate, "
        "curriculum, ensemble size, noise level, a convolutional network, the reachable set.",
        "benchmarks/thermo/experiments/run.py",
        recorded=True,
    ),
)

INDEX = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>capacity: reference reports</title>
<style>
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; padding: 0 1rem; }
dt { margin-top: 1rem; font-weight: 600; }
dd { margin: 0; }
h2 { margin-top: 2.5rem; font-size: 1.25rem; }
</style>
<h1>Reference reports</h1>
<p>Rebuilt by <code>python reports/build.py</code>.</p>
<dl>
{% for recipe in recipes %}<dt><a href="{{ recipe.name }}.html">{{ recipe.name }}</a></dt>
<dd>{{ recipe.description }}</dd>
{% endfor %}</dl>
{% if studies %}
<h2>Studies</h2>
<p>Each is written by a script of its own in <code>benchmarks/</code>.</p>
<dl>
{% for study in studies %}<dt><a href="{{ study.name }}.html">{{ study.name }}</a></dt>
<dd>{{ study.description }} <code>python {{ study.script }}</code></dd>
{% endfor %}</dl>
{% endif %}
</html>
"""


def main() -> None:
    """Run the recipes, write reports and index."""
    arguments = argparse.ArgumentParser(description="Rebuild the gallery of reference reports.")
    arguments.add_argument("recipes", nargs="*", default=REFERENCE)
    arguments.add_argument("--index", action="store_true", help="write the index alone")
    chosen = arguments.parse_args()
    for name in [] if chosen.index else chosen.recipes:
        with tempfile.TemporaryDirectory() as folder:
            run = capacity.run(name, out=Path(folder) / name)
            run.report(HERE / f"{name}.html")
    for study in STUDIES if not chosen.index else ():
        if study.recorded:
            subprocess.run([sys.executable, HERE.parent / study.script], check=True)
    built = [
        config.load(name) for name in config.recipe_names() if (HERE / f"{name}.html").is_file()
    ]
    studies = [study for study in STUDIES if (HERE / f"{study.name}.html").is_file()]
    template = Environment(autoescape=True, trim_blocks=True).from_string(INDEX)
    index = template.render(recipes=built, studies=studies)
    (HERE / "index.html").write_text(index, encoding="utf-8")


if __name__ == "__main__":
    main()
