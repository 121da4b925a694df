"""Runs that take a fraction of a second: their data, their training, and a worker that starts and
kills them."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from mlpkit.recipes import Recipe
from mlpkit.recording import EVERY_EPOCH, Every
from mlpkit.runs import Run, Settings, train_run
from mlpkit.signals import Paused

# What an uninterrupted run and one that was stopped have in common, byte for byte.
FINAL = ("best.safetensors", "last.safetensors", "history.csv")


def write_data(folder: Path, images: int = 60) -> Path:
    """Noise, the brighter the higher its label: 57 training, 3 validation and 20 test images."""
    rng = np.random.default_rng(0)
    for name, n in (("train_32x32.mat", images), ("test_32x32.mat", 20)):
        y = rng.integers(1, 11, n)
        x = rng.integers(0, 128, (32, 32, 3, n)) + 12 * y
        savemat(folder / name, {"X": x.astype(np.uint8), "y": y.reshape(-1, 1)})
    return folder


class Watch:
    """Watches without a word. stop(done) and stop_epoch(number) say where to pause, as for a
    signal."""

    def __init__(
        self,
        stop: Callable[[int], bool] = lambda done: False,
        stop_epoch: Callable[[int], bool] = lambda number: False,
    ) -> None:
        self.stop, self.stop_epoch = stop, stop_epoch

    def iterations(self, done: int, total: int, losses: Any) -> None:
        if self.stop(done):
            raise Paused(signal.SIGTERM)

    def epoch(self, number: int, epochs: int, history: Any) -> None:
        if self.stop_epoch(number):
            raise Paused(signal.SIGTERM)


def train(
    data: Path,
    out: Path,
    watch: Watch | None = None,
    *,
    every: Every = EVERY_EPOCH,
    resume: bool = True,
    say: Callable[[str], None] = lambda line: None,
    **changes: Any,
) -> Run:
    """Train 3072-2-10 on the noise, 57 iterations an epoch, with those settings changed."""
    parts = {"net": "2", "optimizer": "adam", "lr": 0.01, "batch_size": 1, "epochs": 3}
    parts |= {"lr_decay": 0.5, "lr_decay_every": 1}
    parts |= {key: changes.pop(key) for key in [*changes] if key in Recipe.__annotations__}
    settings = Settings("noise", Recipe(**parts), **({"backend": "numpy"} | changes))  # type: ignore[arg-type]

    def watching(run: Run) -> AbstractContextManager[Watch]:
        return nullcontext(watch or Watch())

    return train_run(settings, lambda: data, out, watching, every=every, resume=resume, say=say)


def final(folder: Path) -> dict[str, bytes]:
    """What an uninterrupted run leaves, too."""
    return {name: (folder / name).read_bytes() for name in FINAL}


def environment() -> dict[str, str]:
    """For a worker: it finds what this process does, and has threads that a fork doesn't miss."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "MLPKIT_THREADS": "1"}


WORKER = [sys.executable, "-c", "from tests.small_runs import work; work()"]


def work() -> None:
    """Read, a line each: a JSON object with the data, the run's folder, and the share of a whole
    run's time after which to kill it (null: never). Answer how the process that resumed it ended:
    killed, done, or what it raised."""
    whole = 0.0
    for line in sys.stdin:
        order = json.loads(line)
        began, fresh = time.monotonic(), not Path(order["out"]).exists()
        share = order["share"]
        said = live(
            Path(order["data"]), Path(order["out"]), None if share is None else share * whole
        )
        if fresh and said == "done":  # the latest: the machine may be busier now, or less
            whole = time.monotonic() - began
        print(json.dumps(said), flush=True)


def live(data: Path, out: Path, seconds: float | None) -> str:
    """Resume the run in a process of its own, killed after so many seconds."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            train(data, out, every=Every(iterations=random.Random(str(out)).randint(5, 40)))
            os.write(theirs, b"done")
        except BaseException:
            os.write(theirs, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(theirs)
    until = time.monotonic() + (60 if seconds is None else seconds)
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() >= until:
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(0.0005)
    os.waitpid(child, 0)
    with os.fdopen(ours, "rb") as said:
        return said.read().decode() or "killed"
