"""What bench/peers.py and bench/scaling.py refuse before they measure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numba")
from bench import peers

BENCH = Path(__file__).parents[1] / "bench"


def refused(script: str, *arguments: str) -> str:
    """What is said in the end, where nothing is measured."""
    command = [sys.executable, str(BENCH / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("peers.py --rounds 0", "--rounds: must be a whole number, at least 1; got 0"),
        ("peers.py --seconds inf", "--seconds: must be positive and finite; got inf"),
        ("scaling.py --seconds -1", "--seconds: must be positive and finite; got -1.0"),
        ("peers.py --out /dev/null", "/dev/null can't be made (File exists): name another folder"),
        ("scaling.py --out /dev/null/x", "can't be made (Not a directory): name another folder"),
        ("scaling.py --backend foo", "backend must be one of auto, cupy, numba, numpy; got 'foo'"),
    ],
)
def test_what_cannot_be_measured(arguments: str, said: str) -> None:
    assert refused(*arguments.split()).endswith(said)


@pytest.mark.parametrize("differing", ["blas", "seconds", "versions"])
def test_figures_of_another_machine_are_not_mixed(tmp_path: Path, differing: str) -> None:
    from mlpkit.benchmark import machine

    target, cases = tmp_path / "cpu.json", [("fcn", "sgd")]
    rows = [{"workload": "fcn", "optimizer": rule} for rule in ("sgd", "adam")]
    about: dict[str, Any] = machine() | {"seconds": 2.0}
    assert peers.found_before(target, about, cases) == []
    target.write_text(json.dumps({**about, "results": rows}))
    assert peers.found_before(target, about, cases) == rows[1:]
    target.write_text(json.dumps({**about, differing: "other", "results": rows}))
    with pytest.raises(SystemExit, match=f"measured with another {differing}: name another folder"):
        peers.found_before(target, about, cases)
    assert (
        peers.found_before(target, about, [*cases, ("fcn", "adam")]) == []
    )  # all are measured anew


def test_what_is_measured_before_a_stop_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, str]] = []
    lasts = 2  # cases, until Ctrl-C

    def compare(workload: str, optimizer: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
        if len(asked) == lasts:
            raise KeyboardInterrupt
        asked.append((workload, optimizer))
        figures = {"iterations_per_second": 2.0, "rounds": [2.0], "mlpkit_is_times_as_fast": 1.0}
        names = ("mlpkit numba", "JAX scan")
        about = {"workload": workload, "optimizer": optimizer}
        return [{"contender": name, **about, **figures} for name in names]

    def run(*options: str) -> None:
        monkeypatch.setattr(sys, "argv", ["peers.py", "--out", str(tmp_path), *options])
        peers.main()

    monkeypatch.setattr(peers, "compare", compare)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)
    target = peers.benchmark.results_path(tmp_path, "cpu")
    partial = target.with_suffix(".partial.json")
    with pytest.raises(SystemExit, match=f"^stopped; the cases above are in {partial}$"):
        run("--workload", "fcn")
    assert not target.exists()
    with pytest.raises(SystemExit, match=r"^stopped$"):
        run("--workload", "tinynet")
    lasts = 9
    run("--workload", "fcn", "--optimizer", "adam")
    assert not partial.exists()
    rows = json.loads(target.read_text())["results"]
    kept = dict.fromkeys((row["workload"], row["optimizer"]) for row in rows)
    assert list(kept) == [("fcn", "sgd"), ("fcn", "sgdm"), ("fcn", "adam")]
    lasts = 3
    with pytest.raises(SystemExit, match=r"^stopped$"):
        run("--workload", "tinynet")
    assert json.loads(target.read_text())["results"] == rows


@pytest.mark.parametrize("content", ["[]", "{bad", "{}", '{"results": [1]}'])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "cpu.json").write_text(content)
    with pytest.raises(SystemExit, match=r"is no file of bench/peers\.py's"):
        peers.found_before(tmp_path / "cpu.json", {}, [])
