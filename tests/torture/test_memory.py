"""A run that goes on for hours holds no more than after its first epoch."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Torture
from tests.small_runs import Watch, train, write_data

RATE = 3800  # iterations per second of FullyConnectedNetwork with SGD on two cores
PER_EPOCH = 1562  # of 50000 images in batches of 32


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Grown(Watch):
    """Notes the memory after the second epoch, and the most afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.most = 0

    def epoch(self, number: int, epochs: int, history: Any) -> None:
        if number == 2:
            self.first = resident()
        elif number % 16 == 0:
            self.most = max(self.most, resident())


class CheapSteps:
    """A step that does nothing but give losses."""

    how = "not at all"

    def __init__(self, *_: Any) -> None:
        self.step, self.rng = self, np.random.default_rng(0)

    def __call__(self, order: Any) -> Any:
        return self.rng.random(len(order), np.float32)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux")
def test_memory_is_flat(tmp_path: Path, torture: Torture, monkeypatch: pytest.MonkeyPatch) -> None:
    # The loop, the record, history.csv and the checkpoints are the real ones.
    monkeypatch.setattr("mlpkit.training.CompiledTraining", CheapSteps)
    monkeypatch.setattr("mlpkit.training.score_all", lambda *_, **settings: (1.0, 0.5))
    monkeypatch.setattr("mlpkit.recording.plot_runs", lambda folders, out: None)
    monkeypatch.setattr("mlpkit.history_file.sync", lambda path: None)
    monkeypatch.setattr("mlpkit.files.sync", lambda path: None)
    epochs = torture.times(200, 8 * 3600 * RATE // PER_EPOCH)
    data, watch, began = write_data(tmp_path, 1700), Grown(), time.monotonic()
    run = train(data, tmp_path / "run", watch, epochs=epochs, lr_decay=1.0, train_size=PER_EPOCH)
    assert run.summary["iterations"] == epochs * PER_EPOCH
    (tmp_path / "run" / "history.csv").unlink()  # gigabytes, at full length
    grown = watch.most - watch.first
    assert grown < 5 << 20
    torture.figure(
        f"memory: {epochs * PER_EPOCH} iterations, {epochs} epochs, each with a checkpoint: "
        f"{grown / 2**20:+.2f} MiB after the second; {time.monotonic() - began:.0f} s"
    )
