"""Files that lie about their size or carry code: refused in a sentence, in little memory, and
nothing in them is executed."""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

EXTRA, BIG = 64 << 20, 128 << 20  # bytes
TERA = 1 << 40


class Trap:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("sprung", "w"))


PICKLE = pickle.dumps(Trap())


def mat(*parts: bytes) -> bytes:
    """A MATLAB 5 file of those elements."""
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + b"".join(parts)


def element(kind: int, content: bytes, length: int | None = None) -> bytes:
    """An element, of a length of its own or one made up."""
    size = len(content) if length is None else length
    return struct.pack("<II", kind, size) + content + bytes(-len(content) % 8)


def matrix(
    name: bytes,
    shape: tuple[int, ...],
    data: bytes,
    *,
    kind: int = 9,
    length: int | None = None,
    outer: int | None = None,
) -> bytes:
    """A matrix of a class (9: uint8), its data and itself of their own lengths or made up ones."""
    parts = (
        element(6, struct.pack("<II", kind, 0)),
        element(5, struct.pack(f"<{len(shape)}i", *shape)),
        element(1, name),
        element(2, data, length),
    )
    return element(14, b"".join(parts), outer)


def packed(content: bytes, zeros: int = 0) -> bytes:
    """A compressed element of that content and as many zeros."""
    packer = zlib.compressobj(9)
    stream = packer.compress(content)
    for _ in range(zeros >> 20):
        stream += packer.compress(bytes(1 << 20))
    stream += packer.flush()
    return struct.pack("<II", 15, len(stream)) + stream


def bomb(n: int, images: int | None = None) -> bytes:
    """n black images, or that many of them, packed as well as zlib can; their y is right."""
    head = matrix(b"X", (32, 32, 3, n), b"", length=n * 3072, outer=n * 3072 + 64)
    zeros = (n if images is None else images) * 3072
    return mat(packed(head, zeros), packed(matrix(b"y", (n, 1), b"\1" * n)))


def saved(**content: Any) -> bytes:
    """What scipy writes."""
    file = io.BytesIO()
    savemat(file, content)
    return file.getvalue()


def npy(shape: Any, descr: str = "<f8", content: bytes = b"") -> bytes:
    """An .npy whose header says so."""
    head = (
        repr({"descr": descr, "fortran_order": False, "shape": shape}).encode().ljust(200) + b"\n"
    )
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + content


