"""Weights on disk, and files that are whole or not there."""

import hashlib
import os
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from mlpkit.checkpoint import CheckpointError, load_weights, save_weights
from mlpkit.files import atomic
from mlpkit.run_files import RunError, claimed

WEIGHTS = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([0.1, -np.inf, 1e-300]),
    "empty": np.zeros((0, 3), np.float32),
}


def test_others_read_what_is_saved_and_the_reverse(tmp_path: Path) -> None:
    save_weights(tmp_path / "ours", WEIGHTS)
    save_file(WEIGHTS, tmp_path / "theirs")
    for found in (load_file(tmp_path / "ours"), load_weights(tmp_path / "theirs")):
        assert found.keys() == WEIGHTS.keys()
        for name, array in WEIGHTS.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)


def test_arrays_of_any_strides_are_saved_as_they_read(tmp_path: Path) -> None:
    array = np.arange(24.0).reshape(4, 6)
    save_weights(tmp_path / "a", {"turned": array.T, "stepped": array[::2, ::-3]})
    found = load_file(tmp_path / "a")
    assert found["turned"].tolist() == [[r * 6 + c for r in range(4)] for c in range(6)]
    assert found["stepped"].tolist() == [[5, 2], [17, 14]]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_weights_are_as_readable_as_any_file(tmp_path: Path) -> None:
    save_weights(tmp_path / "a", WEIGHTS)
    (tmp_path / "b").touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "b")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there are no weights at .*: expected a .safetensors file"),
        (b"", "is damaged or no safetensors file"),
        (b"\x00" * 100, "is damaged or no safetensors file"),
        (b"\xff" * 100, "is damaged or no safetensors file"),
        (b"<html>" * 100, "is damaged or no safetensors file"),
    ],
)
def test_what_is_no_file_of_weights(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "best.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        load_weights(path)


def test_weights_cut_anywhere_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a"
    save_weights(path, WEIGHTS)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="is damaged or no safetensors file"):
            load_weights(path)


