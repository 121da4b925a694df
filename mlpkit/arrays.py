"""What an array is, read off its dtype: alike for NumPy, CuPy and any other namespace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mlpkit_backends import Array, Backend


def dtype_name(a: Array) -> str:
    """The dtype as it is called, "float32" or "int64", of any namespace and byte order."""
    name = getattr(a.dtype, "name", str(a.dtype))
    return str(name).rpartition(".")[2]


def are_integers(a: Array) -> bool:
    """Whether an array's numbers are integers, signed or not."""
    return is_of(a, "iu", "int")


def are_floats(a: Array) -> bool:
    """Whether an array's numbers are floats."""
    return is_of(a, "f", "float")


def is_of(a: Array, kinds: str, word: str) -> bool:
    """Whether the dtype is of NumPy's kinds, which is quick to ask, or else has the word in it."""
    kind = getattr(a.dtype, "kind", None)
    return word in dtype_name(a) if kind is None else kind in kinds


def shapes_of(arrays: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """Each array's shape, by name."""
    return {name: tuple(a.shape) for name, a in arrays.items()}


def float_dtype(dtype: Any) -> str:
    """The name of a dtype of floats: "float32" for numpy.float32, too. ValueError for any other."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.kind != "f":
        raise ValueError(f"dtype must be one of floats, as 'float32' or 'float64'; got {dtype!r}")
    return str(found.name)


def floats(backend: Backend, a: Any) -> Array:
    """`a` (array, nested sequence or scalar) on the backend as floats; what isn't becomes float64,
    as small integers' own arithmetic wraps around."""
    a = backend.asarray(a)
    return a if are_floats(a) else backend.xp.astype(a, backend.xp.float64)


def check_array(what: str, a: Any) -> None:
    """ValueError unless a is an array; what: who takes it."""
    if not hasattr(a, "dtype"):
        raise ValueError(
            f"{what} takes an array; got {type(a).__name__}: make one with backend.asarray"
        )


def check_returned(what: str, a: Any) -> None:
    """TypeError unless a is an array; what: who returned it."""
    if not hasattr(a, "dtype"):
        raise TypeError(f"{what} should return an array; got {type(a).__name__}")


def check_floats(what: str, a: Any) -> None:
    """ValueError unless a is an array of floats; what: who takes it."""
    check_array(what, a)
    if not are_floats(a):
        raise ValueError(
            f"{what} takes floats; got {dtype_name(a)}: scale images first, as in "
            "images / 255 - mean_image, or convert numbers with astype"
        )
