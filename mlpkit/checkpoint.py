"""Arrays on disk: safetensors with a checksum of each tensor and of the header. No pickle.

The format (https://github.com/huggingface/safetensors): the header's length, 8 bytes of a
little-endian number; the header, a JSON object that gives each tensor's dtype, shape and place,
padded with spaces; the tensors, one after another. Its `__metadata__`, text by name, holds here the
SHA-256 of every tensor and of the header itself, length and padding included, computed with its own
64 digits as zeros. So no bit of a file can change unseen, and anyone's reader of safetensors reads
it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from .files import atomic

HostArray = np.ndarray[Any, Any]

DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
# Two marks, so that no one changed bit makes a file of ours look like somebody else's.
MARK, HEADER_SUM = "mlpkit.format", "mlpkit.header.sha256"
TENSOR_SUM = "mlpkit.sha256."  # and the tensor's name
HEADER_LIMIT = 1 << 20  # bytes; a network of thousands of layers has less
LARGEST = 2**63 - 1  # bytes of a NumPy array, dimensions of 0 not counted
PIECE = 1 << 20  # bytes hashed or read at a time
DAMAGED = "is damaged or no safetensors file"


class CheckpointError(ValueError):
    """A file of weights can't be used; the message says what is wrong with it."""


def save_weights(
    path: str | Path,
    arrays: Mapping[str, HostArray],
    metadata: Mapping[str, str] | None = None,
    *,
    previous: Path | None = None,
) -> None:
    """Write host arrays by name, and text by name, whole or not at all. previous: where the file
    that was there goes.

    The arrays' own memory is written: there is no copy of the whole. The same arrays and text give
    the same bytes. ValueError for a path with the suffix of another format, for a dtype that the
    format has no name for and for a name that is mlpkit's own, TypeError for metadata that isn't
    text.
    """
    path = Path(path)
    if path.suffix not in ("", ".safetensors"):
        raise ValueError(f"weights are saved as .safetensors; got {path}: name it so")
    if not isinstance(arrays, Mapping):
        raise TypeError(f"save_weights takes arrays by name; got {type(arrays).__name__}")
    for name, a in arrays.items():
        if not isinstance(name, str) or name == "__metadata__":
            raise ValueError(f"an array can't be saved as {name!r}: give it another name, as text")
        if not isinstance(a, np.ndarray | np.generic):
            raise TypeError(
                f"{name} should be a NumPy array, as backend.to_numpy gives; got {type(a).__name__}"
            )
    for name, text in (metadata or {}).items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError(f"metadata is text by name; got {name!r}: {text!r}: give str({text!r})")
        if name in (MARK, HEADER_SUM) or name.startswith(TENSOR_SUM):
            raise ValueError(f"{name!r} is written by save_weights itself: give it another name")
    whole = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in arrays.items()}
    header = make_header(whole, metadata or {})
    with atomic(path, previous) as temporary, temporary.open("wb") as file:
        file.write(header)
        for a in whole.values():
            file.write(as_bytes(a))


