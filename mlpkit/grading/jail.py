"""What a child gives up before it runs a submission. Linux; by itself, as child.py runs it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NEW_FILES, NEW_IPC, NEW_USER, NEW_PID, NEW_NET = (
    0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
)  # fmt: skip
NOSUID, NODEV, BIND, RECURSIVE, PRIVATE, DETACH = 2, 4, 4096, 16384, 1 << 18, 2
SHARED = ("/tmp", "/var/tmp", "/dev/shm")  # where every user may leave files
ROOM = "size=64m,mode=1777"  # of one's own in place of each
PDEATHSIG, DUMPABLE, SUBREAPER, NO_NEW_PRIVS = 1, 4, 36, 38
CAPABILITIES = 0x20080522  # the version of their sets' form
BLOCKED = ("mlpkit", "mlpkit_backends", "cupy", "cupy_backends", "cupyx")
libc = ctypes.CDLL(None, use_errno=True)


def close_off(needed: Sequence[str], as_root: bool = False) -> str:
    """Enter namespaces without a network, with process numbers and temporary folders of their own,
    where the machine lets us. What is not closed off, in sentences; "" where all is.

    needed: what the submission reads and writes, wherever it lies. as_root: it stays root, as it
    can't be made another user.
    """
    refused = leave_network()
    if as_root:
        refused = (*refused, "make the submission another user")
    if not own_temporary_folders(needed):
        refused = (*refused, "give the submission temporary folders of its own")
    if not refused:
        return ""
    advice = ": run it in a container without a network" if CUT_OFF in refused else ""
    return f"This machine doesn't let the grader {', nor '.join(refused)}{advice}."


CUT_OFF = "cut off the network"


def leave_network() -> tuple[str, ...]:
    """No network, and process numbers of one's own; what is refused."""
    ids = os.geteuid(), os.getegid()
    user = 0 if ids[0] == 0 else NEW_USER
    # Of these, the network is worth having alone.
    refused: tuple[str, ...] = ()
    if libc.unshare(user | NEW_NET | NEW_PID | NEW_IPC) != 0:
        refused = ("hide its processes from the submission",)
        if libc.unshare(user | NEW_NET) != 0:
            return (CUT_OFF,)
    if user:  # or its files would be nobody's
        for name, own in zip(("uid", "gid"), ids, strict=True):
            with contextlib.suppress(OSError):
                Path("/proc/self/setgroups").write_text("deny")
                Path(f"/proc/self/{name}_map").write_text(f"{own} {own} 1")
    return refused


def own_temporary_folders(needed: Sequence[str]) -> bool:
    """Empty folders of this process's in place of those that all users share, with what is needed
    of them; whether the machine lets us. All of them or none."""
    if libc.unshare(NEW_FILES) != 0:
        return False
    covered: list[str] = []
    places: dict[str, int] = {}
    try:
        for name in needed:
            if name.startswith(tuple(f"{folder}/" for folder in SHARED)):
                places[name] = os.open(name, os.O_PATH)
        mount("none", "/", "", RECURSIVE | PRIVATE)
        for folder in filter(os.path.isdir, SHARED):
            mount("tmpfs", folder, "tmpfs", NOSUID | NODEV, ROOM)
            covered.append(folder)
            for name, fd in places.items():
                if name.startswith(f"{folder}/"):
                    os.makedirs(name)
                    mount(f"/proc/self/fd/{fd}", name, "", BIND | RECURSIVE)
    except OSError:
        for folder in covered:
            libc.umount2(folder.encode(), DETACH)
        return False
    finally:
        for fd in places.values():
            os.close(fd)
    return True


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """OSError where the kernel refuses."""
    words = (text.encode() for text in (source, target, kind))
    if libc.mount(*words, ctypes.c_ulong(flags), options.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}")


def prctl(option: int, value: int) -> None:
    """OSError where the kernel refuses."""
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def supervise() -> None:
    """Become the subreaper: the submission's orphaned processes become this one's children."""
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
    # In a user namespace it would have every right, as that to uncover what is covered.
    libc.capset(struct.pack("II", CAPABILITIES, 0), bytes(24))
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