@pytest.mark.parametrize("before", [None, "old"])
def test_what_is_not_finished_is_not_there(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "a.txt"
    if before:
        path.write_text(before)

    def write_half() -> None:
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert [p.read_text() for p in tmp_path.iterdir()] == ([before] if before else [])
    with atomic(path) as temporary:
        temporary.write_text("whole")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["whole"]


def test_errors_name_the_file_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "a.txt"
    with pytest.raises(FileNotFoundError) as caught, atomic(path) as temporary:
        temporary.write_text("x")
    assert caught.value.filename == str(path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder") as replaced, atomic(tmp_path / "folder") as other:
        other.write_text("x")
    assert replaced.value.filename == str(tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_what_is_written_through_a_link_leaves_the_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe")
def test_what_is_no_ordinary_file_is_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with atomic(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert os.read(reader, 10) == b"new"
    os.close(reader)
    assert pipe.is_fifo()
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "link"}


def file_of(header: bytes, data: bytes = b"") -> bytes:
    """A safetensors file with that header, as somebody else may write it."""
    return len(header).to_bytes(8, "little") + header + data


ENTRY = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


@pytest.mark.parametrize(
    "content",
    [
        file_of(b"[]"),
        file_of(b" {}"),
        file_of(b"{}", b"more"),
        file_of(b'{"a":1}'),
        file_of(b'{"__metadata__":{"a":1}}'),
        file_of(b'{"__metadata__":[]}'),
        file_of(f'{{"a":{ENTRY},"a":{ENTRY}}}'.encode(), bytes(4)),
        file_of(f'{{"a":{ENTRY},"b":{ENTRY}}}'.encode(), bytes(4)),
        file_of(f'{{"a":{ENTRY}}}'.encode(), bytes(3)),
        file_of(f'{{"a":{ENTRY}}}'.encode(), bytes(5)),
        file_of(b'{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
        file_of(b'{"a":{"dtype":["F32"],"shape":[1],"data_offsets":[0,4]}}', bytes(4)),
        file_of(b'{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}', bytes(4)),
        file_of(b'{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}', bytes(4)),
        file_of(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', bytes(4)),
        file_of(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,-4]}}', bytes(4)),
        file_of(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', bytes(4)),
        file_of(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}', bytes(4)),
        file_of(
            b'{"a":{"dtype":"F32","shape":[' + b"1," * 40 + b'1],"data_offsets":[0,4]}}', bytes(4)
        ),
        file_of(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":0}}', bytes(4)),
        file_of(b'{"a":{"dtype":"F32","shape":[0' + b",1048576" * 4 + b'],"data_offsets":[0,0]}}'),
        file_of(b'{"a":{"dtype":"U8","shape":[99999999999999],"data_offsets":[0,99999999999999]}}'),
        file_of(
            b'{"a":{"dtype":"U8","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}', bytes(4)
        ),
        file_of(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
        file_of(b'{"\\ud800":1}'),
        file_of(b'{"a\xff":1}'),
        (2**63).to_bytes(8, "little") + b"{}",
        (2**20 + 8).to_bytes(8, "little") + b"{" + bytes(2**20 + 7),
    ],
)
def test_headers_that_lie(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="is damaged or no safetensors file") as caught:
            load_weights(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
    assert str(caught.value).isprintable()


def test_what_is_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is a folder at .*: expected"):
        load_weights(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(CheckpointError, match="is no ordinary file"):
            load_weights(tmp_path / "pipe")


def test_a_run_takes_no_weights_without_checksums(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "theirs")
    with pytest.raises(CheckpointError, match=r"theirs has no checksums, so .*: train again"):
        load_weights(tmp_path / "theirs", checked=True)


@pytest.mark.parametrize("mark", ["mlpkit.format", "mlpkit.header.sha256"])
def test_one_mark_is_enough_to_be_held_to_the_checksums(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "a"
    save_weights(path, WEIGHTS)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(mark.encode(), mark.upper().encode(), 1))
    with pytest.raises(CheckpointError, match="does not have the checksum"):
        load_weights(path)


def test_the_checksums_are_sha256s(tmp_path: Path) -> None:
    path = tmp_path / "a"
    save_weights(path, {"w": np.arange(4.0)}, {"text": "kept"})
    with safe_open(path, "numpy") as file:
        found = file.metadata()
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    zeroed = raw[:start].replace(found["mlpkit.header.sha256"].encode(), b"0" * 64)
    assert found == {
        "mlpkit.format": "1",
        "mlpkit.header.sha256": hashlib.sha256(zeroed).hexdigest(),
        "mlpkit.sha256.w": hashlib.sha256(np.arange(4.0).tobytes()).hexdigest(),
        "text": "kept",
    }


def test_the_file_before_is_kept(tmp_path: Path) -> None:
    path, before = tmp_path / "a", tmp_path / "b"
    for value in (1.0, 2.0, 3.0):
        save_weights(path, {"w": np.array([value])}, previous=before)
    assert [load_weights(p)["w"].tolist() for p in (path, before)] == [[3.0], [2.0]]


def test_what_killed_processes_left_is_removed_by_the_one_that_holds_the_folder(
    tmp_path: Path,
) -> None:
    (tmp_path / ".last.safetensors.123.tmp").write_text("half")
    (tmp_path / ".last.safetensors.tmp").write_text("somebody's")
    with claimed(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".last.safetensors.tmp"]
        if os.name == "posix":
            said = "is being written by another process: wait"
            with pytest.raises(RunError, match=said), claimed(tmp_path):
                pass  # the folder is open a second time, as in another process
    with claimed(tmp_path):
        pass


def test_nothing_but_what_is_empty(tmp_path: Path) -> None:
    save_weights(tmp_path / "w", {"a": np.zeros((0, 1 << 30)), "b": np.zeros((5, 0), np.float32)})
    for found in (load_weights(tmp_path / "w"), load_file(tmp_path / "w")):
        assert {name: a.shape for name, a in found.items()} == {"a": (0, 1 << 30), "b": (5, 0)}


@pytest.mark.parametrize("name", ["mlpkit.format", "mlpkit.header.sha256", "mlpkit.sha256.a"])
def test_metadata_of_mlpkits_own(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is written by save_weights itself"):
        save_weights(tmp_path / "w", {"a": np.ones(3)}, {name: "2"})
    assert not list(tmp_path.iterdir())


def test_a_number_of_numpys_is_an_array(tmp_path: Path) -> None:
    save_weights(tmp_path / "w", {"a": np.float64(3)})
    assert load_weights(tmp_path / "w")["a"] == np.array(3.0)


def test_metadata_is_text(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"text by name; got 'lr': 0\.1: give str\(0\.1\)"):
        save_weights(tmp_path / "w", {"a": np.ones(3)}, {"lr": 0.1})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ([np.ones(3)], TypeError, "takes arrays by name; got list"),
        ({"a": [1.0, 2.0]}, TypeError, r"a should be a NumPy array, as .*to_numpy gives; got list"),
        ({0: np.ones(3)}, ValueError, "can't be saved as 0: give it another name, as text"),
        ({"__metadata__": np.ones(3)}, ValueError, "can't be saved as '__metadata__'"),
    ],
)
def test_what_cannot_be_saved(
    tmp_path: Path, arrays: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        save_weights(tmp_path / "w", arrays)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["w.npz", "w.pkl", "w.pt"])
def test_the_suffix_of_another_format(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"weights are saved as \.safetensors; got .*{name}"):
        save_weights(tmp_path / name, {"a": np.ones(3)})
    assert not list(tmp_path.iterdir())


def test_an_npz_is_said_to_be_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", a=np.ones(3))
    with pytest.raises(CheckpointError, match=r"w\.npz is an \.npz; expected a \.safetensors file"):
        load_weights(tmp_path / "w.npz")
