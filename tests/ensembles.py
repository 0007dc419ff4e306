"""Ensembles whose every quantity is known: Gaussians in quadratic potentials."""

from __future__ import annotations

import numpy as np
import torch

from capacity.closed_forms import geodesic, ornstein_uhlenbeck
from capacity.thermo.ensemble import Ensemble
from capacity.thermo.ensemble_record import Start
from capacity.thermo.landscape import Potential

RATE = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
TARGET = torch.tensor([1.5, -1.0, 0.5], dtype=torch.float64)


def bowl(rate=RATE, target=TARGET):
    """V = 1/2 sum rate (theta - target)^2."""
    return Potential(
        energy=lambda theta, time: 0.5 * (rate * (theta - target).square()).sum(-1), batched=True
    )


def gaussian_start(count, *, variance=1.0, size=3, seed=0):
    """Positions of N(0, variance) and the ensemble that starts there, its entropy known."""
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(count, size, generator=generator, dtype=torch.float64) * variance**0.5
    entropy = 0.5 * size * np.log(2 * np.pi * np.e * variance)
    return theta, Ensemble(theta, start=Start.COLD, entropy_start=float(entropy))


def relaxation(*, temperature, time, variance=1.0):
    """The closed form of the bowl, per mode."""
    return ornstein_uhlenbeck(
        rate=RATE.numpy(),
        target=TARGET.numpy(),
        temperature=temperature,
        mean=0.0,
        variance=variance,
        time=time,
    )


def protocol(*, mean_end, variance_end, duration, temperature):
    """The moving potential whose Langevin dynamics follows the geodesic from N(0, 1)."""

    def energy(theta, time):
        point = geodesic(
            mean_start=0.0,
            variance_start=1.0,
            mean_end=mean_end,
            variance_end=variance_end,
            duration=duration,
            time=min(time, duration),
            temperature=temperature,
        )
        k, mu, lean = (
            torch.as_tensor(np.asarray(part))
            for part in (point.stiffness, point.mean, point.mean_rate)
        )
        away = theta - mu
        # V = k/2 (x - c)^2 up to what does not depend on x.
        return (0.5 * k * away.square() - lean * away).sum(-1)

    return Potential(energy=energy, moving=True, batched=True)
