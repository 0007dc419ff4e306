"""The optimiser that a recipe asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from capacity.base.checks import nearest
from capacity.optimizers import REGISTRY
from capacity.optimizers.beliefs import GEOMETRIES
from capacity.optimizers.clipped import Clipped
from capacity.optimizers.grouped import Grouped, Layout
from capacity.optimizers.implicit import IMPLICIT
from capacity.optimizers.optimizer import Optimizer
from capacity.optimizers.own_steps import GradientStep
from capacity.recipe.config import Training

NamedSizes = Sequence[tuple[str, int]]
"""Names and sizes of a network's trainable parameters, in theta's order."""


def optimizer_named(name: str) -> Optimizer | type[Optimizer]:
    """Look an optimiser up.

    Args:
        name: Its name in recipes.

    Returns:
        The class; a step of a user's own as it was registered.

    Raises:
        ValueError: If nobody knows it, or it is no `Optimizer`.
    """
    kind = REGISTRY.load(name)
    if isinstance(kind, Optimizer) or (isinstance(kind, type) and issubclass(kind, Optimizer)):
        return kind
    raise ValueError(
        f"training.optimizer = {name!r} is registered as {kind!r}; register a class on "
        "capacity.optimizers.optimizer.Optimizer, or a capacity.GradientStep"
    )


def from_training(
    training: Training,
    *,
    seed: int = 0,
    path: tuple[str | int, ...] = (),
    layout: NamedSizes | None = None,
) -> Optimizer:
    """Build the optimiser that a recipe asks for.

    Args:
        training: The recipe's training section.
        seed: Root seed of the noise, where the optimiser has any.
        path: Name of the noise's stream below the seed.
        layout: The network's parameters, which groups name; None where only facts are asked for.

    Returns:
        The update map. A name that nobody knows, a class whose step mixes replicas, and groups
        that do not fit the optimiser or the network are a ValueError.
    """
    if training.belief is not None:
        kinds = GEOMETRIES if training.belief.implicit is None else IMPLICIT
        chosen: Optimizer = kinds[training.belief.geometry].from_plan(training)
        return chosen if training.clip_norm is None else Clipped(chosen, training.clip_norm)
    chosen = optimizer_named(training.optimizer).from_training(training, seed=seed, path=path)
    if training.optimizer not in REGISTRY.built_in:
        _check_replicas(training.optimizer, chosen)
    if training.groups:
        chosen = _grouped(chosen, training, layout)
    return chosen if training.clip_norm is None else Clipped(chosen, training.clip_norm)


def check_plan(training: Training, layout: NamedSizes, samples: Sequence[int]) -> None:
    """Refuse a plan that does not fit the network or the tasks, before anything is trained.

    Args:
        training: The plan.
        layout: The network's parameters.
        samples: Training samples of every task.
    """
    from_training(training, layout=layout)
    for count in samples:
        training.learning_rates(count)
        if training.curriculum is not None:
            training.curriculum.check_epochs(training.passes(count))


def _grouped(update: Optimizer, training: Training, layout: NamedSizes | None) -> Grouped:
    """Give every group of a plan a map of its own; first what no group names."""
    if not update.elementwise:
        raise ValueError(
            f"training.groups do not go with optimizer = {training.optimizer!r}, whose step may "
            "couple the parameters; take sgd, momentum, adam, adamw or rmsprop"
        )
    decays = [g.weight_decay for g in training.groups]
    maps = [update]
    for decay in decays:
        if decay is not None and not hasattr(update, "weight_decay"):
            raise ValueError(
                f"training.groups has weight_decay = {decay:g}, and optimizer = "
                f"{training.optimizer!r} has none"
            )
        maps.append(update if decay is None else replace(update, weight_decay=decay))  # type: ignore[type-var]
    scales = [1.0, *(group.lr_factor for group in training.groups)]
    if layout is None:
        return Grouped(tuple(maps), tuple(scales), None)
    parts = _parts(training, layout)
    kept = [k for k, part in enumerate(parts) if len(part)]
    return Grouped(
        tuple(maps[k] for k in kept),
        tuple(scales[k] for k in kept),
        Layout(tuple(parts[k] for k in kept)),
    )


def _parts(training: Training, layout: NamedSizes) -> list[Tensor]:
    """Find theta's components of every group; first those of none."""
    names = [name for name, _ in layout]
    known = set(names)
    for group in training.groups:
        for pattern in group.parameters:
            if pattern not in known and not any(fnmatchcase(name, pattern) for name in names):
                raise ValueError(
                    f"training.groups: no trainable parameter is called {pattern!r}"
                    f"{nearest(pattern, names)}; accepted: {', '.join(names[:20])}"
                    f"{', ...' if len(names) > 20 else ''}, and patterns such as '*.bias'"
                )
    members: list[list[Tensor]] = [[] for _ in range(len(training.groups) + 1)]
    patterns = [_sorted(group.parameters) for group in training.groups]
    first = 0
    for name, size in layout:
        numbered = enumerate(patterns, start=1)
        chosen = next((k for k, given in numbered if _fits(name, *given)), 0)
        members[chosen].append(torch.arange(first, first + size))
        first += size
    empty = torch.empty(0, dtype=torch.long)
    return [torch.cat(rows) if rows else empty for rows in members]


def _sorted(given: Sequence[str]) -> tuple[frozenset[str], list[str]]:
    """Tell whole names, of which there may be hundreds, from patterns."""
    return frozenset(given), [one for one in given if set(one) & set("*?[")]


def _fits(name: str, whole: frozenset[str], patterns: list[str]) -> bool:
    return name in whole or any(fnmatchcase(name, pattern) for pattern in patterns)


def _check_replicas(name: str, update: Optimizer) -> None:
    """Refuse a class that adds up over replicas: a run would answer wrongly without a word."""
    if isinstance(update, GradientStep):  # takes them one by one
        return
    theta = torch.linspace(-1.0, 1.0, 6, dtype=torch.float64).reshape(2, 3)
    both = update.step(update.init(theta), theta.flip(0).exp(), 0.1, 1)
    alone = update.step(update.init(theta[0]), theta[1].exp(), 0.1, 1)
    if any(not torch.allclose(b[0], a, rtol=1e-9) for b, a in zip(both, alone, strict=True)):
        raise ValueError(
            f"training.optimizer = {name!r} steps otherwise with other replicas beside it; its "
            "state is (..., P): let sums and norms run over the last dimension only (dim=-1)"
        )
