"""Arrays across a pipe: what is packed comes back, and what is no frame is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mlpkit.grading.protocol import (
    ARRAYS,
    DTYPES,
    HEADER_BYTES,
    MAGIC,
    NAME_LENGTH,
    ProtocolError,
    pack,
    unpack,
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3)])
def test_what_is_packed_comes_back(dtype: str, shape: tuple[int, ...]) -> None:
    a = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    about, arrays = unpack(pack({"task": "ü", "n": 1}, {"a": a, "b": a.T}))
    assert about == {"task": "ü", "n": 1}
    np.testing.assert_array_equal(arrays["a"], a, strict=True)
    np.testing.assert_array_equal(arrays["b"], a.T, strict=True)


@pytest.mark.parametrize("a", [np.array([object()]), np.array(["a"]), np.array([1j])])
def test_only_numbers_are_packed(a: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(ProtocolError, match="should hold numbers"):
        pack({}, {"a": a})


def frame(header: object, body: bytes = b"") -> bytes:
    content = json.dumps(header).encode()
    return MAGIC + len(content).to_bytes(8, "little") + content + body


# Rows of arrays that can't be.
ROWS = [
    [["a", "<f8", [1 << 40]]],
    [["a", "<f8", [1 << 20, 1 << 20]]],
    [["a", "<f8", [-1]]],
    [["a", "<f8", [True]]],
    [["a", "<f8", [1.0]]],
    [["a", "|O", [1]]],
    [["a", ["<f8"], [1]]],
    [["a" * (NAME_LENGTH + 1), "<f8", [0]]],
    [["a", "<f8", [0]], ["a", "<f8", [0]]],
    [[str(i), "<f8", [0]] for i in range(ARRAYS + 1)],
    [["a", "<f8", [1] * 9]],
    ["a"],
]


@pytest.mark.parametrize("rows", ROWS)
def test_rows_that_cannot_be(rows: object) -> None:
    with pytest.raises(ProtocolError):
        unpack(frame({"about": {}, "arrays": rows}))


def test_a_huge_header() -> None:
    with pytest.raises(ProtocolError, match="this one says"):
        unpack(MAGIC + (HEADER_BYTES + 1).to_bytes(8, "little"))


def test_mutated_frames_raise_nothing_else() -> None:
    rng = np.random.default_rng(0)
    whole = pack({"error": ""}, {"a": np.arange(12.0).reshape(3, 4), "b": np.arange(3)})
    refused = 0
    for _ in range(4000):
        mutated = bytearray(whole)
        for at in rng.integers(len(mutated), size=rng.integers(1, 6)):
            mutated[at] = rng.integers(256)
        del mutated[len(mutated) - int(rng.integers(3)) :]
        try:
            unpack(mutated)
        except ProtocolError:
            refused += 1
    assert refused > 2000
