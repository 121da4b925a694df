"""The GPU's measurements, run on a CPU: that each part ends, and finds what is known here."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import gpu, gpu_parity, gpu_table
from bench.contenders import GPU_CONTENDERS
from bench.turns import Turns, figures
from mlpkit import benchmark
from mlpkit_backends import Backend, cuda_device, load
from tests.cuda_double import CapturedBackend, DeviceDouble

ROOT = Path(__file__).parents[1]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> argparse.Namespace:
    """Short turns on a small training set."""
    monkeypatch.setattr(benchmark, "IMAGES", 2100)
    monkeypatch.setattr(gpu, "cases", lambda: [("fcn", "adam")])
    monkeypatch.setattr(gpu, "STEPS", 64)
    return argparse.Namespace(seconds=0.01, rounds=2, cases=None, elements=1 << 12, out=tmp_path)


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_parity_of_a_cpu_with_itself(name: str) -> None:
    if name == "numba":
        pytest.importorskip("numba")
    found = list(gpu_parity.parity(load(name)))
    assert len(found) > 50
    for what, error, limit in found:
        assert error <= limit, what


def test_every_kernel_of_a_graph_agrees_with_its_ops() -> None:
    backend = CapturedBackend()
    for what, error, limit in gpu_parity.same_steps(backend):
        assert error <= limit, what
    # A GPU's backend makes graphs of no others.
    assert all(step.plan.images.dtype in ("uint8", step.plan.dtype) for step in backend.steps)


def test_steps_that_are_not_whole_are_no_parity() -> None:
    *_, last = gpu_parity.same_steps(Backend("numpy", np))
    assert last == ("whole steps that ran op by op", 34, 0)


class Off(Backend):
    """A backend with an op that is wrong by a little."""

    def softmax(self, x: Any) -> Any:
        return super().softmax(x) * (1 + 1e-9)


def test_parity_fails_by_its_limit(
    given: argparse.Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not gpu.run("parity", Off("numpy", np), given)
    out = capsys.readouterr().out
    assert "float64 losses of 100 steps" in out
    assert "FAILED" in out
    (file,) = given.out.iterdir()
    found = json.loads(file.read_text())["parity"]
    assert not found["sgd: float64 losses of 100 steps"]["within"]
    assert found["weights, bits that differ"] == {"error": 0, "limit": 0, "within": True}


def test_bits_are_counted() -> None:
    one = np.array([1.0, 2.0], np.float32)
    other = one.copy()
    other.view(np.uint32)[1] ^= 0b101
    assert gpu_parity.bits(one, one.copy()) == 0
    assert gpu_parity.bits(one, other) == 2
    assert gpu_parity.bits(one, one.astype("float64")) == float("inf")


def test_no_number_is_beyond_every_limit(given: argparse.Namespace) -> None:
    gpu.PARTS["none"] = lambda backend, given: iter([("what", float("nan"), 1.0)])
    try:
        assert not gpu.run("none", load("numpy"), given)
    finally:
        del gpu.PARTS["none"]


def test_rates_have_both_ways_and_their_rounds(given: argparse.Namespace) -> None:
    (_, row), (what, error, limit) = gpu.rates(load("numpy"), given)
    assert what == "fcn adam: first losses of mlpkit op by op beside mlpkit"
    assert error <= limit
    assert row["steps"] == "on kept buffers"
    assert len(row["mlpkit"]["rounds"]) == len(row["mlpkit op by op"]["rounds"]) == 2


def test_a_gpu_has_graphs_of_cublas_products_between(
    given: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = CapturedBackend()
    backend.name = "cupy"
    monkeypatch.setattr(benchmark, "load", lambda name: backend)
    monkeypatch.setattr(cuda_device, "CudaDevice", DeviceDouble)
    monkeypatch.setattr(gpu, "STEPS", benchmark.CHUNK)
    (_, row), *errors = gpu.rates(backend, given)
    names = ["mlpkit", "mlpkit as graphs of cuBLAS's products", "mlpkit op by op"]
    assert [name for name in row if name != "steps"] == names
    assert all(len(row[name]["rounds"]) == 2 for name in names)
    assert len(errors) == 2
    assert all(error <= limit for _, error, limit in errors)


def test_op_by_op_is_not_handed_an_epoch(
    given: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: dict[str, set[int]] = {}

    def watched(case: benchmark.Case, data: benchmark.Data, make: Any) -> Any:
        seen = handed.setdefault(make.__name__, set())
        return lambda order: seen.add(len(order)) or order[:, 0] + 1.0

    monkeypatch.setattr(benchmark, "CaseRun", watched)
    monkeypatch.setattr(Turns, "how", lambda self, name: "")
    list(gpu.rates(load("numpy"), given))
    assert handed == {"compile": {64}, "<lambda>": {benchmark.CHUNK}}


def test_cases_by_name() -> None:
    assert gpu.chosen("fcn-adam,tinynet-sgd") == [("fcn", "adam"), ("tinynet", "sgd")]
    with pytest.raises(argparse.ArgumentTypeError, match="lenet-sgd: the cases are tinynet-sgd, "):
        gpu.chosen("fcn-adam,lenet-sgd")


def test_ceilings(given: argparse.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    once = gpu.median_seconds
    monkeypatch.setattr(gpu, "median_seconds", lambda backend, work, _=0: once(backend, work, 1))
    found = dict(gpu.ceilings(load("numpy"), given))
    assert all(value > 0 for value in found.values())


def test_a_script_takes_no_librarys_name() -> None:
    """Its folder comes first where Python looks for cuda.pathfinder, which CuPy needs."""
    names = {path.stem for path in (ROOT / "bench").glob("*.py")}
    assert not names & {"cuda", "cupy", "jax", "numpy", "torch"}


def test_a_contender_that_fails_is_left_out_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(benchmark, "IMAGES", 2100)
    calls = []

    def runs(order: Any) -> Any:
        return order[:, 0]

    def fails_later(order: Any) -> Any:
        calls.append(order)
        if len(calls) > 1:
            raise RuntimeError("out of memory\nand more")
        return order[:, 0]

    def cannot() -> Any:
        raise ModuleNotFoundError("No module named 'jax'")

    turns = Turns(32)
    turns.add("ours", lambda: runs)
    turns.add("fails later", lambda: fails_later)
    turns.add("cannot", cannot)
    turns.go(rounds=3, seconds=0.001)
    row = turns.row("ours")
    assert len(row["ours"]["rounds"]) == 3
    assert row["ours"]["mlpkit_is_times_as_fast"] == 1
    assert row["fails later"] == {"left_out": "RuntimeError: out of memory"}
    assert row["cannot"] == {"left_out": "ModuleNotFoundError: No module named 'jax'"}


def test_who_computes_something_else_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "IMAGES", 2100)

    def losing(by: float) -> Any:
        return lambda order: np.where(np.arange(len(order)) < 32, 1 + by, 7 * by)

    turns = Turns(32)
    for name, by in (("ours", 0.0), ("rounding", 1e-7), ("something else", 0.01)):
        turns.add(name, lambda by=by: losing(by), 32 if by else 64)
    turns.add("cannot", lambda: 1 / 0)
    assert turns.apart("ours") == pytest.approx({"rounding": 1e-7, "something else": 0.01})
    assert all(np.isnan(error) for error in turns.apart("cannot").values())


def test_ratios_are_the_median_of_the_rounds() -> None:
    found = figures([1.0, 2.0, 4.0], [3.0, 4.0, 4.0])
    assert found["iterations_per_second"] == 2
    assert found["mlpkit_is_times_as_fast"] == 2
    assert "mlpkit_is_times_as_fast" not in figures([1.0])


def test_each_line_is_written_as_it_is_found(
    given: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(backend: Backend, given: argparse.Namespace):
        yield "first", 1
        raise KeyboardInterrupt

    monkeypatch.setitem(gpu.PARTS, "rates", found)
    with pytest.raises(KeyboardInterrupt):
        gpu.run("rates", load("numpy"), given)
    (file,) = given.out.iterdir()
    assert json.loads(file.read_text()) == {"rates": {"first": 1}}


CRASH = """
import ctypes, sys
from bench import gpu
def found(backend, given):
    for workload, optimizer in given.cases or gpu.cases():
        if (workload, optimizer) == ("tinynet", "adam") and not given.cases:
            ctypes.string_at(0)
        yield f"{workload} {optimizer}", 1
