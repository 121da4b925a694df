"""Runs that are killed, at random moments and between two writes, and go on to the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

from tests.conftest import Torture
from tests.small_runs import WORKER, environment, final, train, write_data

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")

LEFT = {
    "best.safetensors", "config.json", "curves.png", "history.csv", "last.safetensors",
    "last.1.safetensors", "summary.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def live(data: Path) -> Iterator[Callable[[Path, float | None], str]]:
    """A function of a run's folder and a share of its time: resumes the run in a new process, kills
    that then, and returns how it ended."""
    with subprocess.Popen(
        WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None

        def resume(out: Path, share: float | None) -> str:
            order = json.dumps({"data": str(data), "out": str(out), "share": share})
            worker.stdin.write(f"{order}\n")
            worker.stdin.flush()
            said: str = json.loads(worker.stdout.readline())
            return said

        yield resume
        worker.stdin.close()


def test_killed_at_any_moment(
    live: Callable[[Path, float | None], str], tmp_path: Path, torture: Torture
) -> None:
    assert live(tmp_path / "whole", None) == "done"
    whole = final(tmp_path / "whole")
    rng, kills, runs, began = random.Random(1), 0, 0, time.monotonic()
    wanted, without_checkpoint = torture.times(5, 1000), 0
    while kills < wanted:
        out, runs = tmp_path / f"run{runs}", runs + 1
        while (ended := live(out, rng.random())) == "killed":
            kills += 1
            without_checkpoint += not (out / "last.safetensors").exists()
        assert ended == "done"
        assert final(out) == whole
        assert {path.name for path in out.iterdir()} == LEFT
    rate = kills / (time.monotonic() - began)
    torture.figure(
        f"kills: {kills} at random moments, {without_checkpoint} before the first checkpoint, in "
        f"{runs} runs, every one resumed to the same bytes; {rate:.1f} kills a second"
    )


# A process that kills itself at the n-th call of what changes files.
SUICIDE = """
import os, signal, sys, io
from pathlib import Path
from tests.small_runs import train

left = [int(sys.argv[3])]

def deadly(function):
    def call(*arguments, **settings):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **settings)
    return call

for name in ("replace", "fsync", "open", "unlink", "mkdir", "truncate"):
    setattr(os, name, deadly(getattr(os, name)))
io.open = deadly(io.open)
train(Path(sys.argv[1]), Path(sys.argv[2]), epochs=2)
print(left[0])
"""


def test_killed_between_any_two_writes(
    data: Path, tmp_path: Path, torture: Torture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPKIT_THREADS", "1")  # as the other processes have

    def run(out: Path, at: int) -> int | None:
        """The exit status, or how many calls were left where it ended by itself."""
        command = [sys.executable, "-c", SUICIDE, str(data), str(out), str(at)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment())
        assert done.returncode in (0, -signal.SIGKILL)
        return None if done.returncode else int(done.stdout)

    left = run(tmp_path / "whole", 10**6)
    assert left is not None
    calls, whole = 10**6 - left, final(tmp_path / "whole")
    step = max(1, calls // torture.times(6, calls))
    tried = range(1 + (calls - 1) % step, calls + 1, step)
    for at in tried:
        out = tmp_path / f"at{at}"
        assert run(out, at) is None
        with threadpool_limits(1):
            train(data, out, epochs=2)
        assert final(out) == whole
        assert {path.name for path in out.iterdir()} == LEFT
    torture.figure(f"kills: at {len(tried)} of the {calls} file operations of a run, none lost")


def processor_seconds(pid: int) -> float:
    """What a process has had of a processor's time, by Linux's account."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="Linux")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_at_random_moments(
    data: Path, tmp_path: Path, torture: Torture, number: int, status: int
) -> None:
    code = "from mlpkit.cli import main; main()"
    options = ["--data", str(data), "--net", "2", "--batch-size", "1", "--epochs", "20"]
    command = [sys.executable, "-c", code, "train", *options, "--backend", "numpy", "--resume"]

    def start(out: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, "--out", out],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    began = time.monotonic()
    start("whole").communicate(timeout=120)
    whole = time.monotonic() - began
    rng, slowest, work, out, stopped = random.Random(2), 0.0, 0.0, 0, 0
    while stopped < torture.times(2, 50):
        with start(str(out)) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()  # the first: from now on it hears signals
            time.sleep(rng.random() * whole / 2)
            before = processor_seconds(process.pid)
            os.kill(process.pid, number)
            began = time.monotonic()
            err = process.stderr.read()
            _, ended, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(ended)
        if (tmp_path / str(out) / "summary.json").exists():  # the signal came too late
            assert final(tmp_path / str(out)) == final(tmp_path / "whole")
            out += 1
            continue
        assert process.returncode == status, err
        assert err.endswith(f"; go on: mlpkit train --resume {out}\n")
        assert err.count("\n") == 1
        slowest, stopped = max(slowest, time.monotonic() - began), stopped + 1
        work = max(work, usage.ru_utime + usage.ru_stime - before)
    assert work < 5  # what else the machine does meanwhile is not counted
    torture.figure(
        f"signals: {stopped} of {signal.Signals(number).name}, ended within {slowest:.2f} s, "
        f"{work:.2f} s of them at work"
    )