def zipped(method: int = zipfile.ZIP_DEFLATED, **members: bytes) -> bytes:
    """A zip; an underscore in a name is a dot."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return file.getvalue()


def many_members(n: int) -> bytes:
    """A zip whose list has n members, in a row of the same."""
    whole = zipped(a_py=b"")
    at, end = whole.index(b"PK\1\2"), whole.index(b"PK\5\6")
    entry = whole[at:end]
    counts = struct.pack("<HHII", *[min(n, 65535)] * 2, n * len(entry), at)
    return whole[:at] + entry * n + whole[end : end + 8] + counts + b"\0\0"


def objects(array: Any) -> bytes:
    """An .npz of an array that numpy pickles."""
    file = io.BytesIO()
    np.savez(file, fc1_w=array)
    return file.getvalue()


CELLS = np.array([["a", np.ones(3)]], dtype=object)
Y = np.ones((4, 1), np.uint8)
# Built when they are asked for: the first part of a name is the loader, the rest the file.
HOSTILE: dict[str, Callable[[], bytes]] = {
    "mat pickle": lambda: PICKLE,
    "mat pickle behind a head": lambda: mat(PICKLE),
    "mat pickle as X": lambda: mat(matrix(b"X", (len(PICKLE), 1), PICKLE, kind=17)),
    "mat 7.3": lambda: b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(2000),
    "mat HDF5": lambda: b"\x89HDF\r\n\x1a\n" + bytes(2000),
    "mat cells": lambda: saved(X=CELLS, y=Y),
    "mat struct": lambda: saved(X={"a": np.ones(4)}, y=Y),
    "mat chars": lambda: saved(X="text", y=Y),
    "mat sparse": lambda: mat(matrix(b"X", (2**31 - 1,) * 2, b"\0" * 8, kind=5)),
    "mat function": lambda: mat(matrix(b"X", (1, 1), b"@()system('id')", kind=16)),
    "mat object": lambda: mat(matrix(b"X", (1, 1), PICKLE, kind=3)),
    "mat terabytes of X": lambda: mat(
        matrix(b"X", (32, 32, 3, 2**31 - 1), b"", length=2**32 - 1), matrix(b"y", (4, 1), b"\1" * 4)
    ),
    "mat 4 GB in a small matrix": lambda: mat(
        matrix(b"X", (32, 32, 3, 1398101), bytes(64), length=1398101 * 3072 % 2**32),
        matrix(b"y", (1398101, 1), b"\1" * 1398101),
    ),
    "mat element past the end": lambda: mat(matrix(b"X", (32, 32, 3, 4), b"", outer=2**32 - 8)),
    "mat 3 GB of X in a packed element": lambda: bomb(1_000_000, images=1000),
    "mat 4 GB as packed says": lambda: mat(
        packed(matrix(b"X", (32, 32, 3, 1_300_000), b"", length=1_300_000 * 3072, outer=2**32 - 8)),
        packed(matrix(b"y", (1_300_000, 1), b"\1" * 1_300_000)),
    ),
    "mat zlib bomb": lambda: bomb(BIG // 3072),
    "mat zlib bomb beside": lambda: mat(packed(matrix(b"Z", (BIG, 1), b""), BIG)),
    "mat zlib bomb behind its data": lambda: mat(
        packed(matrix(b"X", (32, 32, 3, 4), bytes(4 * 3072)), BIG),
        matrix(b"y", (4, 1), b"\1" * 4),
    ),
    "mat zlib bomb as y": lambda: mat(
        matrix(b"X", (32, 32, 3, 4), bytes(4 * 3072)),
        packed(matrix(b"y", (4, 1), b"", length=BIG, outer=BIG), BIG),
    ),
    "mat 100 million dimensions": lambda: mat(matrix(b"X", (1,) * 1_000_000, b"\0")),
    "mat a name of a megabyte": lambda: mat(matrix(b"X\x1b[2J" * 200_000, (1, 1), b"\0")),
    "mat a million variables": lambda: mat(matrix(b"a", (1, 1), b"\0") * 300_000),
    "npz pickle": lambda: PICKLE,
    "npz of many members": lambda: many_members(900_000),
    "npz objects": lambda: objects(np.array([Trap()], object)),
    "npz object header": lambda: zipped(fc1_npy=npy((1,), "|O", PICKLE)),
    "npz pickle as a member": lambda: zipped(fc1_npy=PICKLE),
    "npz npy": lambda: npy((1,), "<f8", bytes(8)),
    "npz terabytes": lambda: zipped(fc1_npy=npy((TERA,))),
    "npz more than there are": lambda: zipped(fc1_npy=npy((2**40, 2**40))),
    "npz bomb": lambda: zipped(fc1_npy=npy((BIG // 8,), "<f8", bytes(BIG))),
    "npz bombs": lambda: zipped(
        **{f"a{i}_npy": npy((1 << 21,), "<f8", bytes(1 << 24)) for i in range(8)}
    ),
    "npz lzma": lambda: zipped(zipfile.ZIP_LZMA, fc1_npy=npy((1,), "<f8", bytes(8))),
    "npz code in a header": lambda: zipped(fc1_npy=npy("__import__('os').system('touch sprung')")),
    "npz text": lambda: zipped(fc1_npy=npy((1,), "<U4", bytes(16))),
    "zip bomb": lambda: zipped(a_py=bytes(BIG)),
    "zip bombs": lambda: zipped(**{f"a{i}_py": bytes(1 << 24) for i in range(8)}),
    "zip of many members": lambda: many_members(900_000),
    "zip lzma": lambda: zipped(zipfile.ZIP_LZMA, a_py=bytes(1 << 20)),
    "zip bzip2": lambda: zipped(zipfile.ZIP_BZIP2, a_py=bytes(1 << 20)),
    "json deep": lambda: b"[" * 1_000_000,
    "json digits": lambda: b'{"net": ' + b"9" * 1_000_000 + b"}",
    "json pickle": lambda: PICKLE,
    "rubric deep": lambda: b'{"a":' * 1_000_000,
    "rubric huge": lambda: b'{"Leaky ReLU forward": 1' + b"0" * 400 + b"}",
    "rubric infinite": lambda: b'{"Leaky ReLU forward": Infinity}',
    "weights pickle": lambda: PICKLE,
    "weights terabytes": lambda: safetensors(TERA, 8),
    "weights header of terabytes": lambda: struct.pack("<Q", TERA) + b"{}",
    "weights header of 4 GB": lambda: struct.pack("<Q", 2**32) + b"{}",
}


def safetensors(n: int, size: int) -> bytes:
    """A header that says n numbers, and `size` bytes."""
    head = json.dumps({"a": {"dtype": "F32", "shape": [n], "data_offsets": [0, 4 * n]}}).encode()
    return struct.pack("<Q", len(head)) + head + bytes(size)


# Loads each file named in argv in a process of its own, where everything is imported already: what
# was raised, how far the memory rose, in bytes, and what the interpreter did meanwhile.
PROGRAM = """
import json, os, re, resource, sys
from pathlib import Path

