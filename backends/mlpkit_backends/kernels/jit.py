"""numba.njit with a cache on disk that notices a change in any of the kernels' files.

numba's own notices one in the file of the function called, and kernels call each other across
files: an edited one would go on being what it was.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache

HERE = Path(__file__).parent
# Of this process alone, where no folder can be written to; removed at its end.
_scratch: list[tempfile.TemporaryDirectory[str]] = []


@cache
def cache_folder() -> str:
    """Where these kernels' machine code is kept: below NUMBA_CACHE_DIR or beside their source, or
    else among the user's caches; in a folder that goes with the process where none of them can be
    written to."""
    files = [*sorted(HERE.glob("*.py")), HERE.parent / "plan.py"]  # which numbers the ops
    sources = b"".join(path.read_bytes() for path in files)
    version = hashlib.sha256(sources).hexdigest()[:16]
    first: Any = numba.config.CACHE_DIR or HERE / "__pycache__"  # type: ignore[attr-defined]
    users = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "mlpkit"
    for root in (Path(first).absolute(), users):
        folder = root / f"kernels-{version}"
        if not folder.is_absolute():  # there is no home
            continue
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK):
                return str(folder)
    _scratch.append(tempfile.TemporaryDirectory(prefix="mlpkit-kernels-"))
    return _scratch[0].name


class KernelCache(FunctionCache):
    """numba's cache, of which nothing ends a run: what is damaged, as after a loss of power, is
    compiled again, and what can't be written, as on a full disk, is not kept."""

    def load_overload(self, signature: Any, context: Any) -> Any:
        try:
            return super().load_overload(signature, context)  # type: ignore[no-untyped-call]
        except Exception:  # whatever comes of reading damaged pickles
            with suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call]
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        with suppress(Exception):  # of a damaged index, too, that could not be emptied
            super().save_overload(signature, compiled)  # type: ignore[no-untyped-call]


def jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """numba.njit with these options, cached in `cache_folder`."""

    def decorate(function: Callable[..., Any]) -> Any:
        config: Any = numba.config
        before = config.CACHE_DIR
        config.CACHE_DIR = cache_folder()
        try:
            dispatcher = numba.njit(**options)(function)
            # As cache=True does with numba's own.
            dispatcher._cache = KernelCache(function)  # type: ignore[no-untyped-call]
            return dispatcher
        finally:
            config.CACHE_DIR = before

    return decorate
