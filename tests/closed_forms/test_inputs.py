"""A wrong argument is refused at the door, by name; the front door stays small and light."""

from __future__ import annotations

import doctest
import subprocess
import sys

import numpy as np
import pytest

from capacity import closed_forms as forms

RELAX = {"rate": 1.0, "target": 0.0, "temperature": 1.0, "mean": 0.0, "variance": 1.0, "time": 1.0}
ENDS = {"mean_start": 0.0, "variance_start": 1.0, "mean_end": 1.0, "variance_end": 2.0}
WAY = ENDS | {"duration": 1.0, "temperature": 1.0}
MODES = {"eigenvalues": [1.0, 2.0], "residues": [1.0, 0.0]}
REGRESSION = {"alpha": 1.0, "beta": 1.0, "gamma": 0.5, "lam": 1.0}
STEP = {
    "curvature": 1.0,
    "target": 0.0,
    "temperature": 0.1,
    "mean": 0.0,
    "deviation": 1.0,
    "lr": 0.1,
}
SGD = {"curvature": 1.0, "lr": 0.1, "noise": 1.0}
GAUSS = {"mean_start": 0.0, "deviation_start": 1.0, "mean_end": 1.0, "deviation_end": 1.0}
CIRCLE = {"mean_start": 0.0, "concentration_start": 1.0, "mean_end": 1.0, "concentration_end": 1.0}

BAD = [
    (forms.ornstein_uhlenbeck, RELAX, "variance", 0.0, "above 0"),
    (forms.ornstein_uhlenbeck, RELAX, "temperature", -1.0, "0 or more"),
    (forms.ornstein_uhlenbeck, RELAX, "time", -0.1, "0 or more"),
    (forms.ornstein_uhlenbeck, RELAX, "rate", np.nan, "finite"),
    (forms.ornstein_uhlenbeck, RELAX, "mean", [], "is empty"),
    (forms.ornstein_uhlenbeck, RELAX, "target", "far", "finite number"),
    (forms.ornstein_uhlenbeck, RELAX, "time", [1.0, np.inf], r"\(entry 1 of 2\)"),
    (forms.gaussian_entropy, {"variance": 1.0}, "variance", -2.0, "above 0"),
    (forms.gaussian_w2_squared, ENDS, "variance_end", -1.0, "0 or more"),
    (forms.geodesic, WAY | {"time": 0.5}, "time", 1.5, "not be after duration"),
    (forms.geodesic, WAY | {"time": 0.5}, "variance_start", 0.0, "above 0"),
    (forms.geodesic_cost, WAY, "duration", 0.0, "above 0"),
    (forms.geodesic_cost, WAY, "temperature", -0.5, "0 or more"),
    (
        forms.reachable_radius,
        {"duration": 1.0, "free_energy_drop": 1.0},
        "free_energy_drop",
        -1.0,
        "0 or more",
    ),
    (forms.one_mode_efficiency, {"curvature": 1.0, "time": 1.0}, "curvature", -1.0, "0 or more"),
    (forms.kernel_flow, MODES | {"time": 1.0}, "eigenvalues", [1.0, -1.0], "0 or more"),
    (forms.kernel_flow, MODES | {"time": 1.0}, "time", -1.0, "0 or more"),
    (forms.converged_speed_limit, MODES, "eigenvalues", [1.0, 0.0], "above 0"),
    (forms.converged_speed_limit, MODES, "residues", [0.0, 0.0], "all 0"),
    (
        forms.power_law_flow_loss,
        {"spectrum": 1.0, "residue": 2.0, "time": 1.0},
        "residue",
        1.0,
        "above 1",
    ),
    (
        forms.quadratic_equilibrium_cost,
        {"curvature": 1.0, "target": 0.0, "beta": 1.0},
        "beta",
        0.0,
        "above 0",
    ),
    (forms.regression_cost, REGRESSION, "beta", 0.0, "above 0"),
    (forms.regression_cost, REGRESSION, "gamma", -1.0, "above 0"),
    (forms.regression_cost, REGRESSION, "lam", 0.0, "above 0"),
    (forms.regression_cost, REGRESSION, "alpha", -1.0, "0 or more"),
    (
        forms.sampled_regression_cost,
        REGRESSION | {"eigenvalues": [1.0]},
        "eigenvalues",
        -1,
        "0 or",
    ),
    (forms.zero_temperature_speed_limit, {"gamma": 1.0}, "gamma", 0.0, "above 0"),
    (forms.sgd_stationary_variance, SGD, "lr", 2.0, "below 2/curvature"),
    (forms.sgd_stationary_variance, SGD, "noise", -1.0, "0 or more"),
    (forms.sde_stationary_variance, SGD, "curvature", 0.0, "above 0"),
    (forms.explicit_step_ratio, {"curvature": 1.0, "lr": 0.1}, "lr", 0.0, "above 0"),
    (forms.jko_step, STEP, "deviation", 0.0, "above 0"),
    (forms.jko_step, STEP, "lr", -1.0, "above 0"),
    (forms.kl_step, STEP, "temperature", 0.0, "above 0"),
    (forms.kl_step, STEP, "curvature", -1.0, "0 or more"),
    (forms.implicit_step_ratio, {"curvature": 1.0, "lr": 0.1}, "curvature", -1.0, "0 or more"),
    (
        forms.descent_action,
        {"curvature": 1.0, "residue": 1.0, "lr": 0.1, "steps": 3},
        "lr",
        2.0,
        "below 2/curvature",
    ),
    (
        forms.descent_action,
        {"curvature": 1.0, "residue": 1.0, "lr": 0.1, "steps": 3},
        "steps",
        2.5,
        "whole number",
    ),
    (forms.gaussian_distance, GAUSS, "deviation_end", 0.0, "above 0"),
    (forms.isotropic_curvature, {"dimensions": 1}, "dimensions", 1.5, "whole number"),
    (forms.von_mises, {"concentration": 1.0}, "concentration", -1.0, "0 or more"),
    (forms.von_mises_distance, CIRCLE, "concentration_start", -1.0, "0 or more"),
]


@pytest.mark.parametrize(
    ("function", "good", "argument", "value", "accepted"),
    BAD,
    ids=[f"{row[0].__name__}-{row[2]}" for row in BAD],
)
def test_wrong_arguments_are_named(function, good, argument, value, accepted):
    function(**good)
    with pytest.raises(ValueError, match=rf"(?s)^{argument}.*{accepted}"):
        function(**good | {argument: value})


def test_one_number_means_one():
    with pytest.raises(ValueError, match=r"gamma has shape \(2,\); give one number"):
        forms.marchenko_pastur_mean(np.ones_like, gamma=[0.5, 1.0])


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"shapes do not broadcast: .*mean \(3,\).*time \(2,\)"):
        forms.ornstein_uhlenbeck(**RELAX | {"mean": [0.0] * 3, "time": [1.0] * 2})


def test_the_example_runs():
    result = doctest.testmod(forms)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.slow
def test_every_name_is_documented_and_importing_needs_no_torch():
    for name in forms.__all__:
        assert name == "MANY_SAMPLES_SPEED_LIMIT" or getattr(forms, name).__doc__
    code = "import sys, capacity.closed_forms; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
