"""Reading .mat files of SVHN's layout: what good ones hold, what is said about bad ones."""

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from mlpkit import cli
from mlpkit.matfile import DataError, images_first, read_mat

N = 12
RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (32, 32, 3, N), dtype=np.uint8)
Y = np.array([10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1], dtype=np.uint8)
DIGITS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


def mat(**content: Any) -> Callable[[Path], None]:
    """What writes those variables, X and y where they aren't named."""
    return lambda path: savemat(path, {"X": X, "y": Y.reshape(-1, 1)} | content)


def element(order: str, kind: int, content: bytes) -> bytes:
    """An element of MATLAB's version 5 format: type, length, content, padding to 8 bytes."""
    return struct.pack(f"{order}II", kind, len(content)) + content + bytes(-len(content) % 8)


def variable(order: str, name: bytes, array: NDArray[Any], kind: int, flags: int = 0) -> bytes:
    """A uint8 matrix (class 9), its data stored as `kind`."""
    return element(
        order,
        14,
        element(order, 6, struct.pack(f"{order}II", 9 | flags, 0))
        + element(order, 5, struct.pack(f"{order}{array.ndim}i", *array.shape))
        + element(order, 1, name)
        + element(order, kind, array.tobytes(order="F")),
    )


def handmade(order: str = "<", kind: int = 2, flags: int = 0, packed: bool = False) -> bytes:
    """A file written after the format's manual; kind and flags are X's."""
    mark = struct.pack(f"{order}HH", 0x0100, 0x4D49)
    parts = [
        variable(order, b"X", X, kind, flags),
        variable(order, b"y", Y.reshape(-1, 1), 2),
    ]
    if packed:
        packed_parts = [zlib.compress(part) for part in parts]
        parts = [struct.pack(f"{order}II", 15, len(part)) + part for part in packed_parts]
    return b"MATLAB 5.0 MAT-file".ljust(124) + mark + b"".join(parts)


def saved(**options: Any) -> bytes:
    """The bytes of a good file by scipy."""
    from io import BytesIO

    file = BytesIO()
    savemat(file, {"X": X, "y": Y.reshape(-1, 1)}, **options)
    return file.getvalue()


