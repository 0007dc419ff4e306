"""A plan read off a loop's optimizer and scheduler, which stay as they are."""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from capacity.base.checks import one_of, positive_int
from capacity.optimizers import REGISTRY
from capacity.optimizers.from_recipe import optimizer_named
from capacity.optimizers.optimizer import Optimizer
from capacity.optimizers.torch_optimizers import check_trained, groups_of, maps_of
from capacity.recipe.config import Training
from capacity.recipe.schedules import named

_EXACT = 1e-9
"""Difference of a group's rates from being proportional, relative to them."""
_BY_HAND = "give its rates by hand: Training(schedule='custom', rates=[...])"


def plan_of_torch(
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None,
    *,
    batch_size: int,
    epochs: int | None,
    steps: int | None,
    per: str,
    accumulate: int,
    clip_norm: float | None,
    model: nn.Module | None,
) -> Training:
    """Read a plan; see `Training.from_torch`.

    Args:
        optimizer: The loop's optimizer.
        scheduler: Its scheduler, or None.
        batch_size: Samples per batch.
        epochs: Passes over the data, or None.
        steps: Optimizer steps, or None.
        per: When the scheduler steps.
        accumulate: Batches per optimizer step.
        clip_norm: Norm that the loop clips the gradient to.
        model: The network, or None.

    Returns:
        The plan.

    Raises:
        ValueError: If something of it has no counterpart here.
    """
    one_of("per", per, ("step", "epoch"))
    if (epochs is None) == (steps is None):
        raise ValueError(
            f"epochs = {epochs!r} and steps = {steps!r}: give one of the two, as steps=1000"
        )
    counted = {"epochs": epochs} if steps is None else {"max_steps": steps}
    units = epochs if per == "epoch" else steps
    if scheduler is None:
        units = 1
    elif units is None:
        raise ValueError(
            f"scheduler is stepped per {per}, so its rates are as many as the {per}s: give "
            f"{per}s=..., or say per={'epoch' if per == 'step' else 'step'!r}"
        )
    maps, groups = maps_of(optimizer), groups_of(optimizer)
    table = _rates(optimizer, scheduler, positive_int(f"{per}s", units))
    tops = [max(column) for column in zip(*table, strict=True)]
    base = max(range(len(groups)), key=lambda k: (tops[k], _elements(groups[k])))
    if not tops[base] > 0:
        raise ValueError(
            "optimizer has rate 0 from here to the end of the plan; pass its scheduler, too, or "
            "set lr"
        )
    _check_alike(maps, table, tops, base)
    relative = [row[base] / tops[base] for row in table]
    fields: dict[str, Any] = {
        "optimizer": next(n for n in REGISTRY.names() if optimizer_named(n) is type(maps[base])),
        "lr": tops[base],
        "weight_decay": _decay(maps[base]),
        "groups": _groups(optimizer, model, [top / tops[base] for top in tops], base),
        **maps[base].as_training(),
        **counted,
        **_schedule(relative, per),
    }
    return Training(batch_size=batch_size, accumulate=accumulate, clip_norm=clip_norm, **fields)


def _rates(
    optimizer: torch.optim.Optimizer, scheduler: LRScheduler | None, units: int
) -> list[list[float]]:
    """List the groups' rates in every step or epoch, from a copy that has no parameters."""
    active = [any(p.requires_grad for p in g["params"]) for g in optimizer.param_groups]
    stand_in = stand_in_of(optimizer)
    runner = None if scheduler is None else _copied(scheduler, optimizer, stand_in)
    before = [_options(group) for group in stand_in.param_groups]
    table = []
    for _ in range(units):
        for group, options in zip(stand_in.param_groups, before, strict=True):
            moved = [k for k, v in _options(group).items() if options.get(k, v) != v]
            if moved:
                raise ValueError(
                    f"scheduler is a {type(scheduler).__name__} that moves {moved[0]} with the "
                    "rate, and a plan keeps it; let it move the rate alone, as with "
                    "cycle_momentum=False"
                )
        pairs = zip(stand_in.param_groups, active, strict=True)
        table.append([float(group["lr"]) for group, trains in pairs if trains])
        if runner is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # no optimizer steps before it
                runner.step()
    return table


