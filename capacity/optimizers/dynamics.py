"""What moves an ensemble, as far as the meaning of Sigma depends on it."""

from __future__ import annotations

from enum import StrEnum


class Dynamics(StrEnum):
    """What moves the ensemble, as far as the meaning of Sigma depends on it."""

    GRADIENT = "gradient descent"
    """Full-batch plain steps: the discrete gradient flow."""
    MINIBATCH = "SGD"
    """Plain steps on batches: the path carries minibatch noise."""
    HEAVY_BALL = "heavy ball"
    """Momentum: Sigma by energy balance in the continuous limit only."""
    LANGEVIN = "Langevin"
    """Overdamped Langevin dynamics: sums over the noisy path measure the step, not the cost."""
    UNDERDAMPED = "underdamped Langevin"
    """Langevin dynamics with inertia: Sigma lives in the space of theta and momenta."""
    OTHER = "other"
    """Adam, clipping, Nesterov, ...: no free energy is dissipated at a rate E|v|^2."""

    @property
    def noisy(self) -> bool:
        """Whether the path carries thermal noise."""
        return self in {Dynamics.LANGEVIN, Dynamics.UNDERDAMPED}

    @property
    def inert(self) -> bool:
        """Whether momenta carry energy of their own."""
        return self in {Dynamics.HEAVY_BALL, Dynamics.UNDERDAMPED}
