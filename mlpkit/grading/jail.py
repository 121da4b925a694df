"""What a child gives up before it runs a submission. Linux; by itself, as child.py runs it."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NEW_IPC, NEW_USER, NEW_PID, NEW_NET = 0x08000000, 0x10000000, 0x20000000, 0x40000000
PDEATHSIG, DUMPABLE, SUBREAPER, NO_NEW_PRIVS = 1, 4, 36, 38
BLOCKED = ("mlpkit", "mlpkit_backends", "cupy", "cupy_backends", "cupyx")
libc = ctypes.CDLL(None, use_errno=True)


def leave_network() -> str:
    """Enter namespaces without a network and with process numbers of their own, where the machine
    lets us. What is not closed off, as a sentence; "" where all is."""
    user = 0 if os.geteuid() == 0 else NEW_USER
    # Of these, the network is worth having alone.
    if libc.unshare(user | NEW_NET | NEW_PID | NEW_IPC) == 0:
        return ""
    if libc.unshare(user | NEW_NET) == 0:
        return "This machine doesn't let the grader hide its processes from the submission."
    return "This machine doesn't let the grader cut off the network: run it in a container without."


def prctl(option: int, value: int) -> None:
    """OSError where the kernel refuses."""
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def supervise() -> None:
    """Be the one to whom orphans of the submission's come."""
    prctl(SUBREAPER, 1)
    prctl(DUMPABLE, 0)
    prctl(PDEATHSIG, signal.SIGKILL)


def give_up(limits: Mapping[str, Any]) -> None:
    """Take the limits on, then another user where root started this. What follows is untrusted."""
    for name, value in limits["rlimits"].items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    if limits["uid"] is not None:
        os.setgroups([])
        os.setresgid(limits["uid"], limits["uid"], limits["uid"])
        os.setresuid(limits["uid"], limits["uid"], limits["uid"])
    prctl(NO_NEW_PRIVS, 1)
    prctl(DUMPABLE, 0)
    prctl(PDEATHSIG, signal.SIGKILL)


class Block:
    """A finder that knows nothing of the toolkit and of CuPy."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """ImportError for the blocked packages."""
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not there where submissions are graded: use NumPy alone")


def hide_toolkit() -> None:
    """Take the toolkit's folders from the path, and say so where it is asked for."""
    sys.path[:] = [
        folder
        for folder in sys.path
        if not any(os.path.exists(f"{folder}/{name}") for name in BLOCKED[:2])
    ]
    sys.meta_path.insert(0, Block())


def end_all(uid: int | None, seconds: float = 5.0) -> bool:
    """Kill what the submission started: all of its user's, and all that came to us as orphans.
    Whether nothing is left."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if uid is not None:
            kill_user(uid)
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return True
        time.sleep(0.005)
    return False


def kill_user(uid: int) -> None:
    """Kill all processes of a user, from one of that user's own."""
    try:
        pid = os.fork()
    except OSError:
        return  # its own process numbers ended with the submission, and all that had one
    if pid == 0:
        try:
            os.setresuid(uid, uid, uid)
            os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def descendants(ancestor: int) -> list[int]:
    """The processes below one, by /proc."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                after = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            parents[int(entry)] = int(after[1])
    found, new = [], [ancestor]
    while new:
        new = [pid for pid, parent in parents.items() if parent in new]
        found += new
    return found
