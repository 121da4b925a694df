"""Reading a .mat file of SVHN's layout, or saying in a sentence what is wrong with it."""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .mat5 import COMPLEX, HEADER, NUMBERS, UINT8, DamagedError, Variable, numbers, variables

IMAGE = (32, 32, 3)
LAYOUT = "X uint8 (32, 32, 3, N) and y (N, 1) with labels 1..10"
# What unpacks to more than LARGE bytes, and to more than RATIO times its packed size, is no images.
LARGE, RATIO = 32 << 20, 100


class DataError(ValueError):
    """The data can't be used; the message says what was expected, what came and what to do."""


def read_mat(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images uint8 (N, 32, 32, 3) and labels int64 (N,) in 0..9, the file's 10 as 0.

    Takes little more memory than the images; a file that is refused before they are read, or that
    is packed beyond what images can be, little at all. Raises DataError.
    """
    check_head(path)
    try:
        x, y = find_both(path)
        labels = digits(path, numbers(path, y))
        planes = numbers(path, x).reshape(x.shape[::-1])
    except (DamagedError, zlib.error) as error:
        raise DataError(
            f"{path} is damaged or cut short: {error}: fetch or make it again"
        ) from error
    return images_first(planes.T), labels


def check_head(path: Path) -> None:
    """DataError unless the file starts as MATLAB 5 files do, and goes on as its start says."""
    if not path.is_file():
        what = "is a folder or no ordinary file" if path.exists() else "does not exist"
        raise DataError(
            f"{path} {what}: `mlpkit data fetch` downloads SVHN, `mlpkit data make` makes "
            "its offline stand-in"
        )
    with path.open("rb") as file:
        head = file.read(HEADER)
        if stated := re.search(rb"sha256 ([0-9a-f]{64})", head):  # as synthetic.make writes it
            expected, digest = stated[1].decode(), hashlib.file_digest(file, "sha256").hexdigest()
            if digest != expected:
                raise DataError(
                    f"{path} is damaged: after its header, its SHA-256 should be {expected}, as "
                    f"that says; it is {digest}: make it again"
                )
    if head.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise DataError(f"{path} is a MATLAB 7.3 (HDF5) file; expected version 5: save it with -v7")
    if len(head) == HEADER and head[126:] in (b"IM", b"MI"):
        return
    if not head.strip(b"\0"):
        what = "an empty file" if not head else "filled with zeros"
    elif head.lstrip().startswith(b"<"):
        what = "a web page (HTML)"
    else:
        what = f"something else (it starts with {head[:12]!r})"
    raise DataError(f"{path} should be a MATLAB 5 file with {LAYOUT}; it is {what}: fetch it again")


def find_both(path: Path) -> tuple[Variable, Variable]:
    """X and y, of shapes, types and sizes that fit. Raises DataError and DamagedError."""
    found: dict[str, Variable] = {}
    for variable in variables(path):
        if variable.name in ("X", "y") and variable.name in found:
            raise DamagedError(f"it should hold one {variable.name}; it has two")
        if variable.name in ("X", "y") or len(found) < 12:
            found[variable.name] = variable
    for key in ("X", "y"):
        if key not in found:
            names = [name if name.isidentifier() else ascii(name) for name in found]
            raise DataError(
                f"{path} should hold {LAYOUT}; it lacks {key}: it has "
                f"{', '.join(names) or 'nothing'}: make it again so"
            )
    x, y = found["X"], found["y"]
    if len(x.shape) != 4 or x.shape[:3] != IMAGE or x.kind != "uint8":
        raise DataError(
            f"{path}: X should be uint8 (32, 32, 3, N); it is {x.kind} {x.shape}: save it so"
        )
    n = x.shape[3]
    if n < 1:
        raise DataError(f"{path} should hold images; it holds none, X is {x.shape}: make it again")
    numeric = y.kind.startswith(("int", "uint", "single", "double"))
    if y.shape not in ((n, 1), (1, n)) or not numeric:
        raise DataError(
            f"{path}: y should be numbers ({n}, 1), one for each image in X; it is {y.kind} "
            f"{y.shape}: save it so"
        )
    for part, types in ((x, (UINT8,)), (y, tuple(NUMBERS))):
        kind, length = part.data.kind, part.data.length
        if part.flags & COMPLEX or kind not in types:
            raise DamagedError(
                f"{part.name} should be stored as real numbers, uint8 for X; its type is {kind}, "
                f"its flags {part.flags:#x}"
            )
        expected = math.prod(part.shape) * np.dtype(NUMBERS[kind]).itemsize
        if length != expected:
            raise DamagedError(f"{part.name} should take {expected} bytes; it takes {length}")
        if part.packed and length > max(LARGE, RATIO * part.length):
            raise DataError(
                f"{path}: {part.name} unpacks from {part.length} bytes to {length}, as images and "
                f"labels don't; at most {RATIO} times as much is read: save it without compression"
            )
    return x, y


def images_first(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(32, 32, 3, N) in MATLAB's order to (N, 32, 32, 3) in C's, in the same memory, so that the
    whole set is never held twice."""
    planes = np.ascontiguousarray(x.T)  # (N, 3, 32, 32): channel, column, row; no copy
    flat = planes.reshape(len(planes), -1)
    for start in range(0, len(planes), 1024):
        part = slice(start, start + 1024)
        flat[part] = planes[part].transpose(0, 3, 2, 1).reshape(-1, flat.shape[1])
    return flat.reshape(-1, *IMAGE)


def digits(path: Path, labels: NDArray[Any]) -> NDArray[np.int64]:
    """The file's labels 1..10 as the digits shown, 10 as 0."""
    wrong = ~np.isin(labels, np.arange(1, 11))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(
            f"{path}: labels should be 1..10 (10 for the digit 0); y[{at}] is {labels[at]}: mend "
            "the labels, or fetch or make it again"
        )
    return labels.astype(np.int64) % 10
