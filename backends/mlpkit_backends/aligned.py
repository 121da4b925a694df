"""NumPy arrays whose data begin where a cache line does.

Large ones of NumPy's own begin 16 bytes into a line, and every vector that is loaded from them
comes from two lines: the large products of a training step take a tenth longer.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

LINE = 64  # bytes


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """A new array, its values whatever lay there."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + LINE, np.uint8)
    first = -memory.ctypes.data % LINE
    new: np.ndarray[Any, Any] = memory[first : first + size].view(dtype).reshape(shape)
    return new


def copy(a: Any, dtype: Any) -> np.ndarray[Any, Any]:
    """The values of an array, in a new one of that dtype."""
    new = empty(a.shape, dtype)
    new[...] = a
    return new
