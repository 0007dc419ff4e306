"""Pretrained transformers as classifiers, whole or with adapters."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from capacity.recipe.config import Model
from capacity.tasks.pretrained import first_line, library, place


def pretrained(model: Model, n_outputs: int) -> nn.Module:
    """Load a pretrained network with a new head, drawn from torch's random state.

    Args:
        model: The recipe's `model` section, of kind `pretrained`.
        n_outputs: Width of the head.

    Returns:
        The network, in training mode. With an adapter only that and the head are trainable.

    Raises:
        ValueError: If there is no network of that name, or it cannot be had.
    """
    transformers = library("transformers")
    said = transformers.utils.logging
    level, bar = said.get_verbosity(), said.is_progress_bar_enabled()
    said.set_verbosity_error()  # a new head is what is wanted, and no news
    said.disable_progress_bar()
    try:
        network: Any = transformers.AutoModelForSequenceClassification.from_pretrained(
            place(model.pretrained), num_labels=n_outputs
        )
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"model.pretrained = {model.pretrained!r} cannot be loaded as a classifier of "
            f"sequences (no such directory or name on the hub, or no network): {first_line(error)}"
        ) from error
    finally:
        said.set_verbosity(level)
        if bar:
            said.enable_progress_bar()
    if model.adapter == "lora":
        peft = library("peft")
        options = peft.LoraConfig(
            task_type="SEQ_CLS", r=model.rank, lora_alpha=2 * model.rank,
            target_modules="all-linear",
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # what peft calls of transformers
            network = peft.get_peft_model(network, options)
    trained: nn.Module = network.train()
    return trained