def make_header(arrays: Mapping[str, HostArray], metadata: Mapping[str, str]) -> bytes:
    """The bytes before the tensors."""
    sums = {
        TENSOR_SUM + name: hashlib.sha256(as_bytes(a)).hexdigest() for name, a in arrays.items()
    }
    content: dict[str, Any] = {
        "__metadata__": {MARK: "1", HEADER_SUM: "0" * 64, **metadata, **sums}
    }
    end = 0
    for name, a in arrays.items():
        if a.dtype not in NAMES:
            raise ValueError(f"safetensors has no name for {name}'s dtype, {a.dtype}")
        start, end = end, end + a.nbytes
        content[name] = {
            "dtype": NAMES[a.dtype],
            "shape": list(a.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 64)  # so that tensors begin with a cache line
    if len(text) > HEADER_LIMIT:
        raise ValueError(f"the names and texts of a file may have {HEADER_LIMIT} bytes; got more")
    header = len(text).to_bytes(8, "little") + text
    return header.replace(sum_entry("0" * 64), sum_entry(sum_of(header)), 1)


def as_bytes(a: HostArray) -> memoryview:
    """The array's memory; it must be in C's order."""
    return a.reshape(-1).view(np.uint8).data


def sum_of(header: bytes) -> str:
    """The SHA-256 of a header whose own digits are zeros."""
    return hashlib.sha256(header).hexdigest()


def sum_entry(digits: str) -> bytes:
    """The header's digits as they stand in it."""
    return f'"{HEADER_SUM}":"{digits}"'.encode()


def load_weights(path: str | Path, *, checked: bool = False) -> dict[str, HostArray]:
    """Host arrays by name. Raises CheckpointError.

    A file that mlpkit wrote must have the checksums that it carries; others are taken as they are,
    unless `checked` says that it must be mlpkit's.
    """
    with reading(Path(path), checked=checked) as file:
        return {name: file.read(name) for name in file.entries}


@contextmanager
def reading(path: Path, *, checked: bool) -> Iterator[TensorFile]:
    """The file, open and verified, to read its tensors one at a time. Raises CheckpointError, also
    for what goes wrong in the block with reading."""
    if path.is_dir() or not path.exists():
        what = "there is a folder" if path.is_dir() else "there are no weights"
        raise CheckpointError(f"{what} at {path}: expected a .safetensors file")
    if path.suffix == ".npz":
        raise CheckpointError(f"{path} is an .npz; expected a .safetensors file: use numpy.load")
    if not path.is_file():  # to open a pipe would wait for its writer
        raise CheckpointError(f"{path} is no ordinary file: expected a .safetensors file")
    try:
        with path.open("rb") as file:
            yield TensorFile(path, file, checked)
    except OSError as error:
        if error.filename not in (None, str(path)):
            raise
        raise CheckpointError(f"{path} can't be read: {error.strerror}") from error


class TensorFile:
    """An open safetensors file: `entries`, a Tensor by name, and `metadata`, text by name.

    Nothing is believed before it is checked against the file's size, so that what a header only
    claims takes no memory. Raises CheckpointError.
    """

    def __init__(self, path: Path, file: IO[bytes], checked: bool) -> None:
        self.path, self.file = path, file
        size = os.fstat(file.fileno()).st_size
        self.start = 8 + int.from_bytes(file.read(8), "little")
        if size < 8 or self.start > size:
            raise self.damaged(f"its {size} bytes are fewer than its header says")
        if self.start > 8 + HEADER_LIMIT:
            raise self.damaged(f"its header should have at most {HEADER_LIMIT} bytes")
        text = file.read(self.start - 8)
        self.metadata, self.entries = self.parse(text, size - self.start)
        ours = MARK in self.metadata or HEADER_SUM in self.metadata
        if checked and not ours:
            raise CheckpointError(
                f"{path} has no checksums, so it is not as mlpkit wrote it: train again"
            )
        if ours:
            self.verify(text)

    def damaged(self, why: str) -> CheckpointError:
        """The error that says so."""
        return CheckpointError(f"{self.path} {DAMAGED}: {why}")

    def parse(self, text: bytes, room: int) -> tuple[dict[str, str], dict[str, Tensor]]:
        """The header's metadata and tensors, of which there is room bytes."""
        try:
            content = json.loads(text.decode(), object_pairs_hook=without_doubles)
        except (ValueError, RecursionError) as error:
            raise self.damaged("its header is no JSON of unique names") from error
        if not isinstance(content, dict) or text[:1] != b"{":
            raise self.damaged("its header is no JSON object")
        metadata = content.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(
            isinstance(value, str) for value in metadata.values()
        ):
            raise self.damaged("its metadata is no text by name")
        entries = {name: self.entry(name, value, room) for name, value in content.items()}
        end = 0
        for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.end)):
            if entry.start != end:
                raise self.damaged("its tensors are not one after another")
            end = entry.end
        if end != room:
            raise self.damaged(f"its tensors take {end} bytes, and there are {room}")
        return metadata, entries

    def entry(self, name: str, value: Any, room: int) -> Tensor:
        """A tensor's place as the header gives it."""
        what = f"the entry of {name!r}"
        if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
            raise self.damaged(f"{what} should have dtype, shape and data_offsets")
        if not isinstance(value["dtype"], str) or value["dtype"] not in DTYPES:
            raise self.damaged(f"{what} should have a dtype of {', '.join(DTYPES)}")
        shape, places = value["shape"], value["data_offsets"]
        # Beside a 0, a dimension may be larger than the file.
        for numbers, most in ((shape, LARGEST), (places, room)):
            if not isinstance(numbers, list) or not all(
                type(n) is int and 0 <= n <= most for n in numbers
            ):
                raise self.damaged(f"{what} has numbers that can't be in a file of this size")
        if len(shape) > 32 or len(places) != 2:
            raise self.damaged(f"{what} should have two data_offsets and at most 32 dimensions")
        dtype = np.dtype(DTYPES[value["dtype"]])
        if math.prod(n or 1 for n in shape) * dtype.itemsize > LARGEST:
            raise self.damaged(f"{what} has a shape that no array can have")
        if math.prod(shape) * dtype.itemsize != places[1] - places[0]:
            raise self.damaged(f"{what} has another size than its shape")
        return Tensor(dtype, tuple(shape), *places)

    def verify(self, text: bytes) -> None:
        """Check the sums of the header and of every tensor."""
        said = self.metadata.get(HEADER_SUM, "")
        header = len(text).to_bytes(8, "little") + text
        zeroed = header.replace(sum_entry(said), sum_entry("0" * 64), 1)
        if self.metadata.get(MARK) != "1" or len(said) != 64 or sum_of(zeroed) != said:
            raise self.damaged("its header does not have the checksum that it carries")
        for name in self.entries:
            total = hashlib.sha256()
            for piece in self.pieces(name):
                total.update(piece)
            if total.hexdigest() != self.metadata.get(TENSOR_SUM + name):
                raise self.damaged(f"{name} does not have the checksum that the header gives it")

    def pieces(self, name: str) -> Iterator[bytes]:
        """A tensor's bytes, a piece at a time."""
        entry = self.entries[name]
        self.file.seek(self.start + entry.start)
        for first in range(entry.start, entry.end, PIECE):
            piece = self.file.read(min(PIECE, entry.end - first))
            if not piece:
                raise self.damaged("it became shorter while it was read")
            yield piece

    def read(self, name: str) -> HostArray:
        """A tensor as a new array."""
        entry = self.entries[name]
        new = np.empty(entry.shape, entry.dtype)
        into, done = as_bytes(new), 0
        for piece in self.pieces(name):
            into[done : done + len(piece)] = piece
            done += len(piece)
        return new


class Tensor(NamedTuple):
    """A tensor's dtype, shape, and place among the tensors in bytes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    end: int


def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError where a name comes twice."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a name comes twice")
    return content
