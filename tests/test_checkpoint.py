"""Weights on disk, and files that are whole or not there."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mlpkit.checkpoint import CheckpointError, load_weights, save_weights
from mlpkit.files import atomic

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
