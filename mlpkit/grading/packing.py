"""A submission brought to a place where a child may read it and not write: folder, .zip or .py."""

from __future__ import annotations

import mmap
import os
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from .submissions import NOTEBOOK, beside

MEMBERS = 2000
TOTAL_BYTES = 50_000_000
CHUNK = 1 << 16
# What zipfile raises for a damaged or encrypted zip, or one packed as it or we don't take.
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError, OSError
)  # fmt: skip


class SubmissionError(ValueError):
    """A submission can't be taken; the message says why."""


def bring(source: Path, place: Path) -> Path:
    """Copy or extract a submission into a new folder; the folder or module to be loaded.

    A .zip's single top-level folder is entered. Links aren't followed. Raises SubmissionError.
    """
    place.mkdir()
    if source.is_dir():
        copy_folder(source, place)
    elif not source.is_file():  # a pipe would be waited for
        raise SubmissionError(what_it_is(source))
    elif zipfile.is_zipfile(source):
        extract(source, place)
    elif source.suffix == ".py":
        room = Room()
        with source.open("rb") as file:
            room.write(file, place / source.name)
        return place / source.name
    else:
        raise SubmissionError(what_it_is(source))
    entries = [path for path in place.iterdir() if not beside(path)]
    return (
        entries[0]
        if len(entries) == 1 and entries[0].is_dir() and entries[0].name != "lib"
        else place
    )


def what_it_is(source: Path) -> str:
    """Why a path that is no folder, .zip or .py file can't be taken."""
    if not source.exists():
        return f"{source} does not exist: name a folder, a .zip or a .py file"
    if source.suffix == ".zip":
        return f"{source} is not a readable zip: zip it again"
    if source.suffix == ".ipynb":
        return NOTEBOOK
    return f"{source} should be a folder, a .zip or a .py file; it is none"


class Room:
    """How much may still be written, by what is."""

    def __init__(self) -> None:
        self.members, self.left = 0, TOTAL_BYTES

    def count(self) -> None:
        """SubmissionError where there are too many members."""
        self.members += 1
        if self.members > MEMBERS:
            raise SubmissionError(f"at most {MEMBERS} files and folders are taken; it has more")

    def write(self, file: IO[bytes], target: Path) -> None:
        """Copy an open file, whatever size it says it has."""
        with target.open("xb") as out:
            while chunk := file.read(CHUNK):
                self.left -= len(chunk)
                if self.left < 0:
                    raise SubmissionError(
                        f"a submission may take {TOTAL_BYTES} bytes; it takes more: leave data out"
                    )
                out.write(chunk)


def copy_folder(source: Path, place: Path) -> None:
    """Copy regular files, without what git and Python keep beside them."""
    room = Room()
    for folder, names, files in os.walk(source):
        names[:] = [n for n in names if n not in (".git", "__pycache__", ".venv")]
        names[:] = [n for n in names if not (Path(folder) / n).is_symlink()]
        target = place / Path(folder).relative_to(source)
        target.mkdir(exist_ok=True)
        room.count()
        for name in files:
            path = Path(folder) / name
            if path.is_file() and not path.is_symlink():
                room.count()
                with path.open("rb") as file:
                    room.write(file, target / name)


def extract(source: Path, place: Path) -> None:
    """Extract a zip whose members all stay in the folder."""
    room = Room()
    try:
        check_members(source)
        with zipfile.ZipFile(source) as archive:
            for member in archive.infolist():
                room.count()
                target = place / safe(member)
                is_folder = member.filename.endswith(("/", "\\"))
                folder = target if is_folder else target.parent
                folder.mkdir(parents=True, exist_ok=True)
                if not is_folder:
                    with open_member(archive, member) as file:
                        room.write(file, target)
    except SubmissionError:
        raise
    except UNREADABLE as error:
        raise SubmissionError(f"{source} can't be extracted: {error}; zip it again") from error


def check_members(source: Path) -> None:
    """SubmissionError for a zip that lists more members than may be held."""
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        room, at = Room(), -1
        while (at := content.find(b"PK\1\2", at + 1)) >= 0:  # one of its list
            room.count()


def open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    """A member, stored or deflated as any program does it: other methods may take gigabytes."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NotImplementedError(f"{member.filename!r} is neither stored nor deflated")
    return archive.open(member)


def safe(member: zipfile.ZipInfo) -> PurePosixPath:
    """A member's path, which Windows may have written with backslashes. SubmissionError where it
    leaves the folder, or is a link."""
    path = PurePosixPath(member.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise SubmissionError(f"the zip has a member {member.filename!r} that leaves its folder")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise SubmissionError(f"the zip has a member {member.filename!r} that is a link or device")
    return path


def remove(place: Path) -> None:
    """Remove a folder and all in it, whatever rights its files have."""
    shutil.rmtree(place, ignore_errors=True)
    if place.exists():
        for folder, _, _ in os.walk(place):
            os.chmod(folder, 0o700)
        shutil.rmtree(place)
