"""Random numbers on the host: weights, batch order, seeds. Nothing draws on a device.

Initial weights and batch order are drawn here and transferred: the same on every backend.
"""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex, TypeAlias

import numpy as np

Seed: TypeAlias = int | np.random.Generator | None


def normal(shape: tuple[int, ...], seed: Seed) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Standard normals, float64: from a Generator, a new one for an integer seed, or NumPy's global
    state where seed is None."""
    rng = generator(seed)
    return np.random.standard_normal(shape) if rng is None else rng.standard_normal(shape)


def generator(seed: Seed) -> np.random.Generator | None:
    """The Generator itself, a new one for an integer seed, None for None. ValueError for any other
    and a negative one."""
    if seed is None or isinstance(seed, np.random.Generator):
        return seed
    if not isinstance(seed, SupportsIndex) or operator.index(seed) < 0:
        raise ValueError(
            f"seed must be an integer of at least 0, a numpy Generator or None; got {seed!r}"
        )
    return np.random.default_rng(operator.index(seed))


def check_seed(seed: int | None) -> int:
    """The seed, or one drawn from NumPy's global state for None; ValueError where it doesn't fit
    the 64-bit word of a Philox key."""
    if seed is None:
        return int(np.random.randint(2**31))
    if not isinstance(seed, SupportsIndex) or not 0 <= operator.index(seed) < 2**64:
        raise ValueError(f"seed must be an integer from 0 to 2**64 - 1; got {seed!r}")
    return operator.index(seed)


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The order of n images in an epoch: a permutation that seed and epoch alone decide."""
    return np.random.default_rng([seed, epoch]).permutation(n)
