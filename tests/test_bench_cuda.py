"""The GPU's measurements, run on a CPU: that each part ends, and finds what is known here."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from bench import cuda
from mlpkit import benchmark
from mlpkit_backends import load


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> argparse.Namespace:
    """Short turns on a small training set."""
    monkeypatch.setattr(benchmark, "IMAGES", 2100)
    monkeypatch.setattr(cuda, "cases", lambda given: [("fcn", "adam")])
    return argparse.Namespace(seconds=0.01, rounds=2, out=tmp_path)


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_parity_of_a_cpu_with_itself(name: str, given: argparse.Namespace) -> None:
    if name == "numba":
        pytest.importorskip("numba")
    found = cuda.parity(load(name), given)
    for what, value in found.items():
        if what.endswith("bit-identical"):
            assert value is True, what
        else:
            limit = float(what.rpartition("(")[2].rstrip(")"))
            assert value <= limit, what


def test_rates_have_both_ways_and_their_rounds(given: argparse.Namespace) -> None:
    (row,) = cuda.rates(load("numpy"), given).values()
    assert row["steps"] == "on kept buffers"
    assert len(row["whole steps"]["rounds"]) == len(row["op by op"]["rounds"]) == 2


def test_a_part_is_added_to_the_file(
    given: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--backend", "numpy", "--out", str(given.out), "--seconds", "0.01"]
    for part in ("rates", "parity"):
        monkeypatch.setattr("sys.argv", ["cuda.py", part, *arguments, "--rounds", "1"])
        cuda.main()
    (file,) = given.out.iterdir()
    assert {"backend", "versions", "rates", "parity"} <= json.loads(file.read_text()).keys()
    assert str(file) in capsys.readouterr().out
