"""How many threads a CPU backend may use."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


@cache
def processors() -> int:
    """The processors this process may use: its affinity, and a container's limit."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    try:
        quota, period = CGROUP_LIMIT.read_text().split()
        count = min(count, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such limit
        pass
    return count
