"""The proofs' simulations obey the limit, and the speed scripts compare like with like."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from capacity.thermo.speed_limit import judge
from capacity.thermo.speed_limit_verdicts import Verdict

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "thermo"))

from false_violations import cases
from simulated import DYNAMICS, Case, geodesic_record, simulate


@pytest.mark.slow
@pytest.mark.parametrize("system", ["gaussian", "network"])
@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_simulated_ensembles_obey_the_limit(system, dynamics):
    case = Case(system=system, dynamics=dynamics, count=20, size=38, seed=7)
    made = judge(simulate(case))
    assert made.verdict is not Verdict.VIOLATED
    assert made.replicas == 20
    assert made.optimizer in {"sgd", "momentum", "sgld"}


@pytest.mark.slow
def test_the_geodesic_pays_what_it_must():
    record, truth = geodesic_record(200, 50, 3)
    made = judge(record)
    low, high = made.sigma.interval
    assert low * made.learning_time < truth < high * made.learning_time


def test_the_cases_are_spread_and_reproducible():
    drawn = cases(200)
    assert drawn == cases(200)
    assert {c.count for c in drawn} == {20, 50, 100, 200}
    assert {c.dynamics for c in drawn} == set(DYNAMICS)
    assert torch.get_default_dtype() == torch.float32
