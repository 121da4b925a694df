"""Checks of arguments: their kind and their range."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any


def check_counts(**counts: int) -> None:
    """ValueError for what isn't a whole number of at least 1."""
    for name, count in counts.items():
        if not isinstance(count, Integral) or count < 1:
            raise ValueError(f"{name} must be a whole number, at least 1; got {count!r}")


def check_positive(**settings: float) -> None:
    """ValueError for what isn't a number above 0 and finite."""
    for name, value in settings.items():
        number(name, value)
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite; got {value}")


def check_nonnegative(below: float = math.inf, **settings: float) -> None:
    """ValueError for what isn't a number of at least 0, finite, and below that number."""
    for name, value in settings.items():
        number(name, value)
        if not 0 <= value < below:
            limit = "finite" if below == math.inf else f"below {below:g}"
            raise ValueError(f"{name} must be at least 0 and {limit}; got {value}")


def number(name: str, value: Any) -> float:
    """A real number as Python's float: NumPy's own would decide the dtype of what they touch.
    ValueError for text, arrays and anything else."""
    if not isinstance(value, Real):
        raise ValueError(f"{name} must be a number; got {value!r}")
    return float(value)


def wrong_kind(name: str, got: Any, wanted: str) -> TypeError:
    """The error for an argument that isn't what is wanted."""
    what = f"the class {got.__name__}" if isinstance(got, type) else type(got).__name__
    return TypeError(f"{name} should be {wanted}; got {what}")
