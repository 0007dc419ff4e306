"""Closed forms of the thermodynamics of learning: what the estimators are held against.

Pure float64 functions with keyword-only settings; arrays broadcast. Everything per mode is
additive over independent modes unless its docstring says otherwise. Time is learning time
(the sum of learning rates), entropies are in nats, energies in units of the loss. An argument out
of its range is a ValueError that names the argument, what came and what is accepted.

Example:
    >>> import capacity
    >>> cooled = capacity.closed_forms.ornstein_uhlenbeck(
    ...     rate=1.0, target=2.0, temperature=0.1, mean=0.0, variance=1.0, time=3.0
    ... )
    >>> print(f"inefficiency T Sigma/W2^2 = {3.0 * cooled.dissipation / cooled.w2_squared:.2f}")
    inefficiency T Sigma/W2^2 = 1.72
"""

from __future__ import annotations

from capacity.closed_forms.fisher_rao import (
    gaussian_distance,
    gaussian_line_element,
    isotropic_curvature,
    isotropic_distance,
    isotropic_entropy,
)
from capacity.closed_forms.geodesic import (
    GeodesicCost,
    GeodesicPoint,
    gaussian_w2_squared,
    geodesic,
    geodesic_cost,
    reachable_radius,
)
from capacity.closed_forms.gradient_flow import (
    KernelFlow,
    converged_speed_limit,
    kernel_flow,
    one_mode_efficiency,
    power_law_flow_loss,
)
from capacity.closed_forms.langevin_equilibrium import (
    EquilibriumCost,
    equilibrium_cost,
    quadratic_equilibrium_cost,
)
from capacity.closed_forms.ornstein_uhlenbeck import (
    Relaxation,
    gaussian_entropy,
    gibbs_divergence,
    ornstein_uhlenbeck,
)
from capacity.closed_forms.regression import (
    MANY_SAMPLES_SPEED_LIMIT,
    RegressionCost,
    marchenko_pastur_mean,
    regression_cost,
    sampled_regression_cost,
    zero_temperature_speed_limit,
)
from capacity.closed_forms.schroedinger_bridge import Bridge, schroedinger_bridge
from capacity.closed_forms.variational import (
    BeliefStep,
    DescentAction,
    descent_action,
    explicit_step_ratio,
    implicit_step_ratio,
    jko_step,
    kl_step,
    sde_stationary_variance,
    sgd_stationary_variance,
)
from capacity.closed_forms.von_mises import VonMises, von_mises, von_mises_distance

__all__ = [
    "MANY_SAMPLES_SPEED_LIMIT",
    "BeliefStep",
    "Bridge",
    "DescentAction",
    "EquilibriumCost",
    "GeodesicCost",
    "GeodesicPoint",
    "KernelFlow",
    "RegressionCost",
    "Relaxation",
    "VonMises",
    "converged_speed_limit",
    "descent_action",
    "equilibrium_cost",
    "explicit_step_ratio",
    "gaussian_distance",
    "gaussian_entropy",
    "gaussian_line_element",
    "gaussian_w2_squared",
    "geodesic",
    "geodesic_cost",
    "gibbs_divergence",
    "implicit_step_ratio",
    "isotropic_curvature",
    "isotropic_distance",
    "isotropic_entropy",
    "jko_step",
    "kernel_flow",
    "kl_step",
    "marchenko_pastur_mean",
    "one_mode_efficiency",
    "ornstein_uhlenbeck",
    "power_law_flow_loss",
    "quadratic_equilibrium_cost",
    "reachable_radius",
    "regression_cost",
    "sampled_regression_cost",
    "schroedinger_bridge",
    "sde_stationary_variance",
    "sgd_stationary_variance",
    "von_mises",
    "von_mises_distance",
    "zero_temperature_speed_limit",
]