import numpy, safetensors.numpy
from mlpkit import checkpoint, matfile, run_files
from mlpkit.grading import packing, rubric, sections, weights

LOADERS = {
    "mat": (matfile.read_mat, matfile.DataError),
    "npz": (weights.load_npz, ValueError),
    "zip": (lambda path: packing.bring(path, path.with_suffix(".place")), packing.SubmissionError),
    "json": (lambda path: run_files.read_json(path, {"net": (str,)}), run_files.RunError),
    "rubric": (lambda path: rubric.reweigh(sections.SECTIONS, path), ValueError),
    "weights": (checkpoint.load_weights, checkpoint.CheckpointError),
    "unpickling": (lambda path: numpy.load(path, allow_pickle=True)["fc1_w"], ()),
    "grasping": (lambda path: bytearray(os.urandom(1)) * (100 << 20), ()),
}
good, *paths = map(Path, sys.argv[1:])
packing.bring(good, good.with_suffix(".place"))  # what is imported late is not the file's
seen, watching = set(), False
sys.addaudithook(lambda event, _: seen.add(event) if watching else None)

def try_one(path):
    global watching
    load, documented = LOADERS[path.stem.split()[0]]
    held = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (held + (256 << 20),) * 2)  # what is only asked for
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    watching, said = True, ""
    try:
        load(path)
    except documented as error:
        said = str(error)
    watching = False
    extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before << 10
    print(json.dumps({"said": said, "extra": extra, "seen": sorted(seen)}), flush=True)

for path in paths:
    if not (child := os.fork()):
        try:
            try_one(path)
        except BaseException as error:
            print(json.dumps({"said": "", "raised": repr(error)}), flush=True)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
"""
# What a pickle, an import or a command of a file's would do.
EVIL = ("pickle.", "exec", "os.system", "os.exec", "os.posix_spawn", "subprocess.", "ctypes.")


def tried(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """What comes of loading each hostile file, by its name."""
    good = folder / "good.zip"
    good.write_bytes(zipped(a_py=b"pass"))
    paths = [folder / f"{name}.file" for name in names]
    for name, path in zip(names, paths, strict=True):
        path.write_bytes(HOSTILE.get(name, HOSTILE["npz objects"])())
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, good, *paths],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(names, map(json.loads, done.stdout.splitlines()), strict=True))


def test_hostile_files_are_refused_in_little_memory(tmp_path: Path, torture: Any) -> None:
    found = tried(tmp_path, list(HOSTILE))
    for name in HOSTILE:
        assert 0 < len(found[name]["said"]) < 2000, (name, found[name])
        assert "\x1b" not in found[name]["said"], name
        assert found[name]["extra"] < EXTRA, name
        assert not [event for event in found[name]["seen"] if event.startswith(EVIL)], name
    assert not (tmp_path / "sprung").exists()
    most = max(each["extra"] for each in found.values())
    torture.figure(
        f"Hostile files: {len(HOSTILE)} refused, each in at most {most / 2**20:.0f} MB of extra "
        "memory; nothing in them was executed"
    )


def test_what_is_executed_or_taken_would_be_seen(tmp_path: Path) -> None:
    found = tried(tmp_path, ["unpickling", "grasping"])
    assert "pickle.find_class" in found["unpickling"]["seen"]
    assert (tmp_path / "sprung").exists()
    assert found["grasping"]["extra"] > 99 << 20
