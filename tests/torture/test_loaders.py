"""Data that is damaged where it lies, and data whose making is stopped."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from mlpkit import cli, matfile, svhn, synthetic
from mlpkit.matfile import DataError, read_mat
from mlpkit.sources import find_data, has_data
from mlpkit.svhn import RemoteFile, sha256

NAMES = ("train_32x32.mat", "test_32x32.mat")


def other_counts(content: bytes) -> bytes:
    """A good file of the same size, in which a 1 has become a 2: y's numbers are at the end."""
    at = content.rindex(b"\1", -64)
    return content[:at] + b"\2" + content[at + 1 :]


FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[:-1],
    "cut to its head": lambda content: content[:128],
    "zero-filled": lambda content: bytes(len(content)),
    "zero-filled at its end": lambda content: content[:-4096] + bytes(4096),
    "HTML": lambda content: b"<!DOCTYPE html><html>moved</html>",
    "HTML of the same size": lambda content: b"<!DOCTYPE html>".ljust(len(content)),
    "other class counts": other_counts,
    "longer": lambda content: content + b"\0",
}


def flip(content: bytes, at: int) -> bytes:
    """One bit of a byte turned over."""
    return content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]


@pytest.mark.parametrize("place", ["svhn", "synthetic"])
def test_damage_is_seen_before_anything_is_parsed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    torture: Any,
    place: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLPKIT_DATA", raising=False)
    folder = Path("data") if place == "svhn" else Path("data/synthetic")
    synthetic.make(folder, 40, 20)
    whole = {name: (folder / name).read_bytes() for name in NAMES}
    monkeypatch.setattr(
        svhn, "FILES", [RemoteFile(n, len(whole[n]), sha256(folder / n)) for n in NAMES]
    )
    assert other_counts(whole[NAMES[0]]) != whole[NAMES[0]]
    parsed: list[Path] = []
    real = matfile.variables
    monkeypatch.setattr(matfile, "variables", lambda path: (parsed.append(path), real(path))[1])
    flips = torture.times(100, 20_000)
    # After the head, which is in part plain text; where SVHN is hashed as a whole, in it too.
    places = np.random.default_rng(0).integers(
        0 if place == "svhn" else 128, len(whole[NAMES[0]]), flips
    )
    faults = [*FAULTS.values(), *(lambda c, at=int(at): flip(c, at) for at in places)]
    for fault in faults:
        name = NAMES[0]
        (folder / name).unlink()
        (folder / name).write_bytes(fault(whole[name]))
        if place == "svhn":
            with pytest.raises(DataError, match="SVHN is expected in data; data/train_32x32"):
                find_data(None)
        else:
            with pytest.raises(DataError, match=r"data/synthetic/train_32x32\.mat"):
                read_mat(folder / name)
    assert parsed == []
    monkeypatch.setattr("sys.argv", ["mlpkit", "data", "info", "--data", place])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1)
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == sorted(NAMES)
    (folder / NAMES[0]).write_bytes(whole[NAMES[0]])
    assert find_data(place) == folder
    assert len(read_mat(folder / NAMES[0])[1]) == 40
    assert parsed == [folder / NAMES[0]]
    torture.figure(
        f"Damaged data ({place}): {len(FAULTS)} kinds of damage and {flips} flipped bits, all seen "
        "by the hash"
    )


def pair(folder: Path) -> tuple[bytes, ...]:
    """The bytes of both files."""
    return tuple((folder / name).read_bytes() for name in NAMES)


def test_a_killed_make_leaves_nothing_that_is_taken_for_data(tmp_path: Path, torture: Any) -> None:
    sizes = {"train_size": 1500, "test_size": 300}
    program = (
        "import sys; from pathlib import Path; from mlpkit import synthetic\n"
        "print(flush=True); synthetic.make(Path(sys.argv[1]), 1500, 300)"
    )

    def making(folder: Path) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, folder],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        process.stdout.readline()
        return process

    with making(tmp_path / "whole"):
        begun = time.perf_counter()
    took, whole = time.perf_counter() - begun, pair(tmp_path / "whole")
    rng, rounds, early = random.Random(0), torture.times(4, 60), 0
    for i in range(rounds):
        folder = tmp_path / f"{i}"
        with making(folder) as process:
            time.sleep(rng.uniform(0, 1.1 * took))
            process.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        if folder.is_dir() and has_data(folder):
            assert pair(folder) == whole
        else:
            early += 1
        synthetic.make(folder, **sizes, keep=True)
        assert pair(folder) == whole
        assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    assert early
    torture.figure(
        f"Data made: {rounds} times stopped (SIGKILL, SIGTERM, Ctrl-C), {early} before its end: "
        "all of it or none, no litter after the next"
    )


@pytest.mark.parametrize("steps", [0, 1])
def test_two_sets_are_never_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    synthetic.make(tmp_path, 20, 10, seed=1)
    before, replace, done = pair(tmp_path), os.replace, []

    def stop(source: Path, target: Path) -> None:
        if len(done) == steps:
            raise KeyboardInterrupt
        done.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        synthetic.make(tmp_path, 20, 10, seed=2)
    assert not has_data(tmp_path) or pair(tmp_path) == before


def test_files_with_and_without_a_hash_in_their_head(tmp_path: Path) -> None:
    synthetic.make(tmp_path, 30, 10)
    images = loadmat(tmp_path / NAMES[0])["X"]
    assert images.shape == (32, 32, 3, 30)
    savemat(tmp_path / "own.mat", {"X": images, "y": np.ones((30, 1))})
    assert read_mat(tmp_path / "own.mat")[1].tolist() == [1] * 30
