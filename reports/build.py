"""Rebuild the gallery: run the reference recipes and write their reports beside this file.

    python reports/build.py                  # the committed ones
    python reports/build.py permuted-digits  # another recipe, for a look

A recipe gives the same numbers on every run, so a report changes only when the code does.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from jinja2 import Environment

import capacity
from capacity import config

HERE = Path(__file__).parent
REFERENCE = ("split-digits", "rotated-digits")

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
</style>
<h1>Reference reports</h1>
<p>Rebuilt by <code>python reports/build.py</code>.</p>
<dl>
{% for recipe in recipes %}<dt><a href="{{ recipe.name }}.html">{{ recipe.name }}</a></dt>
<dd>{{ recipe.description }}</dd>
{% endfor %}</dl>
</html>
"""


def main() -> None:
    """Run the recipes, write reports and index."""
    arguments = argparse.ArgumentParser(description="Rebuild the gallery of reference reports.")
    arguments.add_argument("recipes", nargs="*", default=REFERENCE)
    for name in arguments.parse_args().recipes:
        with tempfile.TemporaryDirectory() as folder:
            run = capacity.run(name, out=Path(folder) / name)
            run.report(HERE / f"{name}.html")
    built = [
        config.load(name) for name in config.recipe_names() if (HERE / f"{name}.html").is_file()
    ]
    template = Environment(autoescape=True).from_string(INDEX)
    (HERE / "index.html").write_text(template.render(recipes=built), encoding="utf-8")


if __name__ == "__main__":
    main()
