"""Reading a .mat file of SVHN's layout, or saying in a sentence what is wrong with it.

The layout is a corner of MATLAB's version 5 format ("MAT-File Format", MathWorks), and this reads
that corner alone: nothing in a file is executed, and no length that it states is believed before it
is held against what is there.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

IMAGE = (32, 32, 3)
LAYOUT = "X uint8 (32, 32, 3, N) and y (N, 1) with labels 1..10"
HEADER = 128  # bytes
# The format's numbers for types of elements, and for classes of matrices.
UINT8, MATRIX, COMPRESSED = 2, 14, 15
NUMBERS = {
    1: "i1", UINT8: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"
}  # fmt: skip
CLASSES = (
    "empty", "cell", "struct", "object", "char", "sparse", "double", "single", "int8", "uint8",
    "int16", "uint16", "int32", "uint32", "int64", "uint64", "function", "opaque",
)  # fmt: skip
LOGICAL, COMPLEX = 0x0200, 0x0800  # flags of a matrix
START = 512  # bytes of a matrix that are looked at for its name, shape and type
CHUNK = 1 << 18
# Packed data of more than so many bytes isn't images where it is so many times as small.
LARGE, RATIO = 32 << 20, 100


class DataError(ValueError):
    """The data can't be used; the message says what was expected, what came and what to do."""


class DamagedError(Exception):
    """What is wrong with a file's bytes."""


class Element(NamedTuple):
    """A part of a file: its number for its type, where its content begins, how long that should be,
    and what is there of it."""

    kind: int
    at: int
    length: int
    content: bytes


@dataclass(frozen=True)
class Variable:
    """A matrix of a file: what its first bytes say, and where it is.

    at, length: of the whole in the file, packed or not; data: its numbers, as stored, unpacked.
    """

    name: str
    kind: str
    flags: int
    shape: tuple[int, ...]
    data: Element
    order: str
    at: int
    length: int
    packed: bool


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
        what = "is a folder, no file" if path.is_dir() else "does not exist"
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


def variables(path: Path) -> Iterator[Variable]:
    """Each matrix of a file. Raises DamagedError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        order = "<" if file.read(HEADER)[126:] == b"IM" else ">"
        while tag := file.read(8):
            kind, length = struct.unpack(f"{order}II", tag) if len(tag) == 8 else (MATRIX, 8)
            at = file.tell()
            if at + length > size:
                raise DamagedError(f"it should have at least {at + length} bytes; it has {size}")
            if kind not in (MATRIX, COMPRESSED):
                raise DamagedError(
                    f"it should hold variables; at byte {at - 8} there is something of type {kind}"
                )
            yield from variable(file, order, at, length, kind == COMPRESSED)
            file.seek(at + length)


def variable(file: BinaryIO, order: str, at: int, length: int, packed: bool) -> Iterator[Variable]:
    """The matrix at a place in a file, from its first bytes; none where it has no name."""
    start, size, before = file.read(min(length, START)), length, 0
    if packed:
        start = zlib.decompressobj().decompress(start, START)
        if len(start) < 8:
            raise DamagedError(f"what is packed at byte {at} is cut short")
        size, before = struct.unpack_from(f"{order}I", start, 4)[0] + 8, 8
    parts = list(elements(start, order, before))
    if len(parts) < 3 or len(parts[0].content) < 4:
        return
    flags, dims, name, data = [*parts, Element(0, 0, 0, b"")][:4]
    if data.at + data.length > size:
        raise DamagedError(f"the variable at byte {at} has {size} bytes, too few for its numbers")
    (bits,) = struct.unpack_from(f"{order}I", flags.content)
    kind = CLASSES[bits & 0xFF] if bits & 0xFF < len(CLASSES) else f"class {bits & 0xFF}"
    yield Variable(
        name.content[:63].decode("latin-1"),
        "logical" if bits & LOGICAL else kind,
        bits,
        struct.unpack_from(f"{order}{len(dims.content) // 4}i", dims.content),
        data,
        order,
        at,
        length,
        packed,
    )


def elements(start: bytes, order: str, at: int) -> Iterator[Element]:
    """The parts that begin in a matrix's first bytes, from `at` on: flags, shape, name and data."""
    while at + 8 <= len(start):
        kind, length = struct.unpack_from(f"{order}II", start, at)
        if kind >> 16:  # a small one: type and length in the first word, content in the second
            kind, length, content, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            content, after = at + 8, at + 8 + -(-length // 8) * 8
        yield Element(kind, content, length, start[content : content + length])
        at = after


def numbers(path: Path, variable: Variable) -> NDArray[Any]:
    """A variable's numbers, flat, as they are stored. Raises DamagedError and zlib.error."""
    data = np.empty(variable.data.length, np.uint8)
    with path.open("rb") as file:
        if variable.packed:
            file.seek(variable.at)
            unpack(file, variable, data)
        else:
            file.seek(variable.at + variable.data.at)
            if file.readinto(data) < len(data):  # type: ignore[arg-type]
                raise DamagedError("it has become shorter while it was read")
    return data.view(variable.order + NUMBERS[variable.data.kind])


def unpack(file: BinaryIO, variable: Variable, data: NDArray[np.uint8]) -> None:
    """Fill data from what is packed, to its end and checksum, a little at a time."""
    unpacker, left, done = zlib.decompressobj(), variable.length, -variable.data.at
    while not unpacker.eof:
        packed = unpacker.unconsumed_tail
        if not packed:
            packed = file.read(min(CHUNK, left))
            left -= len(packed)
        part = unpacker.decompress(packed, CHUNK)
        if not packed and not part:
            raise DamagedError(f"{variable.name}, packed, is cut short")
        wanted = part[max(0, -done) :][: max(0, len(data) - max(0, done))]
        data[max(0, done) :][: len(wanted)] = np.frombuffer(wanted, np.uint8)
        done += len(part)
        if done > len(data) + 7:  # what fills up to 8 bytes
            raise DamagedError(f"{variable.name}, packed, should end after {len(data)} bytes")
    if done < len(data):
        raise DamagedError(f"{variable.name}, packed, should have {len(data)} bytes; it has {done}")


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
