"""SVHN's files: fetched, and verified against what they should be."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .datasets import TEST_FILE, TRAIN_FILE
from .matfile import DataError
from .scratch import scratch

URL = "http://ufldl.stanford.edu/housenumbers/"
BLOCK = 1 << 16
SLOWEST = 1024  # bytes/s that a server sends, or has stalled


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


def difference(path: Path, file: RemoteFile) -> str:
    """In words what a path has that the published file has not, "" where it is that file."""
    if not path.is_file():
        return f"missing from {path.parent}"
    if path.stat().st_size != file.size:
        return f"has {path.stat().st_size} bytes, expected {file.size}"
    digest = sha256(path)
    return "" if digest == file.sha256 else f"has sha256 {digest}, expected {file.sha256}"


def verify(folder: Path, files: Iterable[RemoteFile] | None = None) -> dict[str, str]:
    """Each of SVHN's files and "ok", or in words what differs from the published one."""
    found = {
        file.name: difference(folder / file.name, file)
        for file in (FILES if files is None else files)
    }
    return {name: f"{what}: mlpkit data fetch" if what else "ok" for name, what in found.items()}


def fetch(
    folder: Path,
    *,
    url: str = URL,
    files: Sequence[RemoteFile] = FILES,
    retries: int = 3,
    patience: float = 30.0,
) -> None:
    """Download SVHN's files into folder; what is there and whole is not fetched again.

    A file is in place only once its size and hash are right. A server that sends nothing for
    `patience` seconds, or less than SLOWEST bytes/s over as long, has stalled. Raises DataError
    where it can't be reached, stalls or sends something else, `retries` times more than once.
    """
    if not any(difference(folder / file.name, file) for file in files):
        return
    with scratch(folder) as place:
        for file in files:
            if not difference(folder / file.name, file):
                continue
            for attempt in range(retries + 1):
                try:
                    download(url + file.name, place / file.name, file, patience)
                    break
                except DataError as error:
                    if attempt == retries:
                        raise DataError(
                            f"{url}{file.name} {error}: try again, or download it by other means "
                            f"into {folder} and run: mlpkit data verify"
                        ) from error
                    time.sleep(attempt + 1)
            os.replace(place / file.name, folder / file.name)


def download(address: str, target: Path, file: RemoteFile, patience: float) -> None:
    """Write what is at the address to target. DataError where it is not the file."""
    with target.open("wb") as out, progress_bar(file) as advance:
        for block in received(address, file.size, patience):
            out.write(block)
            advance(len(block))
    if what := difference(target, file):
        raise DataError(f"is not SVHN's {file.name}: it {what}")


def received(address: str, size: int, patience: float) -> Iterator[bytes]:
    """What a server sends, no more than a block beyond `size`. DataError where it doesn't."""
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    came, enough, by = 0, 0.0, 0.0
    try:
        with urlopen(address, timeout=patience) as answer:
            while came <= size and (block := answer.read1(BLOCK)):
                came += len(block)
                if came >= enough:
                    enough, by = came + SLOWEST * patience, time.monotonic() + patience
                elif time.monotonic() > by:
                    raise TimeoutError
                yield block
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error) if type(error) is URLError else error
        stalled = isinstance(reason, TimeoutError)
        what = f"stalled after {came} of {size} bytes, for {patience:g} s" if stalled else reason
        if isinstance(error, HTTPError):
            error.close()
        raise DataError(f"could not be fetched ({what})") from error


@contextmanager
def progress_bar(file: RemoteFile) -> Iterator[Callable[[int], None]]:
    """A function of the bytes that came, which shows them on a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    with Progress(
        TextColumn(file.name),
        BarColumn(bar_width=30),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=file.size)
        yield lambda n: bar.advance(task, n)
