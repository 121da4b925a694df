"""A disk that is full, in a process of its own: a sentence, and the last checkpoint is good."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlpkit.checkpoint import load_weights
from tests.conftest import Torture
from tests.small_runs import environment, final, train, write_data

resource = pytest.importorskip("resource")

# Trains with files of at most so many bytes; 0 for as they come.
LIMITED = """
import resource, sys
from pathlib import Path
if int(sys.argv[3]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
from mlpkit import cli, commands
from tests.small_runs import train
commands.app = lambda **settings: train(Path(sys.argv[1]), Path(sys.argv[2]))
cli.main()
"""


def limited(data: Path, out: Path, size: int) -> subprocess.CompletedProcess[str]:
    """Train with that limit."""
    command = [sys.executable, "-c", LIMITED, str(data), str(out), str(size)]
    return subprocess.run(command, capture_output=True, text=True, env=environment())


def check(done: subprocess.CompletedProcess[str], out: Path) -> None:
    """It said that the disk is full, for a file of the run; every checkpoint there is good."""
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mlpkit: the disk is full for {out}")
    assert done.stderr.count("\n") == 1
    for path in out.glob("*.safetensors"):
        load_weights(path, checked=True)
    assert not list(out.glob(".*"))


def test_files_that_may_not_grow(
    tmp_path: Path, torture: Torture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPKIT_THREADS", "1")  # as the other processes have
    data = write_data(tmp_path)
    train(data, tmp_path / "whole")
    whole = final(tmp_path / "whole")
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "whole").iterdir()}
    # One byte less than each file has, in turn: all that is larger fails before it.
    limits = sorted({size - 1 for size in sizes.values()} | {4000, 40})
    limits = limits[:: torture.times(3, 1)]
    failed = set()
    for limit in limits:
        out = tmp_path / str(limit)
        done = limited(data, out, limit)
        check(done, out)
        failed.add(done.stderr.partition(f"{out}/")[2].partition(":")[0])
        train(data, out)
        assert final(out) == whole
    torture.figure(
        f"full disk: files of at most {', '.join(map(str, limits))} bytes stopped "
        f"{', '.join(sorted(failed))}; each went on to the same bytes"
    )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_file_system_that_is_full(
    disk: Path, tmp_path: Path, torture: Torture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPKIT_THREADS", "1")
    data = write_data(tmp_path)
    train(data, tmp_path / "whole")
    out, filler = disk / "run", disk / "filler"
    rooms = [*range(10_000, 290_000, torture.times(90_000, 9_000))]
    for room in rooms:
        filler.write_bytes(bytes(300 * 1024 - room))
        check(limited(data, out, 0), out)
        filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=2m", str(disk)], check=True)
    train(data, out)
    assert final(out) == final(tmp_path / "whole")
    torture.figure(f"full disk: a file system full {len(rooms)} times in one run, the same bytes")
