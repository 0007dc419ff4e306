"""A Gaussian belief about a network's parameters, as a network whose parameters are its moments.

Every parameter becomes a mean and a width (a standard deviation), independent of the others. In
training mode a call runs the network at one draw of theta = mean + width * noise, and a loss is
averaged over antithetic pairs of them; the noise is torch's, so that it belongs to the batch like
dropout's masks. In evaluation mode probabilities are averaged over draws that are always the same
(theory.md#belief).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from capacity.base.checks import positive_float, positive_int
from capacity.networks.calling import outputs_of
from capacity.networks.copies import copied, unwrapped
from capacity.recipe.config import Training

_SEED = 20_261_130
"""Of the draws that predictions are averaged over."""


class Belief(nn.Module):
    """A network's parameters as independent Gaussians: their widths, then their means.

    Args:
        network: The network; it is copied. Its trainable parameters are the means.
        width: Standard deviation of every parameter at first, in the unit of theta, above 0.
        draws: Antithetic pairs of draws behind a loss in training mode.
        predictions: Antithetic pairs behind a prediction.
        probabilities: Average probabilities, the softmax of a row of outputs, and give their
            logarithms; False averages the outputs themselves, as for a regression.

    Attributes:
        network: The copy, at the means.
        size: Parameters of the network that are trained; the belief has twice as many.
        turn: Which of the draws of a loss a call in training mode is, from 0; odd ones mirror the
            one before them.

    Example:
        >>> import capacity, torch
        >>> belief = capacity.Belief(torch.nn.Linear(4, 2), width=0.1)
        >>> sum(p.numel() for p in belief.parameters())
        20
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        width: float = 0.02,
        draws: int = 1,
        predictions: int = 2,
        probabilities: bool = True,
    ) -> None:
        super().__init__()
        self.width = positive_float("width", width)
        self.draws = positive_int("draws", draws)
        self.probabilities = probabilities
        means = {n: p for n, p in network.named_parameters() if p.requires_grad}
        self._names = tuple(means)
        for k, mean in enumerate(means.values()):
            spread = torch.full_like(mean.detach(), width)
            self.register_parameter(f"width_{k}", nn.Parameter(spread))
        self.network = copied(network)
        self.size = sum(mean.numel() for mean in means.values())
        self.turn = 0
        self._sizes = [mean.numel() for mean in means.values()]
        self._shift: Tensor | None = None
        source = torch.Generator().manual_seed(_SEED)
        # Not buffers: they are no state of the network, and no training moves them.
        self._fixed = [
            torch.cat([
                torch.randn(m.shape, generator=source, dtype=torch.float32).reshape(-1)
                for m in means.values()
            ])
            for _ in range(positive_int("predictions", predictions))
        ]

    def reset_parameters(self) -> None:
        """Put every width back to what it was at first."""
        for spread in self.parameters(recurse=False):
            nn.init.constant_(spread, self.width)

    @property
    def passes(self) -> int:
        """Calls that a loss is averaged over."""
        return 2 * self.draws if self.training else 1

    @contextmanager
    def at_turn(self, turn: int) -> Iterator[None]:
        """Make the calls within one of the draws of a loss.

        Args:
            turn: Which one, in turn, below `passes`.

        Yields:
            Nothing.
        """
        self.turn = turn
        try:
            yield
        finally:
            self.turn = 0

    def point(self, theta: Tensor) -> Tensor:
        """Draw the network that a call in training mode runs: that of this turn.

        The noise is drawn before the first call of a pair, and mirrored in the second.

        Args:
            theta: Widths, then means (2P,).

        Returns:
            Parameters of the network (P,).

        Raises:
            ValueError: If the second of a pair comes before the first.
        """
        widths, means = theta.chunk(2)
        if self.turn % 2 == 0:
            noise = torch.cat([torch.randn_like(part) for part in means.split(self._sizes)])
            self._shift = widths * noise
            return means + self._shift
        shift, self._shift = self._shift, None
        if shift is None:
            raise ValueError(
                f"turn {self.turn} mirrors the draw before it, which was not made; begin at turn 0"
            )
        return means - shift

    @property
    def in_it(self) -> str:
        """What the names of the network's parameters and buffers begin with in the belief's."""
        return "network."

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Run the network at a draw, or predict.

        Args:
            *inputs: Inputs of the network.
            **named: Inputs of the network, by name.

        Returns:
            Outputs (n, C): in evaluation mode logarithms of mean probabilities, or mean outputs.
        """
        means = dict(self.network.named_parameters())
        flat = torch.cat([means[name].reshape(-1) for name in self._names])
        widths = torch.cat([spread.reshape(-1) for spread in self.parameters(recurse=False)])

        def at(point: Tensor) -> Tensor:
            parts = zip(self._names, point.split(self._sizes), strict=True)
            drawn = {name: part.view_as(means[name]) for name, part in parts}
            made: Tensor = outputs_of(functional_call(self.network, drawn, inputs, named))
            return made

        if self.training:
            return at(self.point(torch.cat([widths, flat])))
        shifts = [widths * noise.to(widths) for noise in self._fixed]
        made = torch.stack([at(p) for shift in shifts for p in (flat + shift, flat - shift)])
        if not self.probabilities or made.dim() != 3:
            return made.mean(0)
        return made.log_softmax(-1).logsumexp(0) - torch.log(torch.tensor(float(len(made))))


def believed(module: Any, training: Training | None, *, classifies: bool = True) -> Any:
    """Give the network that a training moves: a belief about it, where the plan asks for one.

    Args:
        module: The network, or a belief about one.
        training: The plan; None where nothing is trained.
        classifies: Whether the tasks are classifications.

    Returns:
        The module itself where nothing is to be done; a new `Belief` where the plan asks for one.

    Raises:
        ValueError: If the module is a belief, and the plan would train it as a point.
    """
    if training is None or not isinstance(module, nn.Module):
        return module
    inner, options = unwrapped(module), training.belief
    if isinstance(inner, Belief):
        if options is None:
            raise ValueError(
                "model is a capacity.Belief, and the training has no belief, so that nothing would "
                "hold its widths open; pass capacity.Training(belief='transport', "
                "temperature=1e-4, ...), or the network inside"
            )
        return module
    if options is None:
        return module
    return Belief(
        inner,
        width=options.width,
        draws=options.draws,
        predictions=options.predictions,
        probabilities=classifies,
    )
