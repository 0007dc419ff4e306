"""What a fabricated run measured of capacity before a task; its footnotes start with NOTE."""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]
PARAMETERS = 1234


def estimate(
    value: float | None, stderr: float | None = None, status: str = "ok", note: str = "", n: int = 4
) -> Record:
    """An estimate as `result.json` holds it; its interval is two standard errors wide."""
    interval = None
    if value is not None and stderr is not None:
        interval = [value - 2 * stderr, value + 2 * stderr]
    return {
        "value": value,
        "stderr": stderr,
        "status": status,
        "interval": interval,
        "level": 0.9,
        "n": n,
        "cost": 0.0,
        "note": note,
    }


def capacity_record(i: int, *, classes: bool) -> Record:
    """Capacity, dimension, verdicts and plasticity before task i."""
    room = estimate(PARAMETERS * 1.2, 4.0)
    return {
        "capacity": {
            "nats": estimate(3400.0, 9.0),
            "directions": room,
            "by_eps": [{"eps": 0.1, "nats": estimate(3400.0, 9.0), "directions": room}],
            "parameters": PARAMETERS,
            "rescalings": 16,
            "removed": 31,
            "removed_complete": True,
            "tolerance": 0.03,
            "displacement": 4.0,
            "curvature_threshold": 0.00375,
            "removed_range": [29, 33],
            "soft_removed": estimate(44.0, 1.1),
            "subspace_error": estimate(1.0, None, "not_resolved", "The cut falls in no gap."),
            "convergence": {
                "gradient": estimate(0.7),
                "remaining": estimate(0.9),
                "converged": False,
                "note": "NOTE-not-converged",
            },
            "sensitivity": [
                {
                    "tolerance": tolerance,
                    "curvature_threshold": tolerance / 8,
                    "removed": removed,
                    "removed_complete": removed < 50,
                    "soft_removed": estimate(1.4 * removed, 1.0),
                    "by_eps": [
                        {"eps": e, "nats": estimate(3e3, 9.0), "directions": estimate(1e3, 3.0)}
                        for e in (0.01, 0.1)
                    ],
                }
                for tolerance, removed in ((0.003, 63), (0.03, 31), (0.3, 8))
            ],
        },
        "dimension": {
            "stable_rank": estimate(21.5, 1.2),
            "intrinsic": estimate(3.1, 0.7),
            "top_curvature": estimate(0.8, 0.01),
            "negative_share": estimate(0.4, 0.01),
            "no_demand": False,
        },
        "literal": {
            "fires": False,
            "margin": PARAMETERS * 1.2 - 21.5,
            "stderr": 4.2,
            "verdict": "room left",
            "note": "In an over-parameterised network it almost never fires.",
        },
        "verdicts": verdicts(i, classes=classes),
        "closures": {
            form: {
                "threshold": 0.05,
                "fires_above": form != "capacity",
                "points": [
                    {"time": 0.5 * k, "capacity": estimate(0.05), "need": estimate(0.02 * k, 0.01)}
                    for k in range(5)
                ],
                "time": estimate(1.25 + i),
                "closes": (True, False, None)[i % 3],
            }
            for form in ("capacity", "transport_cost", "directional")
        },
        "plasticity": {
            name: estimate(value, None)
            for name, value in {
                "feature_rank": 9.4,
                "feature_srank": 20.0,
                "dormant": 0.25,
                "gradient_rank": 17.0,
                "weight_norm": 6.0,
            }.items()
        },
    }


def verdicts(i: int, *, classes: bool) -> Record:
    """What the forms of the criterion say before task i; one of them has no value."""

    def form(name: str, value: Record, threshold: float, margin: float | None, said: str) -> Record:
        return {
            "form": name,
            "value": value,
            "threshold": threshold,
            "fires_above": name != "capacity",
            "margin": margin,
            "fires": said == "forgetting predicted",
            "verdict": said,
            "note": f"NOTE-{name}",
        }

    none = estimate(None, None, "not_defined", "NOTE-infinite-cost")
    return {
        "verdict": "forgetting predicted",
        "decides": "directional",
        "why": "It sees where B moves A's outputs.",
        "capacity": form("capacity", estimate(0.93, 0.02), 0.9, 0.03, "undecided"),
        "transport_cost": form("transport_cost", none, 1.2, None, "undecided"),
        "directional": form(
            "directional", estimate(0.4 + 0.1 * i, 0.02), 0.05, -0.35, "forgetting predicted"
        ),
        "room": {},
        "drift": {} if classes else None,
        "removed": 12,
        "tolerance": 0.03,
        "displacement": 2.0,
        "time": 9.0,
        "warnings": ["NOTE-warned"],
        "source": "benchmarks/forecast/results/criterion.txt",
    }
