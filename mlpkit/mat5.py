"""MATLAB's version 5 format ("MAT-File Format", MathWorks), as far as arrays of real numbers go.

Nothing in a file is executed, and no length that it states is believed before it is held against
what is there.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

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
    """The parts that begin in a matrix's first bytes, from `at` on: flags, shape, name and data.
    Raises DamagedError."""
    while at + 8 <= len(start):
        kind, length = struct.unpack_from(f"{order}II", start, at)
        if kind >> 16:  # a small one: type and length in the first word, content in the second
            kind, length, content, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
            if length > 4:
                raise DamagedError(f"4 bytes are all that a small element has; one has {length}")
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
