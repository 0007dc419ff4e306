"""The cheapest way between two Gaussians for a process with noise: the Schroedinger bridge.

Langevin training from q_0 to q_T in time T, at temperature tau, is dearer than the process nearest
to free diffusion that does the same: (1/4 tau) int E|grad L|^2 dt is its divergence from diffusion,
and no less than the bridge's (theory.md#noisy-limit).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from capacity.closed_forms._inputs import Array, finite, non_negative, positive, together


@dataclass(frozen=True, kw_only=True, eq=False)
class Bridge:
    """The least divergence from free diffusion, in nats per mode.

    Attributes:
        divergence: Of the paths from N(mean_start, variance_start) to N(mean_end, variance_end),
            from diffusion with the same start; adds over independent modes.
        transport: min E|x_T - x_0|^2 - 2 sig^2 (H of the plan - H[q_0]), sig^2 = 2 tau T.
    """

    divergence: Array
    transport: Array


def schroedinger_bridge(
    *,
    mean_start: ArrayLike,
    variance_start: ArrayLike,
    mean_end: ArrayLike,
    variance_end: ArrayLike,
    temperature: ArrayLike,
    time: ArrayLike,
) -> Bridge:
    """Bridge two Gaussians on the line by diffusion of variance sig^2 = 2 tau T.

    With D = sqrt(4 s_0 s_T + sig^4) and variances s,
    OT = (m_0 - m_T)^2 + s_0 + s_T - D + sig^2 (1 - log 2 sig^2) + sig^2 log(D + sig^2), and the
    divergence is OT/(2 sig^2) - H[q_T] + log(2 pi sig^2)/2.

    Args:
        mean_start: m_0.
        variance_start: s_0, 0 or more; 0 is a start at one point.
        mean_end: m_T.
        variance_end: s_T, above 0.
        temperature: tau, above 0.
        time: T, above 0.

    Returns:
        The bridge, each field of the arguments' common shape.
    """
    m0, s0, m1, s1, tau, t = together(
        mean_start=finite("mean_start", mean_start),
        variance_start=non_negative("variance_start", variance_start),
        mean_end=finite("mean_end", mean_end),
        variance_end=positive("variance_end", variance_end),
        temperature=positive("temperature", temperature),
        time=positive("time", time),
    )
    sig2 = 2 * tau * t
    root = np.sqrt(4 * s0 * s1 + sig2**2)
    transport = (m0 - m1) ** 2 + s0 + s1 - root + sig2
    transport = transport + sig2 * np.log((root + sig2) / (2 * sig2))
    entropy = 0.5 * np.log(2 * np.pi * np.e * s1)
    divergence = transport / (2 * sig2) - entropy + 0.5 * np.log(2 * np.pi * sig2)
    return Bridge(divergence=divergence, transport=transport)
