"""A file that is cut anywhere, or goes on after its end, is damaged, and said to be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from mlpkit.checkpoint import CheckpointError, load_weights
from tests.conftest import Torture
from tests.small_runs import train, write_data


def test_every_length(tmp_path: Path, torture: Torture) -> None:
    train(write_data(tmp_path), tmp_path / "run", epochs=1, net="1", optimizer="sgd")
    theirs = tmp_path / "theirs.safetensors"
    save_file(load_weights(tmp_path / "run" / "best.safetensors"), theirs)
    lengths = 0
    for path in (*(tmp_path / "run" / f"{name}.safetensors" for name in ("last", "best")), theirs):
        whole = path.stat().st_size
        with path.open("ab") as file:
            file.write(b" ")
        with pytest.raises(CheckpointError, match="is damaged or no safetensors file"):
            load_weights(path)
        for length in range(whole - 1, -1, -torture.times(29, 1)):
            os.truncate(path, length)
            with pytest.raises(CheckpointError, match="is damaged or no safetensors file"):
                load_weights(path)
            lengths += 1
    torture.figure(f"truncation: {lengths} lengths of a checkpoint and weights, all found")
