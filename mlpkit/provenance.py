"""What a result depends on beside its settings: data, versions; and what it took in memory."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from . import __version__
from .datasets import TEST_FILE, TRAIN_FILE
from .svhn import sha256


def data_hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of each of a data set's files."""
    return {name: sha256(folder / name) for name in (TRAIN_FILE, TEST_FILE)}


def versions(others: Sequence[str] = ()) -> dict[str, str]:
    """Python's and mlpkit's versions, and those of the libraries that decide results and rates."""
    # mlpkit's own by its code: it may be run without being installed.
    found = {"python": platform.python_version(), "mlpkit": __version__}
    own = ("numpy", "scipy", "numba", "cupy-cuda12x", "cupy-cuda13x")
    for package in (*own, *others):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def peak_rss_bytes() -> int | None:
    """The most memory this process has held, in bytes; None where the system doesn't say."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
