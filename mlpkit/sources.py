"""Where a command's data comes from: a folder, SVHN in data/, or the offline stand-in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from .datasets import TEST_FILE, TRAIN_FILE, DataError

Progress = Callable[[int, int], None]


def data_root() -> Path:
    """The folder for data: what MLPKIT_DATA names, or data/ where the command runs. DataError where
    MLPKIT_DATA names no folder, which a slip of the pen would make."""
    named = os.environ.get("MLPKIT_DATA")
    if named and not Path(named).is_dir():
        raise DataError(
            f"MLPKIT_DATA should name a folder; there is none at {named}: make it first"
        )
    return Path(named or "data")


def has_data(folder: Path) -> bool:
    """Whether both files are in the folder."""
    return all((folder / name).is_file() for name in (TRAIN_FILE, TEST_FILE))


def check_svhn(root: Path) -> None:
    """DataError unless the folder's files are SVHN's to the byte."""
    from . import svhn

    wrong = [f"{root / name} {state}" for name, state in svhn.verify(root).items() if state != "ok"]
    if wrong:
        raise DataError(f"SVHN is expected in {root}; {wrong[0]}, or for other data: --data {root}")


def synthetic_folder() -> Path:
    """Where the offline stand-in lies."""
    return data_root() / "synthetic"


def find_data(
    choice: str | None = None,
    *,
    say: Callable[[str], None] = print,
    progress: Progress | None = None,
) -> Path:
    """The folder that `choice` names: "svhn", "synthetic" (made where missing), a folder, or None:
    SVHN where data/ holds it, else the stand-in, with a line that says so. Raises DataError."""
    root = data_root()
    if choice == "svhn" and not has_data(root):
        raise DataError(f"{root} holds no SVHN: `mlpkit data fetch` downloads it (235 MiB)")
    if choice in (None, "svhn") and has_data(root):
        check_svhn(root)
        return root
    if choice in (None, "synthetic"):
        if choice is None:
            say(
                f"No SVHN in {root}/: using the offline stand-in, rendered digits in its layout. "
                "The real one: mlpkit data fetch"
            )
        folder = synthetic_folder()
        if not has_data(folder):
            from .synthetic import make

            say(f"Making {folder}/ (once)")
            make(folder, keep=True, progress=progress)
        return folder
    folder = Path(choice)
    if not choice or not folder.is_dir():
        what = f"{choice} is a file" if choice and folder.exists() else f"no folder is {choice!r}"
        raise DataError(f"--data takes svhn, synthetic or a folder; {what}")
    return folder
