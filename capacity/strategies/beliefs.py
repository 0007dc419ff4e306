"""Strategies that hold a belief at the one before: its divergence, and its distance.

Both are of the law q = N(mu, s^2) that `training.belief` moves, not of a point, and in units of
its temperature tau, which is what a nat weighs in the loss (theory.md#belief-strategies).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from capacity.recipe.strategy import PositiveFloat
from capacity.strategies.contribution import Contribution
from capacity.strategies.strategy import Price, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from capacity.networks.flat_model import FlatModel
    from capacity.recipe.config import Training
    from capacity.strategies.contribution import Penalty
    from capacity.strategies.terms import Private, Source
    from capacity.tasks.task import Task
    from capacity.training.steps import Observer


class _OfBeliefs(Strategy):
    """Remembers the belief after the last task."""

    of_beliefs = True
    strength: PositiveFloat = 1.0

    def check(self, model: FlatModel) -> None:
        """Refuse a point."""
        if model.belief is None:
            raise ValueError(
                f"strategy {self.name!r} holds a belief at the last one, and the model is a point; "
                "set training.belief, as belief: transport with a temperature, or take 'ewc' or "
                "'l2'"
            )

    def prepare(
        self,
        model: FlatModel,
        theta: Tensor,
        old: tuple[Task, ...],
        state: Any,
        source: Source,
        watched: Observer | None = None,
    ) -> Tensor:
        """Remember widths and means, in place of those before."""
        del model, old, state, source, watched
        return theta

    def contribution(
        self,
        model: FlatModel,
        old: tuple[Task, ...],
        new: Task,
        training: Training,
        state: Tensor,
        source: Source,
    ) -> Contribution:
        """Add the penalty."""
        del model, old, new, source
        assert training.temperature is not None, "a plan with a belief has a temperature"
        penalty = self._penalty(state, self.strength * training.temperature)
        return Contribution(training=training, penalty=penalty)

    def price(self, gradient: float, old: int, outputs: int) -> Price:
        """Two numbers per parameter are remembered."""
        del gradient, old, outputs
        return Price()

    def _penalty(self, belief: Tensor, weight: float) -> Penalty:
        raise NotImplementedError


class VCL(_OfBeliefs):
    """Variational continual learning (Nguyen et al. 2018): the last belief is the new prior.

    Adds strength tau E_q[-log q_old] to the loss. With the entropy that a belief's training has
    already, that makes strength tau KL(q || q_old) at strength 1.

    Attributes:
        strength: Weight, in units of the belief's temperature.
    """

    name = "vcl"
    title = "VCL"

    def _penalty(self, belief: Tensor, weight: float) -> Penalty:
        import torch

        from capacity.strategies.penalties import Quadratic

        # E_q[-log q_old] = sum ((mu - mu_old)^2 + s^2)/(2 s_old^2) + a constant.
        widths, means = belief.chunk(2, dim=-1)
        anchor = torch.cat([torch.zeros_like(widths), means], dim=-1)
        precision = weight / widths.square()
        return Quadratic.around(anchor, torch.cat([precision, precision], dim=-1))


class FisherRao(_OfBeliefs):
    """Fisher-Rao regularisation ([FR]): strength tau/2 d^2(q, q_old), d the geodesic distance.

    For small moves it is EWC with the belief's own precision, and a term for the widths; it stays
    the same when a parameter is rescaled.

    Attributes:
        strength: Weight, in units of the belief's temperature.
    """

    name = "fisher_rao"
    title = "Fisher-Rao"

    def _penalty(self, belief: Tensor, weight: float) -> Penalty:
        return _Geodesic(belief=belief, weight=weight)


@dataclass(frozen=True, kw_only=True)
class _Geodesic:
    """weight/2 sum d^2 over parameters, d of Gaussians on the line.

    Attributes:
        belief: Widths and means that it is measured from (R, 2P).
        weight: Its weight in the loss.
    """

    belief: Tensor
    weight: float

    @property
    def private(self) -> Private:
        """Where it is measured from."""
        return {"belief": self.belief}

    def value(self, theta: Tensor, private: Private) -> Tensor:
        """Evaluate it for one replica."""
        import torch

        (s, mu), (s0, mu0) = (part.chunk(2, dim=-1) for part in (theta, private["belief"]))
        # d = sqrt 2 arccosh(1 + 2w) = 2 sqrt 2 asinh(sqrt w), whose square is smooth at w = 0.
        w = (0.5 * (mu - mu0).square() + (s - s0).square()) / (4 * s * s0)
        near = w < _NEAR
        far = torch.asinh(torch.where(near, torch.ones_like(w), w).sqrt()).square()
        series = w * (1 - w / 3 + 8 * w.square() / 45 - 4 * w**3 / 35)
        return 4 * self.weight * torch.where(near, series, far).sum()


_NEAR = 1e-3
"""Where asinh(sqrt w)^2 is its series to w^4, to the last digits of float64."""
