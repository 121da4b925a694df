"""Arrays across a pipe: a JSON header behind its length, then raw bytes. Nothing is pickled.

A submission's child runs this file by itself, so it imports the standard library and NumPy alone.
A frame is MAGIC, the header's length (8 bytes, little-endian), the header, then each array's bytes
in C order. The header holds `about` (text and numbers by name) and `arrays` ([name, dtype, shape]).
Every limit is checked before anything of that size is made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

MAGIC = b"MLPGRADE"
HEADER_BYTES = 1 << 20
ARRAYS = 512
NAME_LENGTH = 200
DIMENSIONS = 8
TOTAL_BYTES = 256 << 20
LARGEST_FRAME = len(MAGIC) + 8 + HEADER_BYTES + TOTAL_BYTES
DTYPES = ("<f4", "<f8", "<i4", "<i8", "|u1", "|b1")
Array = np.ndarray[Any, Any]


class ProtocolError(ValueError):
    """A frame isn't one; the message says what was expected and what came."""


def pack(about: Mapping[str, Any], arrays: Mapping[str, Array]) -> bytes:
    """A frame. ProtocolError for what it can't hold."""
    rows, parts = [], []
    for name, value in arrays.items():
        a = np.asarray(value)
        a = a.astype(a.dtype.newbyteorder("<"), order="C", copy=False)
        if a.dtype.str not in DTYPES:
            raise ProtocolError(
                f"the array {str(name)[:NAME_LENGTH]!r} should hold numbers of one of "
                f"{', '.join(DTYPES)}; it holds {a.dtype}"
            )
        rows.append([str(name), a.dtype.str, list(a.shape)])
        parts.append(a)
    check_rows(rows)
    header = json.dumps({"about": dict(about), "arrays": rows}).encode()
    check_header_length(len(header))
    return b"".join(
        [MAGIC, len(header).to_bytes(8, "little"), header, *(a.tobytes() for a in parts)]
    )


def unpack(frame: bytes | bytearray) -> tuple[dict[str, Any], dict[str, Array]]:
    """`about` and the arrays of a frame, copies. ProtocolError for anything else."""
    start = len(MAGIC) + 8
    if len(frame) < start or bytes(frame[: len(MAGIC)]) != MAGIC:
        raise ProtocolError(f"an answer should begin with {MAGIC!r}; {len(frame)} other bytes came")
    length = int.from_bytes(frame[len(MAGIC) : start], "little")
    check_header_length(length)
    about, rows = read_header(bytes(frame[start : start + length]), length)
    sizes = check_rows(rows)
    if len(frame) - start - length != sum(sizes):
        raise ProtocolError(
            f"the arrays should take {sum(sizes)} bytes; {len(frame) - start - length} came"
        )
    arrays, at = {}, start + length
    for (name, dtype, shape), size in zip(rows, sizes, strict=True):
        arrays[name] = np.frombuffer(bytes(frame[at : at + size]), dtype).reshape(shape).copy()
        at += size
    return about, arrays


def read_header(content: bytes, length: int) -> tuple[dict[str, Any], list[Any]]:
    """`about` and the rows of `arrays`, not checked yet."""
    if len(content) != length:
        raise ProtocolError(f"the header should take {length} bytes; {len(content)} came")
    try:
        header = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(
            f"the header should be JSON; it isn't ({type(error).__name__})"
        ) from error
    if not isinstance(header, dict) or header.keys() != {"about", "arrays"}:
        raise ProtocolError("the header should be an object of about and arrays alone")
    if not isinstance(header["about"], dict) or not isinstance(header["arrays"], list):
        raise ProtocolError("the header's about should be an object, its arrays a list")
    return header["about"], header["arrays"]


def check_header_length(length: int) -> None:
    """ProtocolError for a header that is too long."""
    if length > HEADER_BYTES:
        raise ProtocolError(f"a header may take {HEADER_BYTES} bytes; this one says {length}")


def check_rows(rows: list[Any]) -> list[int]:
    """The arrays' sizes in bytes. ProtocolError where a row is none, or all are too many."""
    if len(rows) > ARRAYS:
        raise ProtocolError(f"at most {ARRAYS} arrays may come at once; there are {len(rows)}")
    sizes, names = [], set()
    for row in rows:
        if not isinstance(row, list) or len(row) != 3:
            raise ProtocolError("an array's row should be its name, dtype and shape")
        name, dtype, shape = row
        if not isinstance(name, str) or len(name) > NAME_LENGTH or name in names:
            raise ProtocolError(f"names should be unlike, and of {NAME_LENGTH} characters at most")
        names.add(name)
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise ProtocolError(f"a dtype should be one of {', '.join(DTYPES)}")
        sizes.append(np.dtype(dtype).itemsize * elements(shape))
        if sum(sizes) > TOTAL_BYTES:
            raise ProtocolError(f"the arrays may take {TOTAL_BYTES} bytes in all; these take more")
    return sizes


def elements(shape: Any) -> int:
    """How many elements a shape has. ProtocolError where it is none."""
    if not isinstance(shape, list) or len(shape) > DIMENSIONS:
        raise ProtocolError(f"a shape should be a list of {DIMENSIONS} lengths at most")
    if not all(type(n) is int and 0 <= n <= TOTAL_BYTES for n in shape):
        raise ProtocolError(f"a shape's lengths should be whole numbers from 0 to {TOTAL_BYTES}")
    return math.prod(shape)
