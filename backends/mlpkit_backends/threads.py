"""How many threads a CPU backend uses: all that the process may, or as many as asked for."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")
VARIABLE = "MLPKIT_THREADS"
# What the libraries that are still to be loaded go by.
LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def use_threads(count: int | None = None) -> None:
    """Hold BLAS and the compiled steps to so many threads; None: to the processors at hand, where
    a container's limit is below what the libraries would see. ValueError below 1."""
    from threadpoolctl import threadpool_limits

    if count is None:
        if VARIABLE in os.environ or processors() == (os.cpu_count() or 1):
            return
        count = processors()
    if count < 1:
        raise ValueError(f"the number of threads must be at least 1; got {count}")
    os.environ[VARIABLE] = str(count)
    for name in LIBRARIES:
        os.environ[name] = str(count)
    threadpool_limits(count)


def processors() -> int:
    """The processors this process may use, by its affinity and a container's limit; or what the
    environment variable MLPKIT_THREADS says."""
    given = os.environ.get(VARIABLE, "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    try:
        quota, period = CGROUP_LIMIT.read_text().split()
        return min(count, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such limit
        return count
