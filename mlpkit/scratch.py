"""A place beside files to write their successors in, until these are whole."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .files import locked

PREFIX = ".making-"


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A new folder in `folder`, which is made where missing; what is whole is moved up from it.

    One process at a time has one, others wait. What a killed one left is removed first. An OSError
    from within names the folder, as the new one's name tells a user nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def wait() -> None:
        print(f"Waiting for another mlpkit at work in {folder}/", file=sys.stderr)

    with locked(folder, wait=wait) as others_are_gone:
        if others_are_gone:
            for left in folder.glob(f"{PREFIX}*"):
                shutil.rmtree(left, ignore_errors=True)
        try:
            with tempfile.TemporaryDirectory(dir=folder, prefix=PREFIX) as place:
                yield Path(place)
        except OSError as error:
            if error.filename is None or PREFIX in str(error.filename):
                error.filename, error.filename2 = str(folder), None
            raise
