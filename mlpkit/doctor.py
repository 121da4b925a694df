"""What the machine offers mlpkit, and what is missing, for `mlpkit doctor`."""

from __future__ import annotations

import os
import platform

from mlpkit_backends import BackendUnavailable, DeviceError, available, load

from . import __version__

# What changes how mlpkit runs, where it is set.
VARIABLES = (
    "MLPKIT_BACKEND",
    "MLPKIT_THREADS",
    "MLPKIT_DATA",
    "CUDA_VISIBLE_DEVICES",
    "CUPY_TF32",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMBA_CACHE_DIR",
)


def examine() -> tuple[list[str], bool]:
    """The report's lines, and whether the default backend works, and every device found answers."""
    # Before a backend is loaded, which tells the libraries their threads in the same way.
    given = [f"{name} is {os.environ[name]!r}" for name in VARIABLES if name in os.environ]
    lines = [f"mlpkit {__version__}, Python {platform.python_version()}, {platform.platform()}", ""]
    try:
        found = available()
    except ValueError as error:  # a number of threads that is none
        return [*lines, *given, f"No backend can be used: {error}"], False
    well = True
    for name, state in found.items():
        lines.append(f"{name:6} {state}")
        if state != "ok":
            continue
        backend = load(name)
        try:
            with backend.failures():
                details = backend.details()
        except DeviceError as error:
            well, details = False, {"but": str(error)}
        lines += [f"         {what}: {value}" for what, value in details.items()]
    lines += ["", *given]
    try:
        lines.append(f"The default backend is {load().name}.")
    except (BackendUnavailable, ValueError) as error:
        return [*lines, f"The default backend doesn't work: {error}"], False
    return lines, well
