"""The global random states are the caller's: what is drawn on the way leaves them as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class RandomState(NamedTuple):
    """The global random states at one moment.

    Attributes:
        python: Python's.
        numpy: NumPy's.
        cpu: Torch's on the CPU.
        gpus: Torch's on every GPU; none where no GPU is in use.
    """

    python: Any
    numpy: Any
    cpu: Tensor
    gpus: tuple[Tensor, ...]

    @classmethod
    def now(cls) -> RandomState:
        """Read them.

        Returns:
            The states.
        """
        gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else ()
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state(), tuple(gpus))  # noqa: NPY002

    def restore(self) -> None:
        """Put them back."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
        torch.set_rng_state(self.cpu)
        if self.gpus:
            torch.cuda.set_rng_state_all(list(self.gpus))


@contextmanager
def kept_random_state(seed: int | RandomState | None = None) -> Iterator[None]:
    """Put the global random states of torch (CPU and GPUs), NumPy and Python back at the end.

    Args:
        seed: What all of them are seeded with meanwhile, or their states then; None leaves them
            where they stand.

    Yields:
        Nothing.
    """
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    # Looking for devices costs as much as a small network's gradient, so not where there are none.
    with torch.random.fork_rng(devices=None if torch.cuda.is_available() else ()):
        try:
            if isinstance(seed, RandomState):
                seed.restore()
            elif seed is not None:
                random.seed(seed)
                np.random.seed(seed % 2**32)  # noqa: NPY002
                torch.default_generator.manual_seed(seed)
                if torch.cuda.is_initialized():  # else the seed would wait until it is
                    torch.cuda.manual_seed_all(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numbers)  # noqa: NPY002
