"""`mlpkit doctor`, and finding CuPy."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlpkit_backends
from mlpkit import cli
from mlpkit_backends import BackendUnavailable, available, cuda_device, cuda_find, load
from mlpkit_backends.cublas import CublasError
from tests.cuda_fakes import CUDARuntimeError, gpu


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Backends looked for anew in the test, and forgotten after it."""
    mlpkit_backends._find.cache_clear()
    yield
    mlpkit_backends._find.cache_clear()


def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The command's status and what it prints."""
    monkeypatch.setattr("sys.argv", ["mlpkit", "doctor"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert err == ""
    return int(ended.value.code or 0), out


def test_each_backend_with_its_state(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLPKIT_BACKEND", "numpy")
    status, out = doctor(monkeypatch, capsys)
    assert status == 0
    for name, state in available().items():
        assert any(line.split() == [name, *state.split()] for line in out.splitlines())
    for what in ("processor: ", "threads: ", "BLAS: openblas"):
        assert what in out
    assert "MLPKIT_BACKEND is 'numpy'" in out
    assert out.splitlines()[-1] == "The default backend is numpy."


def test_a_default_that_does_not_work_is_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setenv("MLPKIT_BACKEND", "cupy")
    status, out = doctor(monkeypatch, capsys)
    assert status == 2
    assert "The default backend doesn't work: backend cupy can't be used: CuPy is not" in out
    assert 'pip install "cupy-cuda13x[ctk]"' in out


def test_a_number_of_threads_that_is_none_is_said_beside_what_is_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLPKIT_THREADS", "many")
    status, said = doctor(monkeypatch, capsys)
    assert status == 2
    assert "MLPKIT_THREADS is 'many'" in said
    assert said.endswith("must be a number of threads, at least 1; got 'many'\n")


def test_two_wheels_are_an_error_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def distribution(name: str) -> types.SimpleNamespace:
        return types.SimpleNamespace(metadata={"Name": name}, version="14.2.0")

    names = ("numpy", "cupy-cuda12x", "cupy_helpers", "cupy-cuda13x")
    monkeypatch.setattr(cuda_find, "distributions", lambda: map(distribution, names))
    with pytest.raises(
        BackendUnavailable,
        match=r"2 wheels .*cupy-cuda12x 14\.2\.0 and cupy-cuda13x 14\.2\.0, .*"
        r"pip uninstall cupy-cuda12x cupy-cuda13x, then ",
    ):
        load("cupy")


def test_a_package_that_is_half_removed_is_no_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no name; from Python 3.12 on, asking for it warns, which is an error here."""
    for folder, metadata in (
        ("half-1.0.dist-info", None),
        ("empty-1.0.dist-info", "\n"),
        ("cupy_cuda12x-14.2.0.dist-info", "Name: cupy-cuda12x\nVersion: 14.2.0\n"),
    ):
        (tmp_path / folder).mkdir()
        if metadata is not None:
            (tmp_path / folder / "METADATA").write_text(metadata)
    found = importlib.metadata.distributions(path=[str(tmp_path)])
    monkeypatch.setattr(cuda_find, "distributions", lambda: found)
    assert cuda_find.wheels() == ["cupy-cuda12x 14.2.0"]


def test_a_cupy_for_another_makers_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = types.SimpleNamespace(is_hip=True)
    fake = types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime))
    monkeypatch.setitem(sys.modules, "cupy", fake)  # type: ignore[arg-type]
    with pytest.raises(BackendUnavailable, match=r"made for AMD's ROCm.*pip install"):
        load("cupy")


@pytest.mark.parametrize(
    ("error", "how"),
    [
        (None, "as CUDA graphs of cuBLAS's products (CUPY_TF32=1 asks for products in TF32"),
        (CublasError("cuBLAS can't be loaded (no such file)"), "op by op (cuBLAS can't be loaded"),
        (CUDARuntimeError("cudaErrorStreamCaptureUnsupported: no"), "op by op (cudaErrorStreamCap"),
    ],
)
def test_what_is_known_of_a_gpu(
    error: Exception | None, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Device:
        def __init__(self, dtype: str, fused: bool = False) -> None:
            assert dtype == "float32"

        def try_out(self) -> None:
            if error is not None:
                raise error

    monkeypatch.setattr(cuda_device, "CudaDevice", Device)
    monkeypatch.setenv("CUPY_TF32", "1")
    details = gpu().details()
    assert details["device"] == "NVIDIA Test, compute capability 12.0"
    assert details["memory"] == "3.0 GiB of 80.0 GiB free"
    assert details["driver"] == "for CUDA 13.0"
    assert details["CUDA runtime"] == "13.2"
    assert details["TF32"].startswith("on")
    assert details["training steps"].startswith(how)


def test_a_device_that_is_gone_when_it_is_asked_about(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = gpu()

    def gone() -> None:
        raise CUDARuntimeError("cudaErrorDevicesUnavailable: gone")

    backend.xp.cuda.runtime.memGetInfo = gone
    monkeypatch.setitem(mlpkit_backends._MAKERS, "cupy", lambda: backend)
    monkeypatch.setenv("MLPKIT_BACKEND", "numpy")
    status, out = doctor(monkeypatch, capsys)
    assert status == 2
    assert "the GPU failed (cudaErrorDevicesUnavailable: gone)" in out
