"""Build the API reference from the docstrings: public names, figures, closed forms.

    pip install -e '.[docs]' && python reports/api.py     # reports/api/capacity.html
    python reports/api.py --out elsewhere

Any warning of pdoc is an error, and so is a public name that is missing from its page. The pages
are not committed: they follow from the docstrings.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import sys
import warnings
from pathlib import Path

import pdoc

import capacity
from capacity import closed_forms, plots

ROOT = Path(__file__).parents[1]
MODULES = ("capacity", r"!capacity\.(?!plots$|closed_forms$)")
"""What pdoc walks over: the public interface, and of its submodules two."""


def build(out: Path) -> list[Path]:
    """Write the pages.

    Args:
        out: Folder, made where it is missing.

    Returns:
        The pages, the public interface first.

    Raises:
        SystemExit: If a public name is missing.
    """
    pdoc.render.configure(
        docformat="google",
        search=False,
        show_source=False,
        footer_text=f"capacity {capacity.__version__}, from its docstrings",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module=r"pdoc\b")
        pdoc.pdoc(*MODULES, output_directory=out)
    documented = {
        out / "capacity.html": capacity.__all__,
        out / "capacity" / "plots.html": plots.__all__,
        out / "capacity" / "closed_forms.html": closed_forms.__all__,
    }
    for page, names in documented.items():
        text = linked(page.read_text(encoding="utf-8"), page.parent)
        missing = [name for name in names if not shown(name, text)]
        if missing:
            raise SystemExit(f"{page} does not show {', '.join(missing)}")
        page.write_text(text, encoding="utf-8")
    return list(documented)


def shown(name: str, page: str) -> bool:
    """Tell whether a page has a name: as an entry of its own, or as a link to a submodule."""
    return f'id="{name}"' in page or f"capacity/{name}.html" in page


def linked(page: str, folder: Path) -> str:
    """Let citations of the theory page lead there.

    Args:
        page: HTML.
        folder: Where it lies.

    Returns:
        The page with links.
    """
    theory = Path(os.path.relpath(ROOT / "capacity" / "theory.md", folder)).as_posix()
    return re.sub(
        r"\btheory\.md(#[\w-]+)",
        rf'<a href="{html.escape(theory)}\1">theory.md\1</a>',
        page,
    )


def main() -> None:
    """Read the arguments and build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "api")
    for page in build(parser.parse_args().out):
        sys.stdout.write(f"{page} ({page.stat().st_size // 1000} kB)\n")


if __name__ == "__main__":
    main()
