"""How far is Langevin training from the speed limit that holds with noise?

An ensemble of a digits network learns by SGLD from one point, at several temperatures: what it
spends, sum lr E|g|^2/(4 tau), against the least divergence from free diffusion that ends in the
same law, both in nats. Drawn on the page of geometries.

    OMP_NUM_THREADS=1 python benchmarks/thermo/noisy_limit.py [--save] [--replicas 60]
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from geometries_page import NOISE, write

import capacity
from capacity.networks.models import build_model
from capacity.recipe.config import Model, TaskStream
from capacity.tasks.build import build_tasks

TEMPERATURES = (1e-4, 1e-3, 1e-2)


def measured(temperature: float, *, replicas: int, epochs: int = 60) -> dict[str, Any]:
    """Train an ensemble at a temperature.

    Args:
        temperature: tau.
        replicas: Networks.
        epochs: Full-batch steps.

    Returns:
        A row: what was spent, the least, their quotient and the verdict.
    """
    stream = TaskStream(dataset="digits", scenario="permuted", experiences=1, samples=128)
    (task,) = build_tasks(stream).tasks
    plan = capacity.Training(
        optimizer="sgld", temperature=temperature, lr=0.2, epochs=epochs, batch_size=128
    )
    made = capacity.epistemic_speed_limit(
        build_model(Model(hidden=(8,)), (64,), 10, 0),
        task, training=plan, replicas=replicas, start="warm",
    )  # fmt: skip
    limit = made.tasks[0].noisy
    assert limit is not None, "SGLD from one point has the limit"
    return {
        "temperature": temperature,
        **{name: getattr(limit, name).to_dict() for name in ("spent", "least", "efficiency")},
        "verdict": str(limit.verdict),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"write {NOISE.name} and the page")
    parser.add_argument("--replicas", type=int, default=60)
    options = parser.parse_args()
    rows = [measured(tau, replicas=options.replicas) for tau in TEMPERATURES]
    for row in rows:
        told = {k: row[k]["value"] for k in ("spent", "least", "efficiency")}
        print(
            f"temperature {row['temperature']:g}: spent {told['spent']:.4g} nats, least "
            f"{told['least']:.4g}, efficiency {told['efficiency']:.3f}, {row['verdict']}"
        )
    if options.save:
        NOISE.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        write()


if __name__ == "__main__":
    main()
