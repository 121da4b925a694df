"""Array backends for mlpkit: one set of ops, run by NumPy on a CPU or CuPy on a GPU."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

from .base import Array, Backend
from .errors import BackendUnavailable

__all__ = ["Array", "Backend", "BackendUnavailable", "available", "load"]


def _numpy() -> Backend:
    from .cpu import NumpyBackend

    return NumpyBackend()


def _cupy() -> Backend:
    from .cuda import CupyBackend

    return CupyBackend()


# In the order in which "auto" tries them.
_MAKERS: dict[str, Callable[[], Backend]] = {"cupy": _cupy, "numpy": _numpy}


@cache
def _make(name: str) -> Backend:
    return _MAKERS[name]()


def load(name: str | Backend | None = None) -> Backend:
    """The backend of that name: "numpy", "cupy", or "auto", the first of them that runs here, cupy
    before numpy.

    None reads the environment variable MLPKIT_BACKEND, and is "auto" where that is unset. A Backend
    is returned as it is. A backend asked for by name is that backend or an error.

    Raises BackendUnavailable with the cause and the line that mends it; ValueError for a name that
    is none of these.
    """
    if isinstance(name, Backend):
        return name
    if name is None:
        name = os.environ.get("MLPKIT_BACKEND") or "auto"
    if name == "auto":
        name = next(known for known, state in available().items() if state == "ok")
    if name not in _MAKERS:
        expected = ", ".join(["auto", *_MAKERS])
        raise ValueError(f"backend must be one of {expected}; got {name!r}")
    try:
        return _make(name)
    except BackendUnavailable as error:
        raise BackendUnavailable(f"backend {name} can't be used: {error}") from error


def available() -> dict[str, str]:
    """Each backend, and "ok" or the reason it can't be used here."""
    states = {}
    for name in _MAKERS:
        try:
            _make(name)
            states[name] = "ok"
        except BackendUnavailable as error:
            states[name] = str(error)
    return states
