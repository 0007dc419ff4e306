"""Does the report of a long run stay small, quick, silent, self-contained, and open to everybody?

Conditions: `long_sequence.yaml` beside this file (20 tasks, every measure and four strategies), its
report in headless Chromium on this machine. Each goal is one line of the table:

- at most 3 MB; the first figure painted within 2 s of opening (the slowest of five fresh browsers);
- as it opens, at most five screens of 900 px at 1440 px, and six at 390, where the run has at most
  five tasks; for more, the heights are printed;
- no request but for the page itself, no console message, at any width or after any use;
- nothing to scroll sideways from 390 to 2560 px, with everything unfolded;
- axe-core finds nothing serious or critical, in light and dark, folded and unfolded.

axe-core is no Python package: `npm install axe-core` anywhere, and hand over its file. Without it
the last line says that it was not checked.

    python benchmarks/report/page.py [--run DIR] [--axe node_modules/axe-core/axe.min.js] [--save]
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import capacity

HERE = Path(__file__).parent
RECIPE = HERE / "long_sequence.yaml"
RESULT = HERE / "results" / "page.txt"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
MOST_BYTES, MOST_SECONDS, ROUNDS = 3_000_000, 2.0, 5
WIDTHS = (390, 768, 1280, 1920, 2560)
SCREEN, SCREENS, FEW = 900, {1440: 5, 390: 6}, 5
"""Height of a screen, px; by width, how many a page of few tasks may take."""
UNFOLD = "document.querySelectorAll('details').forEach(d => { d.open = true })"
SCHEMES = ("light", "dark")

# The moment after the frame in which the first figure has a picture: then it is on the screen.
FIRST_FIGURE = """
(() => {
  const look = () => {
    const drawn = document.querySelector("figure svg");
    if (drawn && drawn.getBoundingClientRect().width > 0)
      requestAnimationFrame(() => requestAnimationFrame(() => { window.firstFigure = performance.now(); }));
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})();
"""  # noqa: E501


@contextmanager
def chromium(path: str) -> Iterator[Any]:
    """Start a browser of its own, so that nothing is warm."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


def first_paints(path: str, page_file: Path) -> list[float]:
    """Open the page in fresh browsers.

    Args:
        path: The browser.
        page_file: The page.

    Returns:
        Seconds from opening to the first figure on the screen.

    Raises:
        RuntimeError: If none is painted within a minute.
    """
    found = []
    for _ in range(ROUNDS):
        with chromium(path) as browser:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.add_init_script(FIRST_FIGURE)
            page.goto(page_file.as_uri(), wait_until="commit")
            # Playwright's own waiting evaluates in the page, which its policy forbids.
            deadline = time.monotonic() + 60
            while not (painted := page.evaluate("window.firstFigure ?? 0")):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{page_file}: no figure was painted within a minute")
                page.wait_for_timeout(50)
            found.append(painted / 1000)
    return found


def behaviour(browser: Any, page_file: Path) -> tuple[list[str], list[str], dict[int, int]]:
    """Use the page as a reader would: scroll through it, zoom every figure, open every table.

    Args:
        browser: The browser.
        page_file: The page.

    Returns:
        Requests beside the page's own, messages and errors, and by width how many pixels too wide.
    """
    page = browser.new_page(viewport={"width": WIDTHS[0], "height": 900})
    requests: list[str] = []
    heard: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.goto(page_file.as_uri())
    page.wait_for_timeout(1500)
    page.evaluate(UNFOLD)
    for figure in page.locator("figure[id]").all():
        figure.scroll_into_view_if_needed()
        figure.get_by_role("button", name="Zoom in").click()
        figure.get_by_role("button", name="Show everything again").click()
    wide = {}
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(400)
        wide[width] = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    page.close()
    return [url for url in requests if url != page_file.as_uri()], heard, wide


def heights(browser: Any, page_file: Path) -> dict[int, float]:
    """Measure the page as it opens.

    Args:
        browser: The browser.
        page_file: The page.

    Returns:
        Its height in screens, by width.
    """
    found = {}
    for width in SCREENS:
        page = browser.new_page(viewport={"width": width, "height": SCREEN})
        page.goto(page_file.as_uri())
        page.wait_for_timeout(1500)
        found[width] = page.evaluate("document.documentElement.scrollHeight") / SCREEN
        page.close()
    return found


def axe_findings(browser: Any, page_file: Path, axe: Path) -> tuple[str, list[str]]:
    """Have axe-core look at the page in light and dark, with tables closed and opened.

    Args:
        browser: The browser.
        page_file: The page.
        axe: `axe.min.js`.

    Returns:
        Its version, and what it found: scheme, impact, rule, and how many elements.
    """
    source, found, version = axe.read_text(encoding="utf-8"), [], ""
    for scheme in SCHEMES:
        context = browser.new_context(
            viewport={"width": 1280, "height": 900}, color_scheme=scheme, bypass_csp=True
        )
        page = context.new_page()
        page.goto(page_file.as_uri())
        page.wait_for_timeout(1500)
        page.evaluate(source)
        version = page.evaluate("axe.version")
        for opened in (False, True):
            page.evaluate(f"document.querySelectorAll('details').forEach(d => d.open = {opened:d})")
            report = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
            found += [
                f"{scheme}: {v['impact']} {v['id']} ({len(v['nodes'])})"
                for v in report["violations"]
            ]
        context.close()
    return version, list(dict.fromkeys(found))


def line(goal: str, measured: str, reached: bool | None) -> str:
    """Write one line of the table."""
    verdict = {True: "reached", False: "NOT reached", None: "not checked"}[reached]
    return f"{goal:<52}{measured:<52}{verdict}"


def table(page_file: Path, path: str, axe: Path | None, tasks: int) -> list[str]:
    """Measure the page against every goal.

    Args:
        page_file: The page.
        path: The browser.
        axe: `axe.min.js`, or None.
        tasks: How many tasks its run has.

    Returns:
        Lines.
    """
    size = page_file.stat().st_size
    paints = first_paints(path, page_file)
    with chromium(path) as browser:
        version = browser.version
        requests, heard, wide = behaviour(browser, page_file)
        tall = heights(browser, page_file)
        said, seen = axe_findings(browser, page_file, axe) if axe else ("", [])
    worst = max(wide, key=lambda width: wide[width])
    serious = [one for one in seen if " serious " in one or " critical " in one]
    other = f"; lesser: {', '.join(set(seen) - set(serious))}" if set(seen) - set(serious) else ""
    return [
        f"headless Chromium {version}; {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        line("goal", "measured", True).replace("reached", "verdict"),
        line("size at most 3 MB", f"{size / 1e6:.2f} MB", size <= MOST_BYTES),
        line(
            "first figure painted within 2 s",
            f"{max(paints):.2f} s, slowest of {ROUNDS} (median {statistics.median(paints):.2f})",
            max(paints) <= MOST_SECONDS,
        ),
        *(
            line(
                f"at most {most} screens at {width} px, up to {FEW} tasks",
                f"{tall[width]:.1f} screens of {SCREEN} px, {tasks} tasks",
                tall[width] <= most if tasks <= FEW else None,
            )
            for width, most in SCREENS.items()
        ),
        line("no request", f"{len(requests)}{_first(requests)}", not requests),
        line("no console message", f"{len(heard)}{_first(heard)}", not heard),
        line(
            f"no sideways scroll, {WIDTHS[0]} to {WIDTHS[-1]} px",
            f"{max(wide[worst], 0)} px too wide" + (f" at {worst}" if wide[worst] > 0 else ""),
            wide[worst] <= 0,
        ),
        line(
            "axe-core: nothing serious, light and dark",
            f"axe-core {said}: {len(serious)} serious{_first(serious)}, {len(seen)} in all"
            if axe
            else "give --axe (npm install axe-core)",
            not serious if axe else None,
        )
        + other,
    ]


def _first(found: list[str]) -> str:
    return f": {found[0][:60]}" if found else ""


def find_axe(given: str | None, fail: Callable[[str], object]) -> Path | None:
    """Find axe-core: where it was said to be, or where npm puts it."""
    path = Path(given or "node_modules/axe-core/axe.min.js")
    if path.is_file():
        return path
    if given:
        fail(f"--axe {given}: no such file; npm install axe-core, and name its axe.min.js")
    return None


def main() -> None:
    """Run the recipe, make its report, hold it against the goals, print, and save if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", help="a finished run, instead of running the recipe")
    parser.add_argument("--axe", help="axe.min.js of axe-core, from npm")
    parser.add_argument("--chromium", help="the browser; default: the one on the PATH")
    parser.add_argument(
        "--save",
        action="store_true",
        help=f"write results/{RESULT.name}, of a --run under its name",
    )
    asked = parser.parse_args()
    axe = find_axe(asked.axe, parser.error)
    path = asked.chromium or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        parser.error("no Chromium on the PATH; install one, or name it with --chromium")
    with tempfile.TemporaryDirectory() as folder:
        if asked.run:
            run = capacity.open_run(asked.run)
        else:
            run = capacity.run(str(RECIPE), out=Path(folder) / "run")
        page_file = run.report(Path(folder) / "report.html")
        tasks = len(run.result["tasks"])
        figures = page_file.read_text(encoding="utf-8").count("<figure ")
        lines = [
            f"Report of {run.result['name']}: {tasks} tasks ({run.status}), {figures} figures",
            *table(page_file, path, axe, tasks),
        ]
    print(*lines, sep="\n")
    if asked.save:
        saved = RESULT.with_name(f"page_{run.result['name']}.txt") if asked.run else RESULT
        saved.parent.mkdir(exist_ok=True)
        saved.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"saved {saved.name}", file=sys.stderr)


if __name__ == "__main__":
    main()
