"""The global random states are the caller's: what is drawn on the way leaves them as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def kept_random_state(seed: int | None = None) -> Iterator[None]:
    """Put the global random states of torch (CPU and GPUs), NumPy and Python back at the end.

    Args:
        seed: What all of them are seeded with meanwhile; None leaves them where they stand.

    Yields:
        Nothing.
    """
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        try:
            if seed is not None:
                random.seed(seed)
                np.random.seed(seed % 2**32)  # noqa: NPY002
                torch.default_generator.manual_seed(seed)
                if torch.cuda.is_initialized():  # else the seed would wait until it is
                    torch.cuda.manual_seed_all(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numbers)  # noqa: NPY002
