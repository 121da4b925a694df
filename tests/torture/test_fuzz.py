"""Files damaged at random: every reader takes them or refuses them in its own words.

A seed of the mutator is a file; so is what failed: `mutated(files, number)` makes it again.
"""

import io
import json
import random
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save
from scipy.io import savemat

from mlpkit.checkpoint import CheckpointError, as_bytes, load_weights, make_header
from mlpkit.grading.packing import SubmissionError, bring, remove
from mlpkit.grading.rubric import reweigh
from mlpkit.grading.sections import SECTIONS
from mlpkit.grading.weights import load_npz
from mlpkit.history_file import read_history
from mlpkit.matfile import DataError, read_mat
from mlpkit.resume import RUN, read_record
from mlpkit.run_files import RunError, read_config, read_json

PROCESSES = 2
INTERESTING = (0, 1, 2, 7, 8, 14, 15, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
TOKENS = (
    b'"', b"{", b"}", b"[", b"]", b":", b",", b"\n", b"\0", b"-1", b"1e999", b"NaN", b"Infinity",
    b"null", b"true", b"\xff", b"\xed\xa0\x80", b"9" * 40, b"\r", b";", b"X", b"y", b"PK\1\2",
    b"PK\3\4", b"PK\5\6", b"../", b"|O", b"<f8",
)  # fmt: skip


class Reader(NamedTuple):
    """What reads a file of that name, what good ones hold, and what may be raised for bad ones."""

    read: Callable[[Path], object]
    name: str
    files: tuple[bytes, ...]
    raises: type[Exception]
    share: int  # of the inputs


def written(write: Callable[..., Any], *arguments: Any, **options: Any) -> bytes:
    """What a function writes into a file."""
    file = io.BytesIO()
    write(file, *arguments, **options)
    return file.getvalue()


X = np.arange(32 * 32 * 3 * 2, dtype=np.uint8).reshape(32, 32, 3, 2)
MATS = tuple(
    written(savemat, {"X": X[..., :n], "y": np.ones((n, 1), kind)}, do_compression=packed)
    for n, kind, packed in ((1, np.uint8, False), (2, np.float64, False), (2, np.uint8, True))
)
CONFIG = json.dumps(
    {"net": "4", "optimizer": "adam", "lr": 1e-3, "keep_prob": 0, "val_size": 3, "dtype": "float32",
     "data": "data", "seed": 1, "versions": {"numpy": "2"}}, indent=2
).encode()  # fmt: skip
SUMMARY = (
    b'{\n  "best_epoch": 2,\n  "val_acc": 0.5,\n  "seconds": {"all": 1.25, "sub": [1, 2]}\n}\n'
)
HISTORY = (
    b"iteration,epoch,lr,loss,train_loss,train_acc,val_loss,val_acc\r\n"
    b"1,1,,2.3,,,,\r\n2,1,0.001,2.25,2.2,0.25,2.1,0.5\r\n"
)
SMALL = {"fc1_w": np.ones((3, 2), np.float32), "fc1_b": np.zeros(2, np.float32)}
CHECKED = make_header(SMALL, {"text": "of a run"}) + b"".join(map(as_bytes, SMALL.values()))
RECORD = json.dumps(
    {"config": {"net": "4", "lr": 1e-3}, "iterations": 2, "best_epoch": 1, "waiting": [2.25],
     "optimizer": {"lr": 1e-3, "t": 2}, "history_bytes": 101, "history_sha256": "0" * 64}
).encode()  # fmt: skip


def zip_of(method: int) -> bytes:
    """A submission of two files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("a/lib/optim.py", b"class SGD:\n    pass\n" * 4)
        archive.writestr("a/b.py", b"")
    return file.getvalue()


def read_submission(path: Path) -> None:
    """A zip, extracted and removed."""
    place = path.with_name("place")
    try:
        bring(path, place)
    finally:
        remove(place)


def read_checkpoint_record(path: Path) -> None:
    """What a checkpoint says of its run, as if it had got past the checksums."""
    text = path.read_bytes().decode("latin-1")
    read_record(SimpleNamespace(path=path, metadata={RUN: text}))  # type: ignore[arg-type]


def read_images(path: Path) -> None:
    """A .mat file, which if it is taken holds images and digits."""
    images, labels = read_mat(path)
    assert images.shape == (len(labels), 32, 32, 3)
    assert images.dtype == np.uint8
    assert set(labels) <= set(range(10))


READERS = {
    ".mat": Reader(read_images, "train_32x32.mat", MATS, DataError, 40),
    "config.json": Reader(lambda p: read_config(p.parent), "config.json", (CONFIG,), RunError, 20),
    "summary.json": Reader(
        lambda p: read_json(p, {"val_acc": (float, int)}), "summary.json", (SUMMARY,), RunError, 10
    ),
    "history.csv": Reader(
        lambda p: read_history(p.parent), "history.csv", (HISTORY,), RunError, 10
    ),
    "rubric": Reader(
        lambda p: reweigh(SECTIONS, p),
        "rubric.json",
        (b'{"Leaky ReLU forward": 7}',),
        ValueError,
        5,
    ),
    ".safetensors": Reader(
        load_weights, "best.safetensors", (save(SMALL), CHECKED), CheckpointError, 15
    ),
    "checkpoint's record": Reader(
        read_checkpoint_record, "last.safetensors", (RECORD,), CheckpointError, 5
    ),
    ".npz": Reader(
        load_npz,
        "w.npz",
        (written(np.savez, **SMALL), written(np.savez_compressed, **SMALL)),
        ValueError,
        3,
    ),
    "submission": Reader(
        read_submission,
        "s.zip",
        (zip_of(zipfile.ZIP_STORED), zip_of(zipfile.ZIP_DEFLATED)),
        SubmissionError,
        2,
    ),
}


def mutated(files: tuple[bytes, ...], number: int) -> bytes:
    """One of the files, damaged in one to three places, as the number says."""
    rng = random.Random(number)
    content = bytearray(rng.choice(files))
    unpacked = content[126:128] == b"IM" and rng.random() < 0.5 and unpack(content)
    if unpacked:
        content = unpacked
    for _ in range(rng.randint(1, 3)):
        # Half of the time near the start, where the lengths and types are.
        end = len(content) if rng.random() < 0.5 else min(len(content), 256)
        at = rng.randrange(end + 1)
        match rng.randrange(9):
            case 0:
                content[at : at + 1] = bytes([rng.randrange(256)])
            case 1 if at < len(content):
                content[at] ^= 1 << rng.randrange(8)
            case 2:
                order = rng.choice("<>")
                content[at : at + 4] = struct.pack(f"{order}I", rng.choice(INTERESTING))
            case 3:
                at -= at % 4
                near = int.from_bytes(content[at : at + 4], "little") + rng.randint(-9, 9)
                content[at : at + 4] = (near % 2**32).to_bytes(4, "little")
            case 4:
                del content[at : at + rng.randint(1, 64)]
            case 5:
                content[at:at] = content[at : at + rng.randint(1, 64)]
            case 6:
                content[at:at] = rng.choice(TOKENS)
            case 7:
                del content[at:]
            case _:
                content[at : at + 8] = bytes(8)
    return bytes(pack(content) if unpacked else content)


def unpack(content: bytearray) -> bytearray:
    """A .mat file with its compressed elements unpacked, so that damage gets past their checksums;
    none where none is compressed."""
    whole, at, found = content[:128], 128, False
    while at + 8 <= len(content):
        kind, length = struct.unpack_from("<II", content, at)
        part = content[at : at + 8 + length]
        found |= kind == 15
        whole += zlib.decompress(part[8:]) if kind == 15 else part
        at += 8 + length
    return whole if found else bytearray()


def pack(content: bytearray) -> bytearray:
    """The reverse, as far as the lengths go."""
    whole, at = content[:128], 128
    while at < len(content):
        tag = content[at : at + 8]
        length = int.from_bytes(tag[4:], "little")
        part = zlib.compress(content[at : at + 8 + length], 1)
        whole += struct.pack("<II", 15, len(part)) + part
        at += 8 + length
    return whole


def fuzz(name: str, numbers: range, folder: Path) -> tuple[int, list[str]]:
    """How many of the numbers' files were refused, and what else was raised, for a few of them."""
    reader = READERS[name]
    folder.mkdir(parents=True)
    path, refused, wrong = folder / reader.name, 0, []
    for number in numbers:
        path.unlink(missing_ok=True)  # a file that is cut and written again waits for the disk
        path.write_bytes(mutated(reader.files, number))
        try:
            reader.read(path)
        except Exception as error:
            if type(error) is reader.raises:  # a subclass, such as UnicodeDecodeError, says less
                refused += 1
            elif len(wrong) < 9:
                wrong.append(f"{name} {number}: {type(error).__name__}: {error}")
    return refused, wrong


def shards(torture: Any) -> Iterator[tuple[str, range]]:
    """The numbers that each process tries on each reader."""
    total, shares = torture.times(6_000, 1_000_000), sum(r.share for r in READERS.values())
    for name, reader in READERS.items():
        count = total * reader.share // shares
        for i in range(PROCESSES):
            yield name, range(i * count // PROCESSES, (i + 1) * count // PROCESSES)


def test_readers_refuse_damaged_files_in_their_own_words(tmp_path: Path, torture: Any) -> None:
    jobs = list(shards(torture))
    begun = time.perf_counter()
    # Not forked: what other tests have loaded, JAX for one, doesn't stand that.
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as pool:
        found = list(
            pool.map(
                fuzz,
                *zip(*jobs, strict=True),
                [tmp_path / f"{i}" for i in range(len(jobs))],
            )
        )
    took, inputs = time.perf_counter() - begun, sum(len(numbers) for _, numbers in jobs)
    refused = sum(n for n, _ in found)
    assert [line for _, wrong in found for line in wrong] == []
    # Neither is every file refused, nor none: each reader is reached behind its first check.
    for name in READERS:
        share = sum(n for (job, _), (n, _) in zip(jobs, found, strict=True) if job == name)
        assert 0 < share < sum(len(numbers) for job, numbers in jobs if job == name), name
    torture.figure(
        f"Fuzzing: {inputs} damaged files, {len(READERS)} readers, {refused} refused, each by its "
        f"documented error; {inputs / took:.0f} inputs/s"
    )


@pytest.mark.parametrize("name", READERS)
def test_good_files_are_read(tmp_path: Path, name: str) -> None:
    reader = READERS[name]
    for content in reader.files:
        path = tmp_path / reader.name
        path.write_bytes(content)
        reader.read(path)
