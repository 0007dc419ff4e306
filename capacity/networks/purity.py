"""Whether a network is a function of theta and of each sample alone, seen by running it.

Layers are not judged by their type: whatever draws random numbers, writes to its buffers or looks
at the other samples of a batch does so on a handful of samples, too, and so does what cannot be
differentiated.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from capacity.base.differential import pullback, slope_of
from capacity.base.randomness import kept_random_state
from capacity.networks.flat_model import FlatModel

_STEP = "so a step is no function of theta alone"
_FORECAST = (
    "; forecasts, and runs with Measure(level='forecast'), need no second derivative and work"
)
_DIFFERENTIATED = 2
"""Samples on which derivatives are tried."""


@torch.no_grad()
def run_network(flat: FlatModel, theta: Tensor, x: Tensor, where: str) -> Tensor:
    """Run a network twice, and refuse one whose output is no function of theta and input.

    Args:
        flat: The network.
        theta: Its parameters (P,).
        x: Some inputs (n, ...).
        where: Whose inputs they are, for the message.

    Returns:
        Its outputs (n, ...).

    Raises:
        ValueError: If it does not take the inputs, returns no tensor of one row per sample, draws
            random numbers, or changes its buffers; the layer is named.
    """
    with kept_random_state():
        before = _random_states()
        try:
            outputs, changed = flat.changes(theta, x)
        except Exception as error:
            if beside := flat.needs_beside_inputs():
                raise ValueError(_of_arguments(beside, where)) from error
            raise ValueError(
                f"model does not take inputs of shape {tuple(x.shape[1:])} and dtype {x.dtype} "
                f"({where}): {_line(error)}"
            ) from error
        if not isinstance(outputs, Tensor):
            raise ValueError(
                f"model returns a {type(outputs).__name__} in which the outputs cannot be told; "
                "return a tensor (n, n_outputs), or one under the name 'logits'"
            )
        drew = not _alike(before, _random_states())
        again = flat.outputs(theta, x)
        if changed:
            raise ValueError(_of_buffers(flat, theta, x, changed[0]))
        if drew or not close(outputs, again):
            raise ValueError(_of_draws(flat, theta, x))
    return outputs


def shaken(theta: Tensor, seed: int) -> Tensor:
    """Move parameters by random numbers of their own size.

    Args:
        theta: Parameters (P,).
        seed: Seed of the numbers.

    Returns:
        Other parameters (P,).
    """
    source = torch.Generator().manual_seed(seed)
    noise = torch.randn(theta.shape, generator=source, dtype=torch.float32).to(theta)
    return theta + theta.square().mean().sqrt() * noise


@torch.no_grad()
def trains_otherwise(flat: FlatModel, theta: Tensor, x: Tensor) -> bool:
    """Tell whether a network in training mode is another than in evaluation mode.

    Args:
        flat: The network, its layers in their own modes.
        theta: Its parameters (P,).
        x: Some inputs (n, ...).

    Returns:
        Whether it draws random numbers, moves its buffers or gives other outputs while it trains;
        False where it cannot be run, which `run_network` says.
    """
    if not flat.modes:
        return False
    with kept_random_state():
        before = _random_states()
        try:
            outputs, changed = flat.changes(theta, x)
            drew = not _alike(before, _random_states())
            with flat.modes.switched(training=False):
                evaluated = flat.outputs(theta, x)
            if not changed and flat.has_buffers:  # they may have converged at theta
                changed = flat.changes(shaken(theta, 0), x)[1]
        except Exception:
            return False
    if not isinstance(outputs, Tensor) or not isinstance(evaluated, Tensor):
        return False
    return drew or bool(changed) or not close(outputs, evaluated)


@torch.no_grad()
def check_samples_apart(flat: FlatModel, theta: Tensor, x: Tensor, outputs: Tensor) -> None:
    """Refuse a network whose outputs for a sample depend on the other samples of its batch.

    Args:
        flat: The network.
        theta: Its parameters (P,).
        x: Some inputs (n, ...).
        outputs: Its outputs for them (n, ...).

    Raises:
        ValueError: If it is so; the layer is named where it can be.
    """
    if len(x) < 2:
        return
    half = len(x) // 2
    try:
        apart = torch.cat([flat.outputs(theta, part) for part in (x[:1], x[half:])])
        alone = apart.shape == outputs[[0, *range(half, len(x))]].shape
        why = ""
    except Exception as error:
        alone, why = False, f" ({_line(error)})"
    if alone and close(outputs[[0, *range(half, len(x))]], apart):
        return
    layer = _first_layer_apart(flat, theta, x)
    raise ValueError(
        f"{layer or 'model'} gives a sample another output in another batch{why}, {_STEP} and "
        "of each sample: use GroupNorm or LayerNorm in place of batch statistics, or fix them "
        "(track_running_stats=True and .eval())"
    )


def check_derivatives(
    flat: FlatModel, theta: Tensor, x: Tensor, *, twice: bool, transforms: bool = True
) -> None:
    """Try the derivatives that the products take, and choose kernels that have them.

    Args:
        flat: The network; `plain_kernels` is set where only those have a second derivative, and
            `transforms` where only plain autograd goes through.
        theta: Its parameters (P,).
        x: Some inputs (n, ...).
        twice: Whether second derivatives are needed.
        transforms: Whether the caller needs them by torch's function transforms.

    Raises:
        ValueError: If torch cannot differentiate the network; the message says what to do.
    """
    few = x[:_DIFFERENTIATED]

    def energy(point: Tensor) -> Tensor:
        return flat.outputs(point, few).square().mean()

    def once() -> None:
        torch.func.grad(energy)(theta)

    def both() -> None:
        slope, pull = pullback(torch.func.grad(energy), theta)
        pull(slope)

    error = _failure(once)
    if error is None:
        second = _failure(both)
        if second is None:
            return
        kept, flat.plain_kernels = flat.plain_kernels, True
        if _failure(both) is None:
            return
        flat.plain_kernels = kept
        if not twice:
            return
        error = second
    elif not (twice or transforms) and _failure(lambda: slope_of(energy)(theta)) is None:
        flat.transforms = False
        return
    beside = _FORECAST if _failure(lambda: slope_of(energy)(theta)) is None else ""
    raise ValueError(
        f"model cannot be differentiated: {_line(error)}; {_way_out(str(error))}{beside}"
    )


def _random_states() -> list[Tensor | object]:
    numpys: dict[str, Any] = np.random.get_state(legacy=False)  # noqa: NPY002
    drawn: list[Tensor | object] = [torch.get_rng_state(), random.getstate()]
    drawn.append((numpys["state"]["key"].tobytes(), numpys["state"]["pos"]))
    if torch.cuda.is_initialized():
        drawn += torch.cuda.get_rng_state_all()
    return drawn


def _alike(before: list[Tensor | object], after: list[Tensor | object]) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
        for a, b in zip(before, after, strict=True)
    )


def _of_arguments(beside: list[str], where: str) -> str:
    said = (
        f"model takes {', '.join(beside)} beside the inputs, which are all that it gets ({where}); "
    )
    if beside == ["task_labels"]:  # Avalanche's MultiTaskModule and MultiHeadClassifier
        return said + (
            "pass a module whose heads stand side by side, with forward(self, x): return "
            "torch.cat([self.model(x, label) for label in (0, 1)], 1), of which a task reads its "
            "own: an experience the outputs of its task label, all else those of Task(outputs=...)"
        )
    return said + "wrap it in a module whose forward(self, x) adds the rest"


def _of_draws(flat: FlatModel, theta: Tensor, x: Tensor) -> str:
    if flat.belief is not None:
        return (
            f"model is a Belief, which draws networks at each call, {_STEP}; forecast it within a "
            "budget, as budget = 0.2"
        )
    layer = _drawing_layer(flat, theta, x) or "model"
    fixed = _in_evaluation(flat, lambda: _draws(flat, theta, x))
    if fixed:
        way = "set its p to 0 or call .eval() on the layer"
    else:
        way = "take the draw out of its forward (functional.dropout with training=self.training)"
    return f"{layer} draws a new random mask at each call, {_STEP}; {way}"


def _of_buffers(flat: FlatModel, theta: Tensor, x: Tensor, name: str) -> str:
    owner = name.rpartition(".")[0]
    where = named(owner, flat.layers()[owner])
    fixed = _in_evaluation(flat, lambda: bool(flat.changes(theta, x)[1]))
    way = "call .eval() on the layer" if fixed else "take the change out of its forward"
    return f"{where} changes its buffer {name!r} at each call, {_STEP}; {way}"


def _in_evaluation(flat: FlatModel, still: Callable[[], bool]) -> bool:
    """Whether `.eval()` on every layer would mend it."""
    modes = {part: part.training for part in flat.layers().values()}
    try:
        for part in modes:
            part.training = False
        return not still()
    finally:
        for part, mode in modes.items():
            part.training = mode


def _draws(flat: FlatModel, theta: Tensor, x: Tensor) -> bool:
    before = _random_states()
    once, again = (flat.outputs(theta, x) for _ in range(2))
    return not _alike(before, _random_states()) or not close(once, again)


def _drawing_layer(flat: FlatModel, theta: Tensor, x: Tensor) -> str:
    """Name the innermost layer that moves the state of the random numbers."""
    entered: list[list[Tensor | object]] = []
    drew: list[str] = []

    def enter(*_: object) -> None:
        entered.append(_random_states())

    def leave(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            # Layers inside return first.
            if not _alike(entered.pop(), _random_states()):
                drew.append(name)

        return hook

    hooks = [
        hook
        for name, part in flat.layers().items()
        for hook in (
            part.register_forward_pre_hook(enter),
            part.register_forward_hook(leave(name)),
        )
    ]
    try:
        flat.outputs(theta, x)
    finally:
        for hook in hooks:
            hook.remove()
    return named(drew[0], flat.layers()[drew[0]]) if drew else ""


def _first_layer_apart(flat: FlatModel, theta: Tensor, x: Tensor) -> str:
    """Name the first layer without parts whose output for a sample depends on the others."""
    seen: list[list[tuple[str, Tensor]]] = [[], []]

    def keep(name: str, calls: list[tuple[str, Tensor]]) -> Callable[..., None]:
        def hook(_: nn.Module, __: object, out: object) -> None:
            if isinstance(out, Tensor) and out.dim() > 0:
                calls.append((name, out.detach()))

        return hook

    def enter(name: str, calls: list[str]) -> Callable[..., None]:
        return lambda *_: calls.append(name)

    last: list[str] = []
    for calls, part in zip(seen, (x, x[:1]), strict=True):
        last.clear()
        hooks = []
        for name, layer in flat.layers().items():
            if not any(layer.children()):
                hooks.append(layer.register_forward_hook(keep(name, calls)))
                hooks.append(layer.register_forward_pre_hook(enter(name, last)))
        try:
            flat.outputs(theta, part)
        except Exception:  # a layer that takes no single sample: the last that was entered
            return named(last[-1], flat.layers()[last[-1]]) if last else ""
        finally:
            for hook in hooks:
                hook.remove()
    for (name, whole), (_, one) in zip(*seen, strict=False):
        if len(whole) == len(x) and len(one) == 1 and not close(whole[:1], one):
            return named(name, flat.layers()[name])
    return ""


def named(name: str, layer: nn.Module) -> str:
    """Name a layer, for people.

    Args:
        name: Its name in the model.
        layer: The layer.

    Returns:
        Name and kind.
    """
    return f"model layer {name or '(root)'!r} ({type(layer).__name__})"


def close(one: Tensor, other: Tensor) -> bool:
    """Tell whether two results agree but for rounding, which batches of other sizes do otherwise.

    Args:
        one: A result.
        other: Another.

    Returns:
        Whether they do.
    """
    if one.shape != other.shape:
        return False
    both = torch.isfinite(one) & torch.isfinite(other)
    if not bool((both | (one == other) | ((one != one) & (other != other))).all()):
        return False
    one, other = one[both], other[both]
    eps = torch.finfo(one.dtype).eps if one.is_floating_point() else 0.0
    size = float(one.abs().max()) if one.numel() else 0.0
    return one.numel() == 0 or float((one - other).abs().max()) <= 3 * eps**0.5 * size


def _failure(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        return error
    return None


def _way_out(said: str) -> str:
    if "setup_context" in said:
        return (
            "give its torch.autograd.Function a setup_context (torch's notes on extending "
            "torch.func), or write the operation in torch's own"
        )
    if "saved tensor hooks" in said:
        return (
            "switch gradient checkpointing off for the analysis, as with "
            "model.gradient_checkpointing_disable()"
        )
    return "replace the operation by one that torch.func differentiates"


def _line(error: Exception | None) -> str:
    return " ".join(str(error).split())[:300]
