"""One seed, one result: runs with the same seed leave the same bytes."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Torture
from tests.small_runs import final, train, write_data


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, torture: Torture) -> None:
    data, n = write_data(tmp_path), torture.times(3, 20)
    runs = []
    for i in range(n):
        train(data, tmp_path / f"run{i}", keep_prob=0.5, seed=7)
        runs.append(final(tmp_path / f"run{i}"))
    assert all(run == runs[0] for run in runs)
    train(data, tmp_path / "other", keep_prob=0.5, seed=8)
    assert all(content != runs[0][name] for name, content in final(tmp_path / "other").items())
    torture.figure(f"seeds: {n} runs with one seed, the same bytes")
