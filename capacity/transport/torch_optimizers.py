"""`torch.optim` optimisers read as update maps: their options, and their moments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from capacity.checks import positive_float
from capacity.dynamics.own_steps import AnyStep, BatchStep
from capacity.dynamics.updates import SGD, Adam, Clipped, Momentum, RMSprop, UpdateMap, unclipped

_REFUSED: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.SGD: ("dampening", "maximize"),
    torch.optim.Adam: ("amsgrad", "maximize"),
    torch.optim.AdamW: ("amsgrad", "maximize"),
    torch.optim.RMSprop: ("momentum", "centered", "maximize"),
}

_MOMENTS: dict[type, tuple[str, ...]] = {
    SGD: (),
    Momentum: ("momentum_buffer",),
    Adam: ("exp_avg", "exp_avg_sq"),
    RMSprop: ("square_avg",),
}


def first_update(
    optimizer: torch.optim.Optimizer, model: nn.Module, clip_norm: float | None
) -> AnyStep:
    """Translate an optimiser at the door.

    Args:
        optimizer: The optimiser, before its first step.
        model: The module that it trains.
        clip_norm: Norm that the loop clips the gradient to, or None.

    Returns:
        Its update map.

    Raises:
        ValueError: If it has no update map here, has taken steps, or trains other parameters.
    """
    update = update_of(optimizer)
    if optimizer.state:
        raise ValueError("optimizer has taken steps already; start the tracker with a new one")
    trained = {id(p) for p in optimizer.param_groups[0]["params"]}
    if trained != {id(p) for p in model.parameters() if p.requires_grad}:
        raise ValueError("optimizer does not hold exactly the model's trainable parameters")
    return clipped(update, clip_norm)


def clipped(update: AnyStep, clip_norm: float | None) -> AnyStep:
    """Feed an update map with clipped gradients.

    Args:
        update: The update map.
        clip_norm: Largest norm of the gradient, or None.

    Returns:
        The map behind clipping; the map itself for None.

    Raises:
        ValueError: If the norm is not above 0, or the step is fed with no gradient.
    """
    if clip_norm is None:
        return update
    if isinstance(update, BatchStep):
        raise ValueError(
            f"clip_norm = {clip_norm!r} does not go with the batch step {update.name!r}, which "
            "works out its gradients itself; clip them in its function"
        )
    return Clipped(update, positive_float("clip_norm", clip_norm))


def update_now(optimizer: torch.optim.Optimizer, started: AnyStep) -> AnyStep:
    """Read the options anew: schedules like OneCycleLR move the momentum with the rate.

    Args:
        optimizer: The optimiser.
        started: Its update map at the first step.

    Returns:
        Its update map now; the very same object where nothing moved.

    Raises:
        ValueError: If it has become another kind of step.
    """
    update, before = update_of(optimizer), unclipped(started)
    if update == before:
        return started
    assert isinstance(before, SGD | Momentum | Adam | RMSprop)
    if type(update) is not type(before) or update.plain != before.plain:
        raise ValueError(
            f"optimizer started as {before.name} and is now {update.name} with other options "
            f"({update}); momentum and weight decay can move while it is tracked, not come or go"
        )
    return Clipped(update, started.max_norm) if isinstance(started, Clipped) else update


def moments(
    optimizer: torch.optim.Optimizer, update: AnyStep, module: nn.Module
) -> tuple[Tensor, ...]:
    """Read the optimiser's moments, which are empty before its first step.

    Args:
        optimizer: The optimiser.
        update: Its update map.
        module: The module that it trains.

    Returns:
        One vector (P,) per moment, detached.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    made = []
    for key in _MOMENTS[type(unclipped(update))]:
        parts = []
        for parameter in parameters:
            held = optimizer.state.get(parameter, {}).get(key)
            parts.append(torch.zeros_like(parameter) if held is None else held)
        made.append(torch.cat([p.detach().reshape(-1) for p in parts]))
    return tuple(made)


def update_of(optimizer: torch.optim.Optimizer) -> UpdateMap:
    """Translate an optimiser's options, refusing by name what has no update map here.

    Args:
        optimizer: The optimiser.

    Returns:
        The update map.

    Raises:
        ValueError: If its kind, its parameter groups or an option are not tracked.
    """
    kind = type(optimizer)
    if kind not in _REFUSED:
        raise ValueError(
            f"optimizer is a {kind.__name__}; accepted: "
            f"{', '.join(f'torch.optim.{known.__name__}' for known in _REFUSED)}; or say what it "
            "does with update=capacity.GradientStep(...)"
        )
    groups = optimizer.param_groups
    if len(groups) != 1:
        raise ValueError(f"optimizer has {len(groups)} parameter groups; one is accepted")
    group: dict[str, Any] = groups[0]
    for option in _REFUSED[kind]:
        if group.get(option):
            raise ValueError(f"optimizer has {option} = {group[option]!r}, which is not tracked")
    decay = float(group["weight_decay"])
    if kind is torch.optim.RMSprop:
        return RMSprop(group["alpha"], group["eps"], decay)
    if kind is not torch.optim.SGD:
        # torch's own AdamW is an Adam with this option; Adam takes it, too.
        decoupled = kind is torch.optim.AdamW or bool(group.get("decoupled_weight_decay"))
        name = "adamw" if decoupled else "adam"
        beta1, beta2 = group["betas"]
        return Adam(beta1, beta2, group["eps"], decay, decoupled=decoupled, name=name)
    if group["momentum"]:
        return Momentum(group["momentum"], bool(group["nesterov"]), decay)
    return SGD(decay)
