"""The benchmark measures what it says: whole steps, every backend that runs, medians of rounds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.container import BarContainer

from mlpkit import benchmark
from mlpkit.commands import app
from mlpkit_backends import available


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training set that is made in no time."""
    monkeypatch.setattr(benchmark, "IMAGES", 2100)


def run(*arguments: str) -> None:
    """The command, to its end."""
    app(list(arguments), standalone_mode=False)


def test_all_is_what_runs_here() -> None:
    cases = benchmark.cases("all", None, None, None, "float32")
    running = [name for name, state in available().items() if state == "ok"]
    assert {case.backend for case in cases} == set(running)
    assert len(cases) == 2 * 4 * len(running)
    assert {(case.workload, case.batch_size) for case in cases} == {("tinynet", 64), ("fcn", 32)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("numpy", "lenet", None, None), "the workload must be one of tinynet, fcn; got 'lenet'"),
        (
            ("numpy", None, "lion", None),
            "the optimizer must be one of sgd, .*; got 'lion'",
        ),
        (("numpy", None, None, 0), "batch size must be from 1 to .*; got 0"),
        (("numpy", None, None, 10**6), "batch size must be from 1 to .*; got 1000000"),
        (("abacus", None, None, None), "backend must be one of"),
    ],
)
def test_what_cannot_be_measured(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        benchmark.cases(*arguments, "float32")


@pytest.mark.parametrize(("asked", "measured"), [("numpy", {"numpy"}), ("all", None)])
def test_the_environment_names_the_backend(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, measured: set[str]
) -> None:
    monkeypatch.setenv("MLPKIT_BACKEND", asked)
    case = ("--workload", "fcn", "--optimizer", "sgd", "--seconds", "0.01")
    run("bench", *case, "--json", str(tmp_path / "bench.json"))
    rows = json.loads((tmp_path / "bench.json").read_text())["results"]
    here = {name for name, state in available().items() if state == "ok"}
    assert {row["backend"] for row in rows} == (measured or here)


def test_orders_are_permutations_epoch_after_epoch(small: None) -> None:
    batches = benchmark.orders(batch_size=16)  # 4 chunks of 512 in 2100 images
    first, second = (np.concatenate([next(batches) for _ in range(4)]) for _ in range(2))
    for epoch in (first, second):
        assert epoch.shape == (128, 16)
        assert len(np.unique(epoch)) == 2048
    assert not np.array_equal(first, second)


def test_the_rate_counts_iterations_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: clock[0])

    def chunk(order: object) -> list[float]:
        clock[0] += 0.4  # 32 iterations in 0.4 s
        return [0.0] * 32

    def orders() -> Iterator[int]:
        while True:
            clock[0] += 0.1  # nobody's time
            yield 0

    assert benchmark.rate(chunk, orders(), 1.0) == pytest.approx(80.0)
    assert benchmark.rate(chunk, orders(), 1e-9) == pytest.approx(80.0)  # one chunk


@pytest.mark.parametrize(
    ("each", "batch_size", "expected"),
    [
        (0.01, 16, 32),  # s: 32 take more than 0.05 s
        (0.0004, 16, 64),  # 128 would take 0.0512 s
        (0.0003, 16, 128),
        (1e-6, 16, 128),  # an epoch of 2100 has 131
        (1e-6, 65, 32),
    ],
)
def test_as_many_steps_at_a_time_as_a_device_is_let_alone_for(
    each: float, batch_size: int, expected: int, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: clock[0])

    def run(order: np.ndarray) -> np.ndarray:
        clock[0] += each * len(order)
        return order[:, 0]

    assert benchmark.chunk_of(run, batch_size) == expected


def test_a_table_a_file_and_a_picture(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures, picture = tmp_path / "bench.json", tmp_path / "bench.png"
    run(
        *("bench", "--backend", "numpy", "--workload", "fcn", "--optimizer", "sgd"),
        *("--seconds", "0.1", "--json", str(figures), "--plot", str(picture)),
    )
    shown = capsys.readouterr().out
    assert "fcn" in shown
    assert "iterations/s" in shown
    content = json.loads(figures.read_text())
    (row,) = content["results"]
    assert {"processor", "threads", "versions"} <= content.keys()
    assert (row["backend"], row["optimizer"], row["dtype"]) == ("numpy", "sgd", "float32")
    assert len(row["rounds"]) == benchmark.ROUNDS
    assert row["iterations_per_second"] == pytest.approx(np.median(row["rounds"]), abs=0.01)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_seconds_must_be_positive(seconds: str) -> None:
    with pytest.raises(
        ValueError, match=f"--seconds must be positive and finite; got {float(seconds)}"
    ):
        run("bench", "--seconds", seconds)


def test_bars_stand_where_their_optimizer_is() -> None:
    results = [
        {"workload": w, "optimizer": o, "backend": b, "iterations_per_second": r, "rounds": [r]}
        for w, o, b, r in [
            ("fcn", "sgd", "numpy", 10.0),
            ("fcn", "sgd", "numba", 20.0),
            ("fcn", "adam", "numba", 30.0),
        ]
    ]
    figure = benchmark.bar_figure(results, "a machine")
    (axes,) = figure.axes
    assert axes.get_title() == "FullyConnectedNetwork, batch 32"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["sgd", "adam"]
    bars = [c for c in axes.containers if isinstance(c, BarContainer)]
    heights = {c.get_label(): [bar.get_height() for bar in c] for c in bars}
    assert heights == {"numpy": [10.0], "numba": [20.0, 30.0]}
    places = [bar.get_x() + bar.get_width() / 2 for bar in bars[1]]
    assert [round(place) for place in places] == [0, 1]


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_a_file_that_cannot_be_written_is_said_before_measuring(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(ValueError, match=r"there is no folder .*missing for x\.png: make it first"):
        run("bench", "--backend", "numpy", option, str(tmp_path / "missing" / "x.png"))


def test_figures_and_picture_have_places_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "measure", lambda *_: pytest.fail("measured"))
    picture, same = tmp_path / "x.png", tmp_path / "." / "x.png"
    with pytest.raises(ValueError, match=r"x\.png is named twice, and would be written over"):
        run("bench", "--backend", "numpy", "--plot", str(picture), "--json", str(same))
    assert list(tmp_path.iterdir()) == []
