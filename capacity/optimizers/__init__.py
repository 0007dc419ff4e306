"""Optimisers: one file each, in which a method states its own facts.

A method of your own is a frozen dataclass on `capacity.optimizers.optimizer.Optimizer`, and one
line: `capacity.optimizers.register("mine", Mine)`, or an entry point `mine = "package:Mine"` in the
group `capacity.optimizers`. A recipe then says `optimizer: mine`, and its options under `options`.
"""

from __future__ import annotations

from capacity.base.registry import Registry

REGISTRY = Registry(
    "training.optimizer",
    "capacity.optimizers",
    {
        "sgd": "capacity.optimizers.sgd:SGD",
        "momentum": "capacity.optimizers.momentum:Momentum",
        "adam": "capacity.optimizers.adam:Adam",
        "adamw": "capacity.optimizers.adam:AdamW",
        "rmsprop": "capacity.optimizers.rmsprop:RMSprop",
        "sgld": "capacity.optimizers.sgld:Langevin",
        "underdamped": "capacity.optimizers.langevin:UnderdampedLangevin",
        "mirror": "capacity.optimizers.mirror:Mirror",
        "natural": "capacity.optimizers.natural:Natural",
    },
)

register = REGISTRY.register
