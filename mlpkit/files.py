"""Files that are whole or not there, whatever happens, and folders that one process writes."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows, which then has no lock
    fcntl = None  # type: ignore[assignment]

TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


@contextmanager
def atomic(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """A temporary path beside `path`, or what it links to, moved onto it when the block ends well,
    removed when not. After the block the file is on the disk, as far as the system tells the truth:
    a loss of power leaves the old file or the new one. previous: where the old one goes; between
    the two moves it is there, and none at `path`. What is no ordinary file, as /dev/null or a pipe,
    stays what it is, and is written into."""
    if is_other(path):
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / path.name
            yield temporary
            with temporary.open("rb") as made, naming(path), path.open("wb") as file:
                shutil.copyfileobj(made, file)
        return
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        if error.filename in (str(temporary), temporary, None):
            error.filename = str(path)  # the name that the user knows
            del error.filename2
        raise
    finally:
        with suppress(OSError):  # a later start removes it
            temporary.unlink(missing_ok=True)


def is_other(path: Path) -> bool:
    """Whether there is something that is neither a file nor a folder: a device or a pipe."""
    return path.exists() and not path.is_file() and not path.is_dir()


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name != "posix" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        with naming(path):
            os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """What goes wrong with an open file says which it is."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def read_small(path: Path, most: int = 1 << 24) -> bytes:
    """A file's bytes. ValueError where there are more than `most`, which would only fill memory."""
    with path.open("rb") as file, naming(path):
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path} has more than {most} bytes, as no such file has: name another")
    return content


def is_temporary(path: Path) -> bool:
    """Whether it is what a process that was killed in `atomic` may have left."""
    return TEMPORARY.fullmatch(path.name) is not None


def remove_temporaries(folder: Path) -> None:
    """Remove what killed processes have left; for the one process that writes the folder."""
    for path in filter(is_temporary, folder.iterdir()):
        path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, *, wait: Callable[[], None] | None = None) -> Iterator[bool]:
    """Within the block, no other process gets into one of the same folder: it gets a
    BlockingIOError or, given `wait`, calls that and waits. The lock goes with the process, however
    that ends. Yields False where the operating system or the folder's file system has no locks."""
    if fcntl is None:
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                yield False  # some network file systems have none
                return
            if wait is None:
                raise BlockingIOError(
                    errno.EWOULDBLOCK, "another process is at work in it", str(folder)
                ) from error
            wait()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield True
    finally:
        os.close(handle)
