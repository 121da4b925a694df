"""Array backends for mlpkit: one set of ops, run by NumPy on a CPU or CuPy on a GPU."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib import import_module

from .base import Array, Backend, Step
from .errors import BackendUnavailable, DeviceError

__all__ = ["Array", "Backend", "BackendUnavailable", "DeviceError", "Step", "available", "load"]


def _maker(module: str, name: str) -> Callable[[], Backend]:
    """What makes the backend of that class; its module brings the libraries that it needs."""
    return lambda: getattr(import_module(f".{module}", __name__), name)()


# In the order in which "auto" tries them.
_MAKERS: dict[str, Callable[[], Backend]] = {
    "cupy": _maker("cuda", "CupyBackend"),
    "numba": _maker("compiled", "NumbaBackend"),
    "numpy": _maker("cpu", "NumpyBackend"),
}


@cache  # a failed search for CuPy takes too long to repeat for every layer
def _find(name: str) -> Backend | BackendUnavailable:
    try:
        return _MAKERS[name]()
    except BackendUnavailable as error:
        return error
    except ModuleNotFoundError as error:
        library = str(error.name).partition(".")[0]
        return BackendUnavailable(f"{library} is not installed: pip install {library}")


def load(name: str | Backend | None = None) -> Backend:
    """The backend of that name: "cupy", "numba", "numpy", or "auto", the first of them that runs
    here.

    None reads the environment variable MLPKIT_BACKEND, and is "auto" where that is unset. A Backend
    is returned as it is. A backend asked for by name is that backend or an error.

    Raises BackendUnavailable with the cause and the line that mends it; ValueError for a name that
    is none of these; TypeError for what is no name.
    """
    if isinstance(name, Backend):
        return name
    if name is not None and not isinstance(name, str):
        raise TypeError(f"backend should be a name or a Backend; got {type(name).__name__}")
    source = "backend"
    if name is None:
        name, source = os.environ.get("MLPKIT_BACKEND") or "auto", "MLPKIT_BACKEND"
    if name == "auto":
        # Where there is none, NumPy's says why.
        name = next((known for known in _MAKERS if isinstance(_find(known), Backend)), "numpy")
    if name not in _MAKERS:
        expected = ", ".join(["auto", *_MAKERS])
        raise ValueError(f"{source} must be one of {expected}; got {name!r}")
    found = _find(name)
    if isinstance(found, BackendUnavailable):
        raise BackendUnavailable(f"backend {name} can't be used: {found}") from found
    return found


def available() -> dict[str, str]:
    """Each backend, and "ok" or the reason it can't be used here; looked for once a process."""
    found = {name: _find(name) for name in _MAKERS}
    return {name: "ok" if isinstance(b, Backend) else str(b) for name, b in found.items()}
