"""Distillation of the old outputs on the *new* inputs, a term of the loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import log_softmax

from capacity.networks.flat_model import FlatModel
from capacity.strategies.terms import Private


@dataclass(frozen=True, kw_only=True)
class OldOutputs:
    """strength times the divergence of the outputs from those of the old weights, on one batch.

    Per old head KL(p_old || p) of the softmax at a temperature, over the classes seen so far; for
    regression half the squared distance. Both are least, and flat, at the old weights. Kept are
    R P numbers; a step costs one more forward pass.

    Attributes:
        model: The network.
        teacher: The old weights (R, P).
        heads: Outputs of each old classification head.
        values: Outputs of the old regressions.
        strength: Weight in the loss.
        temperature: Of the softmax.
    """

    model: FlatModel
    teacher: Tensor
    heads: tuple[tuple[int, ...], ...]
    values: tuple[int, ...]
    strength: float
    temperature: float

    @property
    def private(self) -> Private:
        """The old weights."""
        return {"teacher": self.teacher}

    def value(self, outputs: Tensor, x: Tensor, private: Private) -> Tensor:
        """Evaluate it for one replica.

        Args:
            outputs: The network's outputs now (b, n_outputs).
            x: The inputs that led to them (b, ...).
            private: The replica's old weights.

        Returns:
            A scalar.
        """
        before = self.model.outputs(private["teacher"], x)
        total = outputs.new_zeros(())
        for head in self.heads:
            now, then = (
                log_softmax(f[:, list(head)] / self.temperature, dim=1) for f in (outputs, before)
            )
            # functional.kl_div has no batching rule.
            total = total + (then.exp() * (then - now)).sum(1).mean()
        if self.values:
            moved = outputs[:, list(self.values)] - before[:, list(self.values)]
            total = total + 0.5 * moved.square().sum(-1).mean()
        return self.strength * total
