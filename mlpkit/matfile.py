"""Reading a .mat file of SVHN's layout, or saying in a sentence what is wrong with it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGE = (32, 32, 3)
LAYOUT = "X uint8 (32, 32, 3, N) and y (N, 1) with labels 1..10"
# MATLAB 5's numbers for types of elements, from its file format's manual.
UINT8, MATRIX, COMPRESSED = 2, 14, 15
NUMBERS = (1, UINT8, 3, 4, 5, 6, 7, 9, 12, 13)
COMPLEX = 0x0800  # a flag of a matrix


class DataError(ValueError):
    """The data can't be used; the message says what was expected, what came and what to do."""


def read_mat(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images uint8 (N, 32, 32, 3) and labels int64 (N,) in 0..9, the file's 10 as 0.

    The file's head is looked at before scipy parses it, and its shapes before X is read. Takes
    little more memory than the images. Raises DataError.
    """
    import scipy.io

    check_head(path)
    try:
        starts = list(matrices(path))
        listing = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(path)}
        check_listing(path, listing)
        check_types(path, starts)
        content = scipy.io.loadmat(path, variable_names=["X", "y"])
    except DataError:
        raise
    except Exception as error:  # scipy's parser fails in many ways on a damaged file
        raise DataError(
            f"{path} is damaged or cut short ({type(error).__name__}: {error}): fetch or make it "
            "again"
        ) from error
    return images_first(content["X"]), digits(path, content["y"])


def check_head(path: Path) -> None:
    """DataError unless the file starts as MATLAB 5 files do."""
    if not path.is_file():
        what = "is a folder, no file" if path.is_dir() else "does not exist"
        raise DataError(
            f"{path} {what}: `mlpkit data fetch` downloads SVHN, `mlpkit data make` makes "
            "its offline stand-in"
        )
    with path.open("rb") as file:
        head = file.read(128)
    if head.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise DataError(f"{path} is a MATLAB 7.3 (HDF5) file; expected version 5: save it with -v7")
    if len(head) == 128 and head[126:128] in (b"IM", b"MI"):
        return
    if not head.strip(b"\0"):
        what = "an empty file" if not head else "filled with zeros"
    elif head.lstrip().startswith(b"<"):
        what = "a web page (HTML)"
    else:
        what = f"something else (it starts with {head[:12]!r})"
    raise DataError(f"{path} should be a MATLAB 5 file with {LAYOUT}; it is {what}: fetch it again")


def check_listing(path: Path, listing: dict[str, tuple[tuple[int, ...], str]]) -> None:
    """DataError unless X and y are there with shapes and types that fit."""
    for key in ("X", "y"):
        if key not in listing:
            raise DataError(
                f"{path} should hold {LAYOUT}; it lacks {key}: it has "
                f"{', '.join(listing) or 'nothing'}: make it again so"
            )
    (x_shape, x_kind), (y_shape, y_kind) = listing["X"], listing["y"]
    if len(x_shape) != 4 or x_shape[:3] != IMAGE or x_kind != "uint8":
        raise DataError(
            f"{path}: X should be uint8 (32, 32, 3, N); it is {x_kind} {x_shape}: save it so"
        )
    n = x_shape[3]
    if n < 1:
        raise DataError(f"{path} should hold images; it holds none, X is {x_shape}: make it again")
    numeric = y_kind.startswith(("int", "uint", "single", "double"))
    if tuple(y_shape) not in ((n, 1), (1, n)) or not numeric:
        raise DataError(
            f"{path}: y should be numbers ({n}, 1), one for each image in X; it is {y_kind} "
            f"{y_shape}: save it so"
        )


def check_types(path: Path, starts: Iterable[tuple[str, bytes]]) -> None:
    """DataError where the data of X or y isn't stored as real numbers: scipy's parser takes the
    types on trust, and one that a damaged file makes up ends the process."""
    for order, start in starts:
        parts = list(elements(start, order))
        if len(parts) > 3 and (name := parts[2][1]) in (b"X", b"y"):
            (flags,) = struct.unpack(f"{order}I", parts[0][1][:4])
            if flags & COMPLEX or parts[3][0] not in ((UINT8,) if name == b"X" else NUMBERS):
                raise DataError(
                    f"{path} is damaged: {name.decode()} should be stored as real numbers, "
                    f"uint8 for X; its type is {parts[3][0]}, its flags {flags:#x}: fetch or "
                    "make it again"
                )


def matrices(path: Path) -> Iterator[tuple[str, bytes]]:
    """The byte order and the first bytes of each matrix in a file; DataError where one is cut
    short."""
    size = path.stat().st_size
    with path.open("rb") as file:
        order = "<" if file.read(128)[126:] == b"IM" else ">"
        while tag := file.read(8):
            kind, length = struct.unpack(f"{order}II", tag) if len(tag) == 8 else (MATRIX, 8)
            following = file.tell() + length
            if following > size:
                raise DataError(
                    f"{path} is cut short: it should have at least {following} bytes; it has "
                    f"{size}: fetch or make it again"
                )
            if kind not in (MATRIX, COMPRESSED):
                raise DataError(
                    f"{path} is damaged: it should hold variables; at byte {following - length - 8}"
                    f" there is something of type {kind}: fetch or make it again"
                )
            start = file.read(min(length, 512))
            if kind == COMPRESSED:
                start = zlib.decompressobj().decompress(start, 512)[8:]
            yield order, start
            file.seek(following)


def elements(start: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """The type and the content, as far as it goes, of each part that begins in a matrix's start:
    its flags, shape, name and data."""
    at = 0
    while at + 8 <= len(start):
        kind, length = struct.unpack_from(f"{order}II", start, at)
        if kind >> 16:  # a small one: type and length in the first word, content in the second
            kind, length, content, size = kind & 0xFFFF, kind >> 16, at + 4, 8
        else:
            content, size = at + 8, 8 + -(-length // 8) * 8
        yield kind, start[content : content + length]
        at += size


def images_first(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(32, 32, 3, N) in MATLAB's order to (N, 32, 32, 3) in C's, in the same memory, so that the
    whole set is never held twice."""
    planes = np.ascontiguousarray(x.T)  # (N, 3, 32, 32): channel, column, row; no copy
    flat = planes.reshape(len(planes), -1)
    for start in range(0, len(planes), 1024):
        part = slice(start, start + 1024)
        flat[part] = planes[part].transpose(0, 3, 2, 1).reshape(-1, flat.shape[1])
    return flat.reshape(-1, *IMAGE)


def digits(path: Path, y: NDArray[Any]) -> NDArray[np.int64]:
    """The file's labels 1..10 as the digits shown, 10 as 0."""
    labels = y.ravel()
    wrong = ~np.isin(labels, np.arange(1, 11))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(
            f"{path}: labels should be 1..10 (10 for the digit 0); y[{at}] is {labels[at]}: mend "
            "the labels, or fetch or make it again"
        )
    return labels.astype(np.int64) % 10
