"""No bit of a file that mlpkit wrote changes unseen."""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from mlpkit.checkpoint import CheckpointError, load_weights, save_weights
from tests.conftest import Torture
from tests.small_runs import train, write_data


def seen(path: Path, bits: Iterable[int], checked: bool) -> int:
    """How many of the bits are missed when they change, one at a time; each is set back."""
    missed = 0
    with path.open("r+b", buffering=0) as file:
        for bit in bits:
            file.seek(bit // 8)
            (byte,) = file.read(1)
            file.seek(bit // 8)
            file.write(bytes([byte ^ 1 << bit % 8]))
            with suppress(CheckpointError):
                load_weights(path, checked=checked)
                missed += 1
            file.seek(bit // 8)
            file.write(bytes([byte]))
    load_weights(path, checked=True)
    return missed


@pytest.mark.parametrize("checked", [True, False])
def test_every_bit_of_a_small_file(tmp_path: Path, torture: Torture, checked: bool) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(3)})
    bits = 8 * path.stat().st_size
    assert seen(path, range(0, bits, torture.times(3, 1)), checked) == 0
    torture.figure(
        f"bit flips: {bits // torture.times(3, 1)} of the {bits} bits of a small file, "
        f"{'as a run reads it' if checked else 'as anyone may give it'}, all found"
    )


def test_random_bits_of_a_runs_files(tmp_path: Path, torture: Torture) -> None:
    train(write_data(tmp_path), tmp_path / "run", epochs=1)
    rng, n = random.Random(3), torture.times(500, 10_000)
    for name in ("last.safetensors", "best.safetensors"):
        path = tmp_path / "run" / name
        bits = [rng.randrange(8 * path.stat().st_size) for _ in range(n)]
        assert seen(path, bits, checked=name == "last.safetensors") == 0
    torture.figure(f"bit flips: {n} in a checkpoint and {n} in best weights, all found")