def stand_in_of(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Make an optimizer that a scheduler can move in the place of another, and that never steps.

    Args:
        optimizer: The other; it is not changed.

    Returns:
        One with its options and parameters, without moments.
    """
    made = copy.copy(optimizer)
    made.state = defaultdict(dict)
    made.param_groups = [
        {k: v.item() if isinstance(v, Tensor) else v for k, v in group.items()}
        for group in optimizer.param_groups
    ]
    return made


def _copied(scheduler: object, optimizer: object, stand_in: object) -> LRScheduler:
    """Copy a scheduler, with those inside of it, onto another optimizer."""
    kind = type(scheduler).__name__
    if not isinstance(scheduler, LRScheduler):
        raise ValueError(
            f"scheduler is a {kind}, which is no torch.optim.lr_scheduler.LRScheduler; {_BY_HAND}"
        )
    if isinstance(scheduler, ReduceLROnPlateau):
        raise ValueError(
            "scheduler is a ReduceLROnPlateau, whose rates follow what is measured on the way; "
            f"take one that is known beforehand, or {_BY_HAND}"
        )
    if getattr(scheduler, "optimizer", None) is not optimizer:
        raise ValueError(
            f"scheduler is a {kind} of another optimizer; make it with the one that is given"
        )
    try:
        made: LRScheduler = copy.deepcopy(scheduler, {id(optimizer): stand_in})
    except (TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"scheduler is a {kind} that cannot be copied ({error}); {_BY_HAND}"
        ) from None
    return made


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in {"params", "lr"}}


def _elements(group: dict[str, Any]) -> int:
    return sum(p.numel() for p in group["params"] if p.requires_grad)


def _decay(update: Optimizer) -> float:
    return float(getattr(update, "weight_decay", 0.0))


def _check_alike(
    maps: Sequence[Optimizer], table: list[list[float]], tops: list[float], base: int
) -> None:
    """Refuse groups that differ in more than the factor of their rates and their decay."""

    def bare(update: Optimizer) -> dict[str, Any]:
        return update.as_training()

    for k, update in enumerate(maps):
        if bare(update) != bare(maps[base]):
            raise ValueError(
                f"optimizer has parameter groups with {bare(maps[base])} and with {bare(update)}; "
                "a plan's groups differ in lr and weight_decay only"
            )
        off = [abs(row[k] * tops[base] - row[base] * tops[k]) for row in table]
        if max(off) > _EXACT * tops[base] * tops[k]:
            raise ValueError(
                f"scheduler moves the rates of parameter groups {base} and {k} otherwise than in "
                "proportion; a plan has one schedule, and a factor per group"
            )
        if tops[k] == 0:
            raise ValueError(
                f"optimizer has parameter group {k} with rate 0; freeze its parameters with "
                "requires_grad_(False)"
            )


def _schedule(relative: list[float], per: str) -> dict[str, Any]:
    """Name the schedule, or give its rates."""
    known = named(relative)
    if known == ("constant", 0):
        return {}
    if known is not None:
        return {"schedule": known[0], "warmup": known[1], "schedule_per": per}
    return {"schedule": "custom", "rates": tuple(relative), "schedule_per": per}


def _groups(
    optimizer: torch.optim.Optimizer, model: nn.Module | None, scales: list[float], base: int
) -> list[dict[str, Any]]:
    """Give the groups that differ from the base one, with the names of their parameters."""
    groups = groups_of(optimizer) if model is None else check_trained(optimizer, model)
    decays = [_decay(update) for update in maps_of(optimizer)]
    made = []
    for group, decay, scale in zip(groups, decays, scales, strict=True):
        if (decay, scale) != (decays[base], 1.0):
            made.append({
                "parameters": _names(group, model),
                "lr_factor": scale,
                "weight_decay": decay,
            })
    return made


def _names(group: dict[str, Any], model: nn.Module | None) -> list[str]:
    if model is not None:
        called = {id(p): name for name, p in model.named_parameters()}
        return [called[id(p)] for p in group["params"] if p.requires_grad]
    if "param_names" in group:
        pairs = zip(group["params"], group["param_names"], strict=True)
        return [name for p, name in pairs if p.requires_grad]
    raise ValueError(
        "optimizer has parameter groups with rates or weight decays of their own, and a plan names "
        "their parameters: pass model=..., or make the optimizer with named_parameters()"
    )
