"""How many threads a CPU backend uses: all that the process may, or as many as asked for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "MLPKIT_THREADS"
# A container's limit in microseconds of processor time a period: version 2 of Linux's control
# groups has quota and period in one file, version 1 in two.
CGROUP_LIMITS = (
    [Path("/sys/fs/cgroup/cpu.max")],
    [Path(f"/sys/fs/cgroup/cpu/cpu.cfs_{what}_us") for what in ("quota", "period")],
)
# What the libraries that are still to be loaded go by.
LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def use_threads(count: int | None = None) -> None:
    """Hold BLAS and the compiled steps to so many threads; None: to what MLPKIT_THREADS says, or to
    the processors at hand, where those are fewer than the libraries would see. ValueError below 1.
    """
    from threadpoolctl import threadpool_limits

    source, most = "the number of threads", os.cpu_count() or 1
    if count is None:
        count, source = thread_count(), VARIABLE
        if count == most and not os.environ.get(VARIABLE):
            return
    if not 1 <= count <= most:
        raise ValueError(
            f"{source} must be from 1 to the {most} processors of this machine; got {count}"
        )
    os.environ[VARIABLE] = str(count)
    for name in LIBRARIES:
        os.environ[name] = str(count)
    if "numba" not in sys.modules:  # numba refuses another number once its threads run
        os.environ["NUMBA_NUM_THREADS"] = str(count)
    threadpool_limits(count)


def thread_count() -> int:
    """The number of threads to use: what the environment variable MLPKIT_THREADS says, else as many
    as the processors that affinity and a container's limit leave this process. ValueError where
    MLPKIT_THREADS is no number of threads."""
    given = os.environ.get(VARIABLE, "")
    if given:
        if not given.isdecimal() or int(given) < 1:
            raise ValueError(f"{VARIABLE} must be a number of threads, at least 1; got {given!r}")
        return int(given)
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    for files in CGROUP_LIMITS:
        try:
            quota, period = (int(x) for file in files for x in file.read_text().split())
        except (OSError, ValueError):  # no such file, or no limit in it
            continue
        if quota > 0:
            count = min(count, max(1, round(quota / period)))
    return count
