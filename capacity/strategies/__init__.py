"""Mitigation strategies: what is added to a training against forgetting.

A strategy is a frozen record of options with two pure functions. `prepare` runs after each task and
returns what the strategy remembers of it; `contribution` says what that adds to learning the next
one: a penalty on theta, a distillation or a memory in the loss, a projector of the gradient, a mask
of frozen parameters, or a changed plan. The training loop and the forecast's simulation read the
same contribution (theory.md#strategies).

One more strategy is one subclass of `Strategy` and `register(it)`; a package's is found by an entry
point of the group `capacity.strategies`. Recipes are checked without torch, so the files named here
import it inside their methods; files elsewhere need not.
"""

from __future__ import annotations

from capacity.base.registry import Registry
from capacity.strategies.strategy import Price as Price
from capacity.strategies.strategy import Strategy as Strategy

REGISTRY = Registry(
    "training.strategy.name",
    "capacity.strategies",
    {
        "naive": "capacity.strategies.plans:Naive",
        "l2": "capacity.strategies.regularisers:L2",
        "ewc": "capacity.strategies.regularisers:EWC",
        "si": "capacity.strategies.regularisers:SI",
        "mas": "capacity.strategies.regularisers:MAS",
        "replay": "capacity.strategies.rehearsal:ExperienceReplay",
        "generative_replay": "capacity.strategies.generative:GenerativeReplay",
        "lwf": "capacity.strategies.lwf:LwF",
        "der": "capacity.strategies.rehearsal:DarkReplay",
        "derpp": "capacity.strategies.rehearsal:DarkReplayLabels",
        "agem": "capacity.strategies.rehearsal:AGEM",
        "ogd": "capacity.strategies.ogd:OGD",
        "gpm": "capacity.strategies.gpm:GPM",
        "vcl": "capacity.strategies.beliefs:VCL",
        "fisher_rao": "capacity.strategies.beliefs:FisherRao",
        "freeze": "capacity.strategies.plans:Freeze",
        "lower_lr": "capacity.strategies.plans:LowerRate",
        "fewer_epochs": "capacity.strategies.plans:FewerEpochs",
        "joint": "capacity.strategies.rehearsal:Joint",
    },
)
"""Strategies by the names that a recipe has for them."""


def register(strategy: type[Strategy]) -> type[Strategy]:
    """Make a strategy of one's own known under its `name`; can stand above a class.

    Args:
        strategy: A subclass of `Strategy`.

    Returns:
        The same.

    Raises:
        ValueError: If it is none, or has no name or that of a built-in strategy.
    """
    if not isinstance(strategy, type) or not issubclass(strategy, Strategy):
        raise ValueError(
            f"{strategy!r} is no strategy; register a subclass of capacity.strategies.Strategy"
        )
    REGISTRY.register(strategy.name, strategy)
    return strategy
