"""`torch.optim` optimisers read as update maps: their options, and their moments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from capacity.base.checks import nearest, positive_float
from capacity.optimizers import REGISTRY
from capacity.optimizers.clipped import Clipped
from capacity.optimizers.from_recipe import optimizer_named
from capacity.optimizers.grouped import Grouped, Layout
from capacity.optimizers.optimizer import Optimizer, stated
from capacity.optimizers.update_map import UpdateMap


def first_update(
    optimizer: torch.optim.Optimizer, model: nn.Module, clip_norm: float | None
) -> UpdateMap:
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
    update_of(optimizer)  # an optimiser of another kind is refused as such
    if optimizer.state:
        raise ValueError("optimizer has taken steps already; start the tracker with a new one")
    layout = _layout(check_trained(optimizer, model), model)
    return clipped(update_of(optimizer, layout), clip_norm)


def check_trained(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[dict[str, Any]]:
    """Check that an optimiser trains a module's parameters, all of them and no others.

    Args:
        optimizer: The optimiser.
        model: The module.

    Returns:
        Its groups that train anything.

    Raises:
        ValueError: If it trains fewer or others.
    """
    groups = groups_of(optimizer)
    held = {id(p) for group in groups for p in group["params"] if p.requires_grad}
    trained = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    missing = [name for key, name in trained.items() if key not in held]
    if missing:
        raise ValueError(
            "optimizer does not hold exactly the model's trainable parameters: "
            f"{', '.join(map(repr, missing[:3]))} is not in it; give it all of them, or freeze "
            "the rest with requires_grad_(False)"
        )
    if len(held) > len(trained):
        raise ValueError(
            "optimizer does not hold exactly the model's trainable parameters: it trains "
            f"{len(held) - len(trained)} that are not the model's; make them part of the model, or "
            "train them with another optimizer"
        )
    return groups


def rate_of(optimizer: torch.optim.Optimizer) -> float:
    """Read the learning rate: the largest of the groups that train anything.

    Args:
        optimizer: The optimiser.

    Returns:
        The rate; those of other groups are relative to it in the update map.
    """
    return max(float(group["lr"]) for group in groups_of(optimizer))


def groups_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """List the groups that train anything; torch passes frozen parameters over.

    Args:
        optimizer: The optimiser.

    Returns:
        Its `param_groups` with a parameter that is not frozen.
    """
    return [g for g in optimizer.param_groups if any(p.requires_grad for p in g["params"])]


def _layout(groups: list[dict[str, Any]], model: nn.Module) -> Layout:
    """Find each group's components of theta."""
    at, first = {}, 0
    for p in model.parameters():
        if p.requires_grad:
            at[id(p)] = torch.arange(first, first + p.numel(), device=p.device)
            first += p.numel()
    return Layout(
        tuple(torch.cat([at[id(p)] for p in g["params"] if p.requires_grad]) for g in groups)
    )


def clipped(update: UpdateMap, clip_norm: float | None) -> UpdateMap:
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
    if not stated(update).from_gradient:
        raise ValueError(
            f"clip_norm = {clip_norm!r} does not go with the batch step {update.name!r}, which "
            "works out its gradients itself; clip them in its function"
        )
    return Clipped(update, positive_float("clip_norm", clip_norm))


def update_now(optimizer: torch.optim.Optimizer, started: UpdateMap) -> UpdateMap:
    """Read the options anew: schedules like OneCycleLR move the momentum with the rate.

    Args:
        optimizer: The optimiser.
        started: Its update map at the first step.

    Returns:
        Its update map now; the very same object where nothing moved.

    Raises:
        ValueError: If it has become another kind of step.
    """
    before = stated(started).unclipped
    update = update_of(optimizer, before.layout if isinstance(before, Grouped) else None)
    if update == before:
        return started
    if _first(update) is not _first(before) or update.plain != before.plain:
        raise ValueError(
            f"optimizer started as {before.name} and is now {update.name} with other options "
            f"({update}); momentum and weight decay can move while it is tracked, not come or go"
        )
    return Clipped(update, started.max_norm) if isinstance(started, Clipped) else update


def moments(
    optimizer: torch.optim.Optimizer, update: UpdateMap, module: nn.Module
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
    for key in _first(stated(update).unclipped).torch_moments:
        parts = []
        for parameter in parameters:
            held = optimizer.state.get(parameter, {}).get(key)
            parts.append(torch.zeros_like(parameter) if held is None else held)
        made.append(torch.cat([p.detach().reshape(-1) for p in parts]))
    return tuple(made)


def _first(update: Optimizer) -> type[Optimizer]:
    """The class that all groups are of."""
    return type(update.maps[0] if isinstance(update, Grouped) else update)


def _known() -> Iterator[Optimizer | type[Optimizer]]:
    return map(optimizer_named, REGISTRY.names())


def update_of(optimizer: torch.optim.Optimizer, layout: Layout | None = None) -> Optimizer:
    """Translate an optimiser's options, refusing by name what has no update map here.

    Args:
        optimizer: The optimiser.
        layout: Components of theta that its groups train; not needed for a single group.

    Returns:
        The update map; that of the first group alone where there are several and no layout.
    """
    maps = maps_of(optimizer)
    if layout is None or len(layout.indices) == 1:
        return maps[0]
    top, rates = rate_of(optimizer), [float(group["lr"]) for group in groups_of(optimizer)]
    return Grouped(maps, tuple(rate / top if top else 1.0 for rate in rates), layout)


def maps_of(optimizer: torch.optim.Optimizer) -> tuple[Optimizer, ...]:
    """Translate the options of every group that trains anything.

    Args:
        optimizer: The optimiser.

    Returns:
        An update map per group, all of one class.

    Raises:
        ValueError: If its kind or an option is not tracked, or its parameters are all frozen.
    """
    kind = type(optimizer)
    ours = next((each for each in _known() if kind in each.torch_twins), None)
    if ours is None:
        twins = [twin.__name__ for each in _known() for twin in each.torch_twins]
        raise ValueError(
            f"optimizer is a {kind.__name__}; accepted: "
            f"{', '.join(f'torch.optim.{name}' for name in twins)}{nearest(kind.__name__, twins)}; "
            "or say what it does with update=capacity.GradientStep(...)"
        )
    groups = groups_of(optimizer)
    if not groups:
        raise ValueError("optimizer has no parameter with requires_grad=True; unfreeze some")
    for group in groups:
        for option in ours.torch_twins[kind]:
            if group.get(option):
                raise ValueError(
                    f"optimizer has {option} = {group[option]!r}, which is not tracked"
                )
    heavy = any(group.get("momentum") for group in groups)
    return tuple(ours.from_torch(kind, group, heavy=heavy) for group in groups)
