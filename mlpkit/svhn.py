"""SVHN's files: fetched, and verified against what they should be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .datasets import TEST_FILE, TRAIN_FILE
from .matfile import DataError

URL = "http://ufldl.stanford.edu/housenumbers/"


@dataclass(frozen=True)
class RemoteFile:
    """A file of SVHN's: its name, bytes and hash, as published files measure."""

    name: str
    size: int
    sha256: str


FILES = (
    RemoteFile(
        TRAIN_FILE,
        182040794,
        "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
    ),
    RemoteFile(
        TEST_FILE,
        64275384,
        "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
    ),
)


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(folder: Path, files: Iterable[RemoteFile] = FILES) -> dict[str, str]:
    """Each of SVHN's files and "ok", or in words what differs from the published one."""
    states = {}
    for file in files:
        path = folder / file.name
        if not path.is_file():
            states[file.name] = f"missing from {folder}: mlpkit data fetch"
        elif path.stat().st_size != file.size:
            states[file.name] = (
                f"has {path.stat().st_size} bytes, expected {file.size}: mlpkit data fetch"
            )
        elif (digest := sha256(path)) != file.sha256:
            states[file.name] = f"has sha256 {digest}, expected {file.sha256}: mlpkit data fetch"
        else:
            states[file.name] = "ok"
    return states


def fetch(
    folder: Path, *, url: str = URL, files: Iterable[RemoteFile] = FILES, retries: int = 3
) -> None:
    """Download SVHN's files into folder; what is there and whole is not fetched again.

    pooch downloads to a temporary name, and moves a file into place only once its hash is right.
    Raises DataError where the server can't be reached or sends something else.
    """
    import pooch

    registry = pooch.create(
        path=folder,
        base_url=url,
        registry={file.name: f"sha256:{file.sha256}" for file in files},
        retry_if_failed=retries,
    )

    def download(address: str, target: Any, mirror: Any) -> None:
        bar = progress_bar()
        try:
            pooch.HTTPDownloader(progressbar=bar, timeout=60)(address, target, mirror)
        finally:
            bar.close()  # a bar left open would hide the terminal's cursor

    for file in files:
        try:
            registry.fetch(file.name, downloader=download)
        except (OSError, ValueError) as error:  # requests' errors are OSErrors
            what = (
                f"could not be fetched ({error})"
                if isinstance(error, OSError)
                else f"is not SVHN's {file.name}: its SHA-256 should be {file.sha256}"
            )
            raise DataError(
                f"{url}{file.name} {what}: try again, or download it by other means into {folder} "
                "and run: mlpkit data verify"
            ) from error


def progress_bar() -> Any:
    """rich's bar with the interface that pooch asks of a progress bar; only on a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    class Bar:
        def __init__(self) -> None:
            console = Console(stderr=True)  # where pooch's lines go
            self.shown = Progress(
                BarColumn(bar_width=30),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=console,
                disable=not console.is_terminal,
            )
            self.task = self.shown.add_task("", total=None)

        @property
        def total(self) -> float | None:
            return self.shown.tasks[0].total

        @total.setter
        def total(self, size: int) -> None:
            self.shown.update(self.task, total=size, completed=0)
            self.shown.start()

        def update(self, n: int) -> None:
            self.shown.advance(self.task, n)

        def reset(self) -> None:
            self.shown.update(self.task, completed=0)

        def close(self) -> None:
            self.shown.stop()

    return Bar()
