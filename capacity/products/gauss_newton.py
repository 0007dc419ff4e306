"""G V for many vectors on one batch, G the generalised Gauss-Newton matrix (GGN, Fisher).

G = Phi' H_out Phi with Phi = d outputs / d theta and H_out the Hessian of the loss in the outputs:
a forward product, a small product per sample, a backward product. The graph of that is traced once
and reused, as for the Hessian (`capacity.products.hessian_products`), and costs less: nothing
is differentiated twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.func import grad

from capacity.base.differential import pullback, vmap
from capacity.products.hessian_products import HessianProducts, Untraced

Outputs = Callable[[Tensor, Tensor], Tensor]
"""(theta (P,), x) -> outputs (n, C)."""

OutputLoss = Callable[[Tensor, Tensor], Tensor]
"""(outputs (n, C), y) -> mean loss, a scalar."""


class GaussNewtonProducts(HessianProducts):
    """Products with the GGN of a loss, for K vectors at once; used like `HessianProducts`.

    Args:
        outputs: The network.
        loss: The loss of its outputs.
    """

    def __init__(self, outputs: Outputs, loss: OutputLoss) -> None:
        super().__init__(lambda theta, x, y: loss(outputs(theta, x), y))
        self._parts = outputs, loss

    def _untraced(self, slow: str = "") -> Untraced:
        return _GaussNewton(self.loss, slow, *self._parts)


class _GaussNewton(Untraced):
    """Through the function transforms, as they are."""

    def __init__(self, loss: Any, slow: str, outputs: Outputs, output_loss: OutputLoss) -> None:
        super().__init__(loss, slow)
        self._outputs, self._output_loss = outputs, output_loss

    def prepare(self, theta: Tensor, x: Tensor, y: Tensor, *, gradient: bool) -> tuple[Any, Any]:
        def network(point: Tensor) -> Tensor:
            return self._outputs(point, x)

        values, pull = pullback(network, theta)
        slope, curve = pullback(lambda f: grad(self._output_loss)(f, y), values)
        # Transposing the transpose: reverse mode all the way, which traces to fewer operations than
        # forward mode does.
        _, push = pullback(lambda u: pullback(network, theta)[1](u)[0], slope)

        def product(row: Tensor) -> Tensor:
            return pull(curve(push(row)[0])[0])[0]

        return (pull(slope)[0] if gradient else None), product

    def multiply(
        self, tangents: Tensor, ready: Any, inputs: tuple[Tensor, ...]
    ) -> Sequence[Tensor]:
        del inputs
        return [vmap(ready)(tangents)]
