"""Checks at the door: each failure names the argument, what came, what is accepted, what to do."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterable
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # seconds to import, and a wrong recipe is refused at once
    import torch
    from torch import Tensor


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint with the known name nearest to a wrong one.

    Args:
        name: What the user wrote.
        known: The accepted names.

    Returns:
        `"; did you mean 'x'?"`, or an empty string when nothing is near.
    """
    match = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


def one_of(argument: str, value: object, known: Iterable[str]) -> str:
    """Check that a name is one of the accepted ones.

    Args:
        argument: Name of the argument, for the message.
        value: What came.
        known: The accepted names.

    Returns:
        The value.

    Raises:
        ValueError: If the value is not accepted.
    """
    names = list(known)
    if not isinstance(value, str) or value not in names:
        raise ValueError(
            f"{argument} = {value!r} is not known; accepted: {', '.join(names)}"
            f"{nearest(str(value), names)}"
        )
    return value


def positive_int(argument: str, value: object, *, minimum: int = 1) -> int:
    """Check that a count is a whole number of at least `minimum`.

    Args:
        argument: Name of the argument, for the message.
        value: What came.
        minimum: Smallest accepted number.

    Returns:
        The value.

    Raises:
        ValueError: If it is anything else.
    """
    # NumPy's numbers are Integral and Real, too.
    if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
        raise ValueError(f"{argument} = {value!r} must be a whole number of at least {minimum}")
    return int(value)


def positive_float(argument: str, value: object) -> float:
    """Check that a number is finite and above zero.

    Args:
        argument: Name of the argument, for the message.
        value: What came.

    Returns:
        The value as a float.

    Raises:
        ValueError: If it is anything else.
    """
    number = _finite(value)
    if number is None or number <= 0:
        raise ValueError(f"{argument} = {value!r} must be a finite number above 0")
    return number


def budget_given(value: object) -> float | str | None:
    """Check a recipe's budget of a forecast.

    Args:
        value: What came.

    Returns:
        A share of the training's operations, `auto` or None.

    Raises:
        ValueError: If it is anything else.
    """
    if value is None or value == "auto":
        return None if value is None else "auto"
    number = _finite(value)
    if number is None or number <= 0:
        raise ValueError(
            f"{value!r} is no share of the training's operations; give a number above 0, as 0.05, "
            "or auto; null simulates"
        )
    return number


def nonnegative_float(argument: str, value: object) -> float:
    """Check that a number is finite and not below zero.

    Args:
        argument: Name of the argument, for the message.
        value: What came.

    Returns:
        The value as a float.

    Raises:
        ValueError: If it is anything else.
    """
    number = _finite(value)
    if number is None or number < 0:
        raise ValueError(f"{argument} = {value!r} must be a finite number, at least 0")
    return number


def boolean(argument: str, value: object) -> bool:
    """Check a yes or no.

    Args:
        argument: What the caller calls it.
        value: What came.

    Returns:
        The value.

    Raises:
        ValueError: If it is neither True nor False.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{argument} = {value!r} is neither True nor False; pass one of them")
    return value


def _finite(value: object) -> float | None:
    number = isinstance(value, Real) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) else None  # type: ignore[arg-type]


def text_of(argument: str, value: object) -> str:
    """Check that something is text that files can hold.

    Args:
        argument: Name of the argument, for the message.
        value: What came.

    Returns:
        The value.

    Raises:
        ValueError: If it is no text, or holds half a character (a lone surrogate).
    """
    if not isinstance(value, str):
        raise ValueError(f"{argument} = {value!r} is a {type(value).__name__}; pass a str")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{argument} = {value!r} has a lone surrogate at {error.start}, which no file in UTF-8 "
            f"holds; pass {value.encode(errors='replace').decode()!r}, for one"
        ) from None
    return value


def path_of(argument: str, value: object) -> Path:
    """Check that something names a place on disk.

    Args:
        argument: Name of the argument, for the message.
        value: What came.

    Returns:
        The path.

    Raises:
        ValueError: If it is anything else than text or a path, or no file system can hold it.
    """
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"{argument} is a {type(value).__name__}; pass a path, as text or a Path")
    try:
        path_text(os.fsdecode(value))
    except ValueError as error:
        raise ValueError(f"{argument} = {str(value)!r} {error}") from None
    return Path(os.fsdecode(value))


def path_text(text: str) -> str:
    """Check that a path can be one.

    Args:
        text: The path.

    Returns:
        The path.

    Raises:
        ValueError: If it holds what no file system takes.
    """
    if "\0" in text:
        raise ValueError("holds a NUL character, which no path can; leave it out")
    try:
        os.fsencode(text)
    except UnicodeError:
        raise ValueError("holds half a character; pass text that can be encoded") from None
    return text


def memory_of_machine() -> float:
    """Say how much memory this machine has.

    Returns:
        Bytes; infinite where the system does not say (Windows).
    """
    if not hasattr(os, "sysconf"):
        return math.inf
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def fits_in_memory(argument: str, value: object, numbers: int) -> None:
    """Check that parameters fit into the memory of this machine, before they are made.

    Args:
        argument: Name of the argument, for the message.
        value: What came.
        numbers: How many parameters it asks for, single precision.

    Raises:
        ValueError: If they take more than all of the memory.
    """
    memory = memory_of_machine()
    if 4 * numbers > memory:
        raise ValueError(
            f"{argument} = {value!r} asks for {numbers:,} parameters ({4 * numbers / 2**30:,.0f} "
            f"GiB), and this machine has {memory / 2**30:,.0f} GiB of memory; take a smaller one"
        )


def finite_tensor(argument: str, value: object) -> Tensor:
    """Check that something is a non-empty tensor without NaN or infinity.

    Args:
        argument: Name of the argument, for the message.
        value: What came.

    Returns:
        The tensor.

    Raises:
        ValueError: If it is no tensor, empty, or not finite.
    """
    import torch

    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{argument} is a {type(value).__name__}; pass a torch.Tensor")
    if value.numel() == 0:
        raise ValueError(f"{argument} is empty (shape {tuple(value.shape)}); pass at least one row")
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        bad = int((~torch.isfinite(value)).reshape(len(value), -1).any(1).sum())
        raise ValueError(
            f"{argument} holds NaN or infinity in {bad} of {len(value)} rows; clean the data first"
        )
    return value


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:N` into a device that is there.

    Args:
        device: The wanted device; `auto` takes CUDA where there is a GPU, else the CPU.

    Returns:
        The device.

    Raises:
        ValueError: If the device is unknown or not on this machine.
    """
    import torch

    name = str(device)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = name.split(":")[0]
    one_of("device", kind, ["auto", "cpu", "cuda"])
    try:
        resolved = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"device = {name!r} is not known; accepted: auto, cpu, cuda, cuda:N"
        ) from error
    if resolved.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (resolved.index or 0) >= count:
            raise ValueError(
                f"device = {name!r} is not on this machine ({count} CUDA devices found); "
                "use device=auto or cpu"
            )
    return resolved