def expected_images(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """images[n, h, w, c] = X[h, w, c, n], element by element."""
    images = np.zeros((x.shape[3], 32, 32, 3), dtype=np.uint8)
    for h, w, c, n in np.ndindex(x.shape):
        images[n, h, w, c] = x[h, w, c, n]
    return images


EXPECTED = expected_images(X)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64"])
@pytest.mark.parametrize("shape", [(N, 1), (1, N)])
def test_images_and_labels_of_a_good_file(
    tmp_path: Path, compressed: bool, dtype: str, shape: tuple[int, int]
) -> None:
    path = tmp_path / "a.mat"
    y = Y.astype(dtype).reshape(shape)
    savemat(path, {"X": X, "y": y, "other": "ignored"}, do_compression=compressed)
    images, labels = read_mat(path)
    assert images.dtype == np.uint8
    assert images.flags.c_contiguous
    np.testing.assert_array_equal(images, EXPECTED)
    assert labels.dtype == np.int64
    assert labels.tolist() == DIGITS


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
def test_files_of_either_byte_order(tmp_path: Path, order: str, packed: bool) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(handmade(order, packed=packed))
    images, labels = read_mat(path)
    np.testing.assert_array_equal(images, EXPECTED)
    assert labels.tolist() == DIGITS


@pytest.mark.parametrize("n", [1, 1023, 1024, 1025, 2500])
def test_images_are_turned_in_place(n: int) -> None:
    x = np.asfortranarray(np.random.default_rng(n).integers(0, 256, (32, 32, 3, n), dtype=np.uint8))
    expected = np.transpose(x, (3, 0, 1, 2)).copy()
    images = images_first(x)
    assert np.shares_memory(images, x)
    np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize("compressed", [False, True])
def test_reading_holds_the_images_once(tmp_path: Path, compressed: bool) -> None:
    path, n = tmp_path / "a.mat", 6000
    size = n * 32 * 32 * 3
    x = np.frombuffer(np.random.default_rng(0).bytes(size), np.uint8).reshape(32, 32, 3, n)
    savemat(path, {"X": x, "y": np.ones((n, 1), np.uint8)}, do_compression=compressed)
    read_mat(path)  # imports are not to be counted
    tracemalloc.start()
    try:
        images, _ = read_mat(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert images.nbytes == size
    # Below `size`, the images' own memory escaped the tracing and the test would show nothing.
    assert size <= peak < 1.5 * size


def cells(n: int) -> NDArray[np.object_]:
    """A cell array of n texts."""
    array = np.empty((n, 1), dtype=object)
    array[:] = "one"
    return array


def y_with(value: float) -> Callable[[Path], None]:
    """A file whose fourth label is `value`."""
    y = Y.astype(np.float64).reshape(-1, 1)
    y[3] = value
    return mat(y=y)


def raw(content: bytes) -> Callable[[Path], None]:
    """What writes those bytes."""
    return lambda path: path.write_bytes(content) and None


def flipped(content: bytes, at: int, bit: int = 0) -> bytes:
    """The bytes with one bit turned over."""
    return content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :]


WHOLE, PACKED = saved(), saved(do_compression=True)
NONE = np.zeros((32, 32, 3, 0), np.uint8)

# What is wrong, how it is written, and what the sentence must say: what came, and what to do.
BAD: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "missing": (lambda path: None, ("does not exist", "mlpkit data fetch", "mlpkit data make")),
    "folder": (lambda path: path.mkdir(), ("is a folder", "mlpkit data fetch")),
    "empty": (raw(b""), ("it is an empty file", "fetch it again")),
    "zeros": (raw(bytes(5000)), ("filled with zeros", "fetch it again")),
    "zeros after the head": (raw(WHOLE[:128] + bytes(5000)), ("damaged", "byte 128", "again")),
    "HTML": (raw(b"\n<!DOCTYPE html><html>" + b" " * 200), ("a web page", "fetch it again")),
    "text": (raw(b"1,2,3\n" * 100), ("b'1,2,3", "fetch it again")),
    "7.3": (raw(b"MATLAB 7.3 MAT-file".ljust(600)), ("7.3 (HDF5)", "save it with -v7")),
    "HDF5": (raw(b"\x89HDF\r\n\x1a\n".ljust(600)), ("HDF5", "save it with -v7")),
    **{
        f"cut to {length} of {name}": (raw(content[:length]), ("again",))
        for name, content in (("whole", WHOLE), ("packed", PACKED))
        for length in (
            1,
            60,
            127,
            128,
            130,
            150,
            184,
            190,
            2000,
            len(content) - 20,
            len(content) - 1,
        )
    },
    "no X": (lambda path: savemat(path, {"images": X, "y": Y}), ("lacks X", "it has images, y")),
    "no y": (lambda path: savemat(path, {"X": X, "labels": Y}), ("lacks y", "it has X, labels")),
    "no variables": (lambda path: savemat(path, {}), ("lacks X", "it has nothing")),
    "X images first": (mat(X=EXPECTED), ("uint8 (32, 32, 3, N)", f"uint8 ({N}, 32, 32, 3)")),
    "X grey": (mat(X=X[:, :, 0]), ("uint8 (32, 32, 3, N)", f"uint8 (32, 32, {N})")),
    "X one image": (mat(X=X[..., 0]), ("uint8 (32, 32, 3, N)", "uint8 (32, 32, 3)")),
    "X float": (mat(X=X / 255), ("uint8 (32, 32, 3, N)", "double (32, 32, 3, 12)")),
    "X int8": (mat(X=X.astype(np.int8)), ("uint8 (32, 32, 3, N)", "int8 (32, 32, 3, 12)")),
    "X logical": (mat(X=X > 99), ("uint8 (32, 32, 3, N)", "logical (32, 32, 3, 12)")),
    "X cells": (mat(X=cells(N)), ("uint8 (32, 32, 3, N)", "cell (12, 1)")),
    "X complex": (raw(handmade(flags=0x0800)), ("real numbers", "flags 0x809", "again")),
    "X of no type": (raw(handmade(kind=44)), ("its type is 44", "again")),
    "X of no type, packed": (raw(handmade(kind=44, packed=True)), ("its type is 44", "again")),
    "X stored as int8": (raw(handmade(kind=1)), ("uint8 for X", "its type is 1", "again")),
    "no images": (mat(X=NONE, y=np.zeros((0, 1))), ("should hold images", "none", "again")),
    "y short": (mat(y=Y[:-1].reshape(-1, 1)), ("(12, 1)", "uint8 (11, 1)")),
    "y one-hot": (mat(y=np.eye(N)), ("(12, 1)", "double (12, 12)")),
    "y texts": (mat(y=np.array(["one"] * N)), ("numbers (12, 1)", "char (12, 3)")),
    "y cells": (mat(y=cells(N)), ("numbers (12, 1)", "cell (12, 1)")),
    "y logical": (mat(y=Y.reshape(-1, 1) > 3), ("numbers (12, 1)", "logical (12, 1)")),
    "y struct": (mat(y={"a": Y}), ("numbers (12, 1)", "struct (1, 1)")),
    "label 0": (y_with(0), ("1..10 (10 for the digit 0)", "y[3] is 0", "mend")),
    "label 11": (y_with(11), ("1..10", "y[3] is 11", "mend")),
    "label -1": (y_with(-1), ("1..10", "y[3] is -1", "mend")),
    "label 2.5": (y_with(2.5), ("1..10", "y[3] is 2.5", "mend")),
    "label NaN": (y_with(np.nan), ("1..10", "y[3] is nan", "mend")),
    "label inf": (y_with(np.inf), ("1..10", "y[3] is inf", "mend")),
    "bit of packed": (raw(flipped(PACKED, len(PACKED) // 2)), ("damaged or cut short", "again")),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said(tmp_path: Path, case: str) -> None:
    path = tmp_path / "train_32x32.mat"
    write, said = BAD[case]
    write(path)
    with pytest.raises(DataError) as caught:
        read_mat(path)
    for part in (str(path), *said):
        assert part in str(caught.value)


COMMANDS = {
    "train": ["train", "--net", "2", "--out", "run", "--backend", "numpy"],
    "info": ["data", "info", "--out", "samples.png"],
}


@pytest.mark.parametrize(
    ("command", "bad_file"), [("train", "train_32x32.mat"), ("info", "test_32x32.mat")]
)
@pytest.mark.parametrize("case", BAD)
def test_commands_say_it_on_one_line_and_leave_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    case: str,
    command: str,
    bad_file: str,
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write, said = BAD[case]
    for name in ("train_32x32.mat", "test_32x32.mat"):
        if name == bad_file:
            write(folder / name)
        else:
            (folder / name).write_bytes(WHOLE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["mlpkit", *COMMANDS[command], "--data", str(folder)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert err.startswith("mlpkit: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    for part in (bad_file, *said):
        assert part in err
    assert out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert {path.name for path in folder.iterdir()} <= {"train_32x32.mat", "test_32x32.mat"}


def test_no_bit_of_a_packed_file_goes_wrong_unseen(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    places = [*range(136, 300), *np.random.default_rng(1).integers(300, len(PACKED), 60)]
    for place in places:
        path.write_bytes(flipped(PACKED, int(place), int(place) % 8))
        with pytest.raises(DataError, match=r"a\.mat"):
            read_mat(path)


def test_no_bit_of_a_plain_files_tags_ends_the_process(tmp_path: Path) -> None:
    # X's tags, up to its first pixel; then y's. A few bits, such as reserved ones, mean nothing.
    path = tmp_path / "a.mat"
    seen = 0
    for place in (*range(126, 192), *range(len(WHOLE) - 72, len(WHOLE) - 16)):
        for bit in (0, 3, 7):
            path.write_bytes(flipped(WHOLE, place, bit))
            try:
                images, labels = read_mat(path)
            except DataError:
                seen += 1
            else:
                np.testing.assert_array_equal(images, EXPECTED)
                assert labels.tolist() == DIGITS
    assert seen > 100
