"""Feature rows w' d f / d theta of a network and their Gram matrices, the kernel blocks K_XY.

Phi_X has one row of length P per sample and kept combination of outputs; K_XY = Phi_X Phi_Y'. The
rows of a network of `nn.Linear` layers factor: the row of a layer is the outer product of what goes
in (the activation) and what comes back (the backpropagated signal), so a Gram matrix is a sum over
layers of products of two small Gram matrices, and no row is ever written out. Other networks write
rows out, a chunk of samples at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from capacity.base.checks import one_of
from capacity.base.differential import pullback, slope_of, vmap
from capacity.krylov.lanczos import random_signs
from capacity.networks.flat_model import FlatModel
from capacity.products.row_sets import BUDGET, Features, Layer, LayerFeatures, RowFeatures
from capacity.tasks.task import Task

_AGREES = 1e-3
"""Relative difference between a row from factors and from autograd that rounding may make."""


def features(
    model: FlatModel,
    theta: Tensor,
    task: Task,
    x: Tensor,
    directions: Tensor,
    *,
    method: str = "auto",
) -> Features:
    """Build the rows w' d f / d theta of some samples.

    Args:
        model: The network.
        theta: Where (P,).
        task: Says which outputs f are.
        x: Inputs (n, ...).
        directions: Combinations w of the task's outputs (n, q, C), as `sketches` makes them; the
            root of the loss metric and weights of samples go in here, too.
        method: `layers` factors rows, for networks whose trained parameters all belong to linear
            layers, each called once; `rows` writes them out; `auto` takes the first that works.

    Returns:
        The rows, sample by sample.

    Raises:
        ValueError: If the method is unknown, or is `layers` where that does not work.
    """
    one_of("method", method, ["auto", "layers", "rows"])
    theta = theta.detach()
    written = _row_features(model, theta, task, x, directions)
    if method == "rows":
        return written
    factored = _layer_features(model, theta, task, x, directions)
    # One sample both ways: weights used twice or in ways that a hook cannot see would show here.
    if factored is not None and len(x):
        ones = torch.zeros(1, factored.count).to(theta)
        ones[0, : directions.shape[1]] = 1.0
        summed = directions[:1].sum(1, keepdim=True)
        truth = _row_features(model, theta, task, x[:1], summed).rows(slice(0, 1))
        off = float((factored.adjoint(ones) - truth).norm())
        if off <= _AGREES * float(truth.norm()):
            return factored
    if method == "layers":
        raise ValueError(
            "method = 'layers' needs every trained parameter to belong to a torch.nn.Linear that "
            "is called once, on inputs (n, features); use method='rows' or 'auto'"
        )
    return written


def projected(rows: Features, like: Tensor, kept: int, generator: torch.Generator) -> RowFeatures:
    """Project the parameters on random signs: rows of length k whose Gram matrix is nearly K.

    Two sets that are to be multiplied need the same signs: generators with the same seed.

    Args:
        rows: Phi (m, P).
        like: A vector (P,) whose dtype and device the signs take.
        kept: k; the relative error of an entry is about sqrt(1/k) times the rows' norms.
        generator: Source of the signs.

    Returns:
        Phi R / sqrt(k), R (P, k) of random signs.
    """
    # Signs are drawn a few at a time: k x P of them may not fit.
    step = max(1, BUDGET // (like.numel() * like.element_size()))
    parts = [
        rows.apply(random_signs(min(step, kept - start), like, generator))
        for start in range(0, kept, step)
    ]
    values = torch.cat(parts).T / kept**0.5
    return RowFeatures(lambda first, last: values[first:last], len(values), kept, len(values))


def hashed(
    model: FlatModel,
    theta: Tensor,
    task: Task,
    x: Tensor,
    directions: Tensor,
    *,
    scale: Tensor | None,
    kept: int,
    seed: int,
) -> RowFeatures:
    """Write rows out once, each hashed to k numbers whose Gram matrix is nearly that of the rows.

    Parameters with random signs fall into k buckets and are added up there: a pass over the row
    where `projected` takes k (Charikar et al. 2002). No more than `BUDGET` of rows is there at a
    time. Two sets that are to be multiplied need the same seed.

    Args:
        model: The network.
        theta: Where (P,).
        task: Says which outputs f are.
        x: Inputs (n, ...).
        directions: Combinations w of the task's outputs (n, q, C).
        scale: What each parameter's derivative is multiplied with (P,); None takes 1.
        kept: k; a row of no more parameters is kept as it is. The error of an entry is about
            sqrt(1/k) times the rows' norms, without bias.
        seed: Seed of signs and buckets.

    Returns:
        Rows (m, min(k, P)).
    """
    theta = theta.detach()
    rows = _row_features(model, theta, task, x, directions)
    size = theta.numel()
    factor = torch.ones_like(theta) if scale is None else scale.to(theta)
    bucket = None
    if kept < size:
        generator = torch.Generator().manual_seed(seed)
        factor = factor * random_signs(1, torch.empty(size), generator)[0].to(theta)
        bucket = torch.randint(kept, (size,), generator=generator).to(theta.device)
    parts = []
    for part in rows.chunks():
        values = rows.rows(part) * factor
        if bucket is not None:
            values = values.new_zeros(len(values), kept).index_add_(1, bucket, values)
        parts.append(values)
    made = torch.cat(parts)
    return RowFeatures(lambda first, last: made[first:last], len(made), made.shape[1], len(made))


def _row_features(
    model: FlatModel, theta: Tensor, task: Task, x: Tensor, directions: Tensor
) -> RowFeatures:
    kept = directions.shape[1]

    def one(sample: Tensor, w: Tensor) -> Tensor:
        _, pull = pullback(lambda t: task.select(model.outputs(t, sample[None]))[0], theta)
        return pull(w)[0]

    def alone(sample: Tensor, w: Tensor) -> Tensor:
        return slope_of(lambda t: task.select(model.outputs(t, sample[None]))[0] @ w)(theta)[0]

    @torch.no_grad()
    def make(first: int, last: int) -> Tensor:
        index = torch.arange(first, last, device=x.device)
        w = directions.reshape(-1, directions.shape[-1])[index].to(theta)
        if model.transforms:
            return vmap(one)(x[index // kept], w)
        pairs = zip(x[index // kept], w, strict=True)
        return torch.stack([alone(sample, combination) for sample, combination in pairs])

    chunk = max(1, BUDGET // (theta.numel() * theta.element_size()))
    return RowFeatures(make, len(x) * kept, theta.numel(), chunk)


def _layer_features(
    model: FlatModel, theta: Tensor, task: Task, x: Tensor, directions: Tensor
) -> LayerFeatures | None:
    """Collect every linear layer's inputs and backpropagated signals; None where rows must do."""
    ends = torch.tensor((0, *model.sizes)).cumsum(0).tolist()
    place = {name: slice(a, b) for name, a, b in zip(model.names, ends[:-1], ends[1:], strict=True)}
    linear: dict[str, tuple[slice | None, slice | None]] = {}
    owned: set[str] = set()
    for name, part in model.layers().items():
        if isinstance(part, nn.Linear):
            names = [f"{name}.{kind}" if name else kind for kind in ("weight", "bias")]
            own = [n for n in names if n in place]
            if own:
                linear[name] = (place.get(names[0]), place.get(names[1]))
                owned.update(own)
    if owned != set(model.names):
        return None

    seen: list[tuple[str, Tensor, Tensor]] = []

    def watch(name: str) -> Callable[..., Tensor]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            # Adding zero gives the layer's output a gradient of its own, sample by sample.
            nothing = torch.zeros_like(out, requires_grad=True)
            seen.append((name, inputs[0].detach().clone(), nothing))  # a later layer may write
            return out + nothing

        return hook

    layers = model.layers()
    model.writes_into(x)
    handles = [layers[name].register_forward_hook(watch(name)) for name in linear]
    try:
        with torch.enable_grad():
            f = task.select(model.outputs(theta, x))
    finally:
        for handle in handles:
            handle.remove()
    flat = all(a.dim() == 2 and len(a) == len(x) for _, a, _ in seen)
    if sorted(name for name, _, _ in seen) != sorted(linear) or not flat:
        return None
    w = directions.to(f)
    kept = w.shape[1]
    nothings = [nothing for _, _, nothing in seen]
    with torch.enable_grad():
        sums = [(f * w[:, k]).sum() for k in range(kept)]
    signals = [torch.autograd.grad(s, nothings, retain_graph=s is not sums[-1]) for s in sums]
    made = [
        Layer(a, torch.stack([s[i] for s in signals], dim=1), *linear[name])
        for i, (name, a, _) in enumerate(seen)
    ]
    # Two sets of one network list their layers in the order of the calls, which is the same.
    return LayerFeatures(made, model.size)
