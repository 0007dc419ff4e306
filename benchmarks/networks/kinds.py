"""What works at which door: kinds of network, data and plan, each tried at every one.

    python benchmarks/networks/kinds.py [--cache FILE] [--only NAME] [--save]

A cell says `works`, `undefined` (a record that says that a figure does not exist, as after a
training that diverged), `refuses` (a ValueError, whose first words are listed below the table) or
`CRASH`. Each kind is kept in the cache as soon as it is there, so that the script goes on where it
was stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from kinds_of_input import KINDS, Kind

import capacity
from capacity.products.hessian_products import HessianProducts

RESULTS = Path(__file__).parent / "results" / "kinds.txt"
DOORS = ("run", "forecast", "J_t", "capacity", "speed limit", "report")
FOLLOWED = capacity.Measure(
    forecast=False, transport=True, capacity=False, verdicts=False, closure_points=0,
    tangents=2, log_volume_probes=2, log_volume_nodes=2, top_values=2, sweeps=4,
)  # fmt: skip
PLAIN = capacity.Measure(forecast=False)
_SAID = 260


def tried(name: str) -> dict[str, Any]:
    """Try one kind at every door."""
    begin = time.process_time()
    cells: dict[str, tuple[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        run = _attempt(name, lambda kind: _run(kind, FOLLOWED, folder + "/followed"), _followed)
        cells["J_t"] = run[:2]
        made = run[2]
        if made is None:
            plain = _attempt(name, lambda kind: _run(kind, PLAIN, folder + "/plain"), _finished)
            cells["run"], made = plain[:2], plain[2]
        else:
            cells["run"] = _finished(made)
        cells["report"] = ("refuses", "there is no run") if made is None else _reported(made)
    cells["forecast"] = _attempt(
        name,
        lambda kind: capacity.forecast(
            kind.model, old=kind.old, new=kind.new, training=_plan(kind), loss=kind.loss
        ),
        lambda made: _figure(made.old[0].loss_increase),
    )[:2]
    cells["capacity"] = _attempt(
        name,
        lambda kind: capacity.compatible_capacity(
            kind.model, old=kind.old, new=kind.new, loss=kind.loss, tolerance=0.1, displacement=1.0
        ),
        lambda made: _figure(made.capacity[0].directions),
    )[:2]
    cells["speed limit"] = _attempt(
        name,
        lambda kind: capacity.epistemic_speed_limit(
            kind.model, [kind.old, kind.new], training=_plan(kind), loss=kind.loss,
            replicas=2, start="warm",
        ),
        lambda made: _figure(made.tasks[0].per_replica),
    )[:2]  # fmt: skip
    return {"name": name, "cells": cells, "seconds": round(time.process_time() - begin, 1)}


def _attempt(
    name: str, do: Callable[[Kind], Any], read: Callable[[Any], tuple[str, str]]
) -> tuple[str, str, Any]:
    """Build a kind anew, go through a door, and read what came."""
    torch.manual_seed(0)
    kind = KINDS[name]()
    before = {key: part.clone() for key, part in _tensors(kind).items()}
    try:
        made = do(kind)
    except ValueError as error:
        return ("refuses", _line(error), None)
    except Exception as error:
        return ("CRASH", f"{type(error).__name__}: {_line(error)}", None)
    changed = [key for key, part in _tensors(kind).items() if not torch.equal(part, before[key])]
    if changed:
        return ("CRASH", f"the caller's {changed[0]} has changed", None)
    return (*read(made), made)


def _tensors(kind: Kind) -> dict[str, torch.Tensor]:
    uninitialised = torch.nn.parameter.UninitializedTensorMixin
    state = kind.model.state_dict()
    return {key: t for key, t in state.items() if not isinstance(t, uninitialised)}


def _plan(kind: Kind) -> capacity.Training:
    return capacity.Training(**kind.plan)


def _run(kind: Kind, measure: capacity.Measure, out: str) -> Any:
    return capacity.run(
        [kind.old, kind.new], model=kind.model, training=_plan(kind), loss=kind.loss,
        measure=measure, replicas=1, out=out, quiet=True,
    )  # fmt: skip


def _finished(made: Any) -> tuple[str, str]:
    if made.status == "diverged":
        return ("undefined", "the training diverged")
    losses = [x for row in made.result["loss"]["mean"] for x in row if x is not None]
    fine = made.status == "finished" and all(map(math.isfinite, losses))
    return ("works", "") if fine else ("CRASH", f"status {made.status}")


def _followed(made: Any) -> tuple[str, str]:
    if made.status == "diverged":
        return ("undefined", "the training diverged")
    transport = made.result["phases"][0]["transport"]
    values = transport["singular_values"]
    fine = bool(values) and all(math.isfinite(each["value"]) for each in values)
    return ("works", "") if fine else ("undefined", transport["log_volume"]["note"])


def _reported(made: Any) -> tuple[str, str]:
    page = Path(made.path) / "report.html"  # which a run writes at its end
    try:
        page = page if page.exists() else made.report()
    except ValueError as error:
        return ("refuses", _line(error))
    except Exception as error:
        return ("CRASH", f"{type(error).__name__}: {_line(error)}")
    return ("works", "") if page.stat().st_size > 10_000 else ("CRASH", "the page is empty")


def _figure(estimate: capacity.Estimate) -> tuple[str, str]:
    if estimate.value is None:
        return ("undefined", estimate.note)
    return ("works", "") if math.isfinite(estimate.value) else ("CRASH", f"{estimate.value}")


def _line(error: Exception) -> str:
    said = " ".join(str(error).split())
    return said if len(said) <= _SAID else said[:_SAID] + " ..."


def table(rows: list[dict[str, Any]]) -> str:
    """Lay the results out, with the refusals below."""
    width = max(len(row["name"]) for row in rows)
    lines = [" ".join([f"{'kind':{width}}", *(f"{door:11}" for door in DOORS)]).rstrip()]
    reasons: dict[str, list[str]] = {}
    for row in rows:
        said = [row["cells"][door] for door in DOORS]
        lines.append(
            " ".join([f"{row['name']:{width}}", *(f"{what:11}" for what, _ in said)]).rstrip()
        )
        for door, (what, why) in zip(DOORS, said, strict=True):
            if what != "works" and door != "report":
                reasons.setdefault(f"{row['name']}: {what}: {why}", []).append(door)
    counts = {door: Counter(row["cells"][door][0] for row in rows) for door in DOORS}
    lines.append("")
    lines += [
        f"{door}: " + ", ".join(f"{n} {what}" for what, n in sorted(counts[door].items()))
        for door in DOORS
    ]
    lines += ["", "Refused or undefined, and the way out:"]
    lines += [f"- {', '.join(doors)} of {said}" for said, doors in reasons.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("kinds-cache.jsonl"))
    parser.add_argument("--only", action="append", choices=KINDS)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    # Tracing products costs more than all of them in networks as small as these.
    HessianProducts._trace = lambda self, *_: self._untraced()
    kept = options.cache.read_text().splitlines() if options.cache.exists() else []
    done = {row["name"]: row for row in map(json.loads, kept)}
    for name in options.only or KINDS:
        if name not in done:
            done[name] = tried(name)
            with options.cache.open("a") as file:
                file.write(json.dumps(done[name]) + "\n")
            words = " ".join(done[name]["cells"][door][0] for door in DOORS)
            print(f"{name}: {words} ({done[name]['seconds']} s)", flush=True)
    rows = [done[name] for name in KINDS if name in done]
    text = f"{len(rows)} kinds of network, data and plan at every door\n\n{table(rows)}"
    print(text)
    if options.save:
        RESULTS.write_text(text + "\n")


if __name__ == "__main__":
    main()
