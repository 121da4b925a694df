"""numba.njit with a cache on disk that notices a change in any of the kernels' files.

numba's own notices one in the file of the function called, and kernels call each other across
files: an edited one would go on being what it was.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

HERE = Path(__file__).parent
# Of this process alone, where no folder can be written to; removed at its end.
_scratch: list[tempfile.TemporaryDirectory[str]] = []


@cache
def cache_folder() -> str:
    """Where these kernels' machine code is kept: below NUMBA_CACHE_DIR or beside their source, or
    in a folder that goes with the process where neither can be written to."""
    files = [*sorted(HERE.glob("*.py")), HERE.parent / "plan.py"]  # which numbers the ops
    sources = b"".join(path.read_bytes() for path in files)
    version = hashlib.sha256(sources).hexdigest()[:16]
    root = Path(numba.config.CACHE_DIR or HERE / "__pycache__")  # type: ignore[attr-defined]
    folder = root / f"kernels-{version}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        _scratch.append(tempfile.TemporaryDirectory(prefix="mlpkit-kernels-"))
        return _scratch[0].name
    return str(folder)


def jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """numba.njit with these options, cached in `cache_folder`."""

    def decorate(function: Callable[..., Any]) -> Any:
        config: Any = numba.config
        before = config.CACHE_DIR
        config.CACHE_DIR = cache_folder()
        try:
            return numba.njit(cache=True, **options)(function)
        finally:
            config.CACHE_DIR = before

    return decorate
