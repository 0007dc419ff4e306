"""IVON's update, as the benchmark has it, on a quadratic where its posterior is known."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "thermo"))

from ivon import Ivon


@pytest.mark.slow  # some thousand steps
def test_it_settles_at_the_curvature_and_the_minimum(float64):
    torch.manual_seed(0)
    curvature, target = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, -2.0, 0.5])
    state = Ivon(torch.zeros(3), samples=100.0, hessian=0.5, decay=0.0, beta2=0.995)
    for _ in range(3000):
        state.step(lambda theta: curvature * (theta - target), 0.01)
    torch.testing.assert_close(state.mean, target, atol=0.1, rtol=0.1)
    torch.testing.assert_close(state.curvature, curvature, rtol=0.35, atol=0)
    torch.testing.assert_close(state.width, (100 * state.curvature).rsqrt())
