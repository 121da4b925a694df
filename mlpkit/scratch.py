"""A place beside files to write their successors in, until these are whole."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".making-"


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A new folder in `folder`, which is made where missing; what is whole is moved up from it.

    One process at a time has one, others wait. What a killed one left is removed first. An OSError
    from within names the folder, as the new one's name tells a user nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder) as locked:
        if locked:
            for left in folder.glob(f"{PREFIX}*"):
                shutil.rmtree(left, ignore_errors=True)
        try:
            with tempfile.TemporaryDirectory(dir=folder, prefix=PREFIX) as place:
                yield Path(place)
        except OSError as error:
            if error.filename is None or PREFIX in str(error.filename):
                error.filename, error.filename2 = str(folder), None
            raise


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock, which ends with the process; False where there are no such locks."""
    try:
        import fcntl

        held = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield False
        return
    locked = True
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for another mlpkit at work in {folder}/", file=sys.stderr)
            fcntl.flock(held, fcntl.LOCK_EX)
        except OSError:  # some network file systems have none
            locked = False
        yield locked
    finally:
        os.close(held)