gpu.PARTS["torch"] = found
sys.argv = ["gpu.py", "torch", "--backend", "numpy", *sys.argv[1:]]
gpu.main()
"""


def test_a_crash_loses_nothing_and_the_other_cases_go_on(tmp_path: Path) -> None:
    def run(*options: str) -> tuple[int, str, dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-c", CRASH, "--out", str(tmp_path), *options],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "backends")))},
            capture_output=True,
            text=True,
            check=False,
        )
        (file,) = tmp_path.iterdir()
        return done.returncode, done.stderr, json.loads(file.read_text())["torch"]

    status, said, found = run()
    assert status not in (0, 1, 2)
    assert "Segmentation fault" in said or "access violation" in said
    assert found == {"tinynet sgd": 1, "fcn sgd": 1}
    status, said, found = run("--cases", "tinynet-adam,fcn-adam")
    assert (status, said) == (0, "")
    assert list(found) == ["tinynet sgd", "fcn sgd", "tinynet adam", "fcn adam"]


def test_findings_that_can_not_be_written_are_printed(
    given: argparse.Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    given.out /= "results"
    given.out.write_text("a file where a folder should be")
    assert gpu.run("device", load("numpy"), given)
    *found, last = capsys.readouterr().out.splitlines()
    assert found
    assert last.endswith("can't be written (File exists): what was found stands above alone")


@pytest.mark.parametrize("damage", ['{"device": ', "[1]", b"\xff"])
def test_damaged_findings_are_written_anew(given: argparse.Namespace, damage: str | bytes) -> None:
    assert gpu.run("device", load("numpy"), given)
    (file,) = given.out.iterdir()
    before = file.read_text()
    file.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    assert gpu.run("device", load("numpy"), given)
    assert file.read_text() == before


# What a machine that has only NumPy, CuPy and this tree lacks.
BARE = """
import sys
lacking = "scipy matplotlib safetensors typer rich pooch threadpoolctl numba torch jax".split()
class Lacking:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in lacking:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Lacking())
import numpy
from mlpkit_backends import Backend, _MAKERS
from mlpkit import benchmark
_MAKERS["cupy"] = lambda: Backend("cupy", numpy)
benchmark.IMAGES = 2100
from bench import gpu
from mlpkit.grading import sections
gpu.cases, gpu.STEPS = lambda: [("fcn", "sgd")], 64
gpu.median_seconds = lambda backend, work, repeats=1: work() is None or 1.0
sections.SECTIONS = sections.SECTIONS[:3]
sys.argv = ["gpu.py", *sys.argv[1:]]
gpu.main()
"""


@pytest.mark.parametrize("part", list(gpu.PARTS))
def test_numpy_and_the_tree_are_enough(part: str, tmp_path: Path) -> None:
    options = ["--out", str(tmp_path), "--seconds", "0.01", "--rounds", "1", "--elements", "99"]
    path = os.pathsep.join(map(str, (ROOT, ROOT / "backends")))
    done = subprocess.run(
        [sys.executable, "-c", BARE, part, *options],
        env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (part == "parity"), done.stdout + done.stderr
    if part == "parity":  # the ops alone make no whole steps
        assert [line for line in done.stdout.splitlines() if "FAILED" in line] == [
            f"{'whole steps that ran op by op':60} 34 <= 0  FAILED"
        ]
    # Those two in one process have ended it.
    for library, its_parts in (("torch", ("torch", "slow-torch")), ("jax", ("jax",))):
        assert (f"No module named '{library}'" in done.stdout) == (part in its_parts)


def test_a_backend_that_is_not_there_is_status_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "gpu.py"), "device", "--out", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "backends"), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("device: backend cupy can't be used: ")


def test_tinynets_floor_on_an_h200() -> None:
    found = [round(gpu_table.floor(rule) / 1e3, 1) for rule in ("sgd", "sgdm", "rmsprop", "adam")]
    assert found == [24.8, 18.1, 18.1, 13.7]


def findings(**ratios: float) -> dict[str, Any]:
    """A file's content: TinyNet with SGD, each contender slower than mlpkit by so much."""
    ours = [15000.0, 15000.0]
    rows: dict[str, Any] = {
        "rates": {"steps": "somehow", "mlpkit op by op": figures([5e3] * 2, ours)}
    }
    for part, contenders in GPU_CONTENDERS.items():
        rows[part] = {
            name: figures([rate / ratios.get(part, 2.0) for rate in ours], ours)
            for name in contenders
        }
    content = {
        part: {"tinynet sgd": {"mlpkit": figures(ours, ours), **rows[part]}} for part in rows
    }
    error = {"error": 0.5, "limit": 1e-4, "within": False}
    content["jax"]["tinynet sgd: first losses of JAX scan beside mlpkit"] = error
    content["jax"]["tinynet sgd"]["JAX jit"] = {"left_out": "RuntimeError: out of memory"}
    return content


def test_each_mark_is_beside_the_best_of_its_kind() -> None:
    cases = gpu_table.measured(findings(torch=4.0, jax=1.2) | {"device": {"device": "a card"}})
    sgd = {
        beside: (value, mark)
        for case, beside, value, mark in gpu_table.marks(cases)
        if case == "tinynet sgd"
    }
    assert sgd == {
        "PyTorch eager": (4.0, 3),
        "PyTorch's best graph": (2.0, 1.25),  # the compiled ones
        "JAX's best": (1.2, 1.25),
        "the floor": (pytest.approx(0.604, abs=1e-3), 0.6),
    }
    assert all(
        value is None for case, _, value, _ in gpu_table.marks(cases) if case != "tinynet sgd"
    )


def test_tables_and_a_chart_of_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cuda-card.json"
    file.write_text(json.dumps(findings(jax=1.2)))
    monkeypatch.setattr(sys, "argv", ["gpu_table.py", str(file)])
    gpu_table.main()
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    rows = [[cell.strip() for cell in line.split("│")] for line in lines]
    assert ["mlpkit", "15000"] in rows
    assert ["mlpkit op by op", "5000 (3.00)"] in rows
    assert ["JAX scan", "12500 (1.20)"] in rows
    assert ["JAX jit", "left out"] in rows
    assert ["mlpkit's share of an H200's floor", "0.60"] in rows
    assert ["tinynet sgd", "PyTorch's best graph", "2.00", "1.25", "ok"] in rows
    assert ["tinynet sgd", "JAX's best", "1.20", "1.25", "short"] in rows
    assert ["fcn sgd", "JAX's best", "", "2", "not measured"] in rows
    assert "jax: tinynet sgd: first losses of JAX scan beside mlpkit: 0.5, beyond 0.0001" in lines
    assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"device": {"device": "a card"}}', "has no rates yet"),
        ('{"rates": 3}', r"is no file of bench/gpu\.py's$"),
        ('{"rates": {"tinynet sgd": 3}}', r"is no file of bench/gpu\.py's$"),
        ("[1]", r"is no file of bench/gpu\.py's$"),
        ("{", r"is no file of bench/gpu\.py's: Expecting"),
    ],
)
def test_no_rates_are_a_sentence(
    content: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cuda-card.json"
    file.write_text(content)
    monkeypatch.setattr(sys, "argv", ["gpu_table.py", str(file)])
    with pytest.raises(SystemExit, match=said):
        gpu_table.main()
