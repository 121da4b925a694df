"""`mlpkit doctor`, and what is said of a GPU that fails."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

import mlpkit_backends
from mlpkit import MLP, Adam, Batches, CrossEntropy, cli
from mlpkit.planning import make_plan
from mlpkit_backends import (
    Backend,
    BackendUnavailable,
    DeviceError,
    available,
    captured,
    cuda_device,
    cuda_find,
    load,
)
from mlpkit_backends.base import EagerStep
from mlpkit_backends.cublas import CublasError
from mlpkit_backends.cuda import CupyBackend
from mlpkit_backends.cuda_find import try_out
from mlpkit_backends.plan import Plan


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


def test_a_cupy_for_another_makers_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = types.SimpleNamespace(is_hip=True)
    fake = types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime))
    monkeypatch.setitem(sys.modules, "cupy", fake)  # type: ignore[arg-type]
    with pytest.raises(BackendUnavailable, match=r"made for AMD's ROCm.*pip install"):
        load("cupy")


def cupys(name: str, module: str, base: type[Exception] = RuntimeError) -> type[Exception]:
    """A class as CuPy's is called; CuPy itself need not be there."""
    return type(name, (base,), {"__module__": module})


OutOfMemoryError = cupys("OutOfMemoryError", "cupy.cuda.memory", MemoryError)
CUDARuntimeError = cupys("CUDARuntimeError", "cupy_backends.cuda.api.runtime")
CUDADriverError = cupys("CUDADriverError", "cupy_backends.cuda.api.driver")
CUBLASError = cupys("CUBLASError", "cupy_backends.cuda.libs.cublas")
NVRTCError = cupys("NVRTCError", "cupy_backends.cuda.libs.nvrtc")
CompileException = cupys("CompileException", "cupy.cuda.compiler", Exception)
KINDS = (CUDARuntimeError, CUDADriverError, CUBLASError, NVRTCError, CompileException, CublasError)


def test_cupys_kinds_are_where_they_are_looked_for() -> None:
    cupy = pytest.importorskip("cupy")
    space = cupy.cuda
    for kind, ours in (
        (space.memory.OutOfMemoryError, OutOfMemoryError),
        (space.runtime.CUDARuntimeError, CUDARuntimeError),
        (space.driver.CUDADriverError, CUDADriverError),
        (space.compiler.CompileException, CompileException),
    ):
        assert (kind.__name__, kind.__module__) == (ours.__name__, ours.__module__)
        assert issubclass(kind, ours.__bases__)


def gpu() -> CupyBackend:
    """The backend over a device with 3 GiB of 80 free."""
    runtime = types.SimpleNamespace(
        memGetInfo=lambda: (3 << 30, 80 << 30),
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13020,
        getDeviceProperties=lambda number: {"name": b"NVIDIA Test"},
    )
    space = types.SimpleNamespace(
        runtime=runtime,
        Device=lambda: types.SimpleNamespace(id=0, compute_capability="120"),
    )
    backend = CupyBackend.__new__(CupyBackend)
    backend.name = "cupy"
    backend.xp = types.SimpleNamespace(cuda=space, __version__="14.2.0")
    return backend


def raise_within(backend: Backend, error: Exception) -> None:
    """Raise the error where the backend's failures are told."""
    with backend.failures():
        raise error


def test_out_of_memory_says_how_much_and_what_to_lower() -> None:
    error = OutOfMemoryError("Out of memory allocating 5,368,709,120 bytes (allocated so far: 1).")
    with pytest.raises(DeviceError) as caught:
        raise_within(gpu(), error)
    said = str(caught.value)
    for part in ("5.0 GiB was asked for", "3.0 GiB of 80.0 GiB is free", "lower --batch-size"):
        assert part in said


def test_memory_that_runs_out_below_cupy_is_the_same_sentence() -> None:
    error = CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")
    error.status = 2  # type: ignore[attr-defined]
    with pytest.raises(DeviceError, match=r"too small: more was asked for, 3\.0 GiB"):
        raise_within(gpu(), error)


def test_memory_that_runs_out_where_the_device_is_gone_too() -> None:
    backend = gpu()

    def gone() -> None:
        raise CUDARuntimeError("cudaErrorDevicesUnavailable")

    backend.xp.cuda.runtime.memGetInfo = gone
    with pytest.raises(DeviceError, match="more was asked for: lower --batch-size"):
        raise_within(backend, OutOfMemoryError("no room"))


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError("x"), RuntimeError("x")])
def test_what_is_not_the_gpus_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error), match="x"):
        raise_within(gpu(), error)


@pytest.mark.parametrize("kind", KINDS)
def test_a_device_that_fails_is_a_sentence(kind: type[RuntimeError]) -> None:
    said = r"the GPU failed \(cudaErrorDevicesUnavailable: gone\): .* see that `nvidia-smi`"
    with pytest.raises(DeviceError, match=said):
        raise_within(gpu(), kind("cudaErrorDevicesUnavailable: gone\nmore"))


def test_what_is_known_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUPY_TF32", "1")
    details = gpu().details()
    assert details["device"] == "NVIDIA Test, compute capability 12.0"
    assert details["memory"] == "3.0 GiB of 80.0 GiB free"
    assert details["driver"] == "for CUDA 13.0"
    assert details["CUDA runtime"] == "13.2"
    assert details["TF32"].startswith("on")
    assert details["training steps"].startswith(("as CUDA graphs", "op by op (cuBLAS can't be"))


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


def tried(**failing: Exception | str) -> str:
    """What is said of a CuPy whose kernel or product fails, or warns and then fails."""

    def fails(what: str):
        def work(*_: object):
            error = failing.get(what)
            if isinstance(error, str):
                warnings.warn(error, stacklevel=1)
                raise AssertionError("*** The requested function is not supported")
            if error is not None:
                raise error

        return work

    stream = types.SimpleNamespace(synchronize=lambda: None)
    fake = types.SimpleNamespace(
        zeros=lambda *_: None,
        float32=None,
        ElementwiseKernel=lambda *_: fails("kernel"),
        matmul=fails("product"),
        cuda=types.SimpleNamespace(get_current_stream=lambda: stream),
    )
    with pytest.raises(BackendUnavailable) as caught:
        try_out(fake, INSTALL)
    said = str(caught.value)
    assert "\n" not in said
    return said


INSTALL = 'pip install "cupy-cuda12x[ctk]"'


def test_what_cupy_lacks_is_named_with_the_line_that_brings_it() -> None:
    headers = RuntimeError("Failed to find CUDA headers. Please install them")
    blas = ImportError('Failure finding "libcublasLt.so.13"\n  listdir: nothing')
    for given, parts in (
        ({"kernel": headers}, ("NVRTC and CUDA's headers (Failed to find CUDA headers",)),
        ({"kernel": CompileException("kern.cu(1): error: x\n\n")}, ("kern.cu(1): error: x)",)),
        ({"kernel": "CuPy failed to load libnvrtc.so.13: OSError"}, ("load libnvrtc.so.13",)),
        ({"product": blas}, ("needs cuBLAS", "libcublasLt.so.13")),
        ({"product": CUBLASError("CUBLAS_STATUS_NOT_INITIALIZED")}, ("needs cuBLAS (CUBLAS_",)),
    ):
        said = tried(**given)
        assert said.endswith(INSTALL)
        for part in parts:
            assert part in said


@pytest.mark.parametrize("kind", [CUDARuntimeError, CUDADriverError, OutOfMemoryError])
def test_a_device_that_does_not_work_is_not_blamed_on_the_installation(
    kind: type[Exception],
) -> None:
    said = tried(kernel=kind("cudaErrorDevicesUnavailable: busy"))
    assert "cudaErrorDevicesUnavailable: busy" in said
    assert "nvidia-smi" in said
    assert "pip install" not in said


@pytest.mark.parametrize(
    ("installed", "line"),
    [
        ([], 'pip install "cupy-cuda13x[ctk]"'),
        (["cupy 14.2.0"], 'pip install "cupy-cuda13x[ctk]"'),
        (["cupy-cuda12x 14.2.0"], 'pip install "cupy-cuda12x[ctk]"'),
    ],
)
def test_the_line_is_for_the_wheel_that_is_there(installed: list[str], line: str) -> None:
    assert cuda_find.cure(installed) == line


def plan_of_a_step() -> Plan:
    """A small one, with Adam."""
    model = MLP((12, 4, 3), seed=0, backend="numpy")
    images = np.zeros((8, 2, 2, 3), np.uint8)
    split = Batches.of(model.backend, images, np.zeros(8, int), "float64", np.zeros(3))
    return make_plan(model, CrossEntropy(backend="numpy"), Adam(model, 0.1), split, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_no_graph_can_be_made_of_runs_op_by_op(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def device(dtype: str) -> None:
        raise kind("not permitted\nwhile a stream records")

    monkeypatch.setattr(cuda_device, "CudaDevice", device)
    step = gpu().compile(plan_of_a_step())
    assert isinstance(step, EagerStep)
    assert step.how == "op by op (no graph could be made: not permitted)"


@pytest.mark.parametrize("error", [OutOfMemoryError("no room"), TypeError("a mistake")])
def test_what_op_by_op_would_not_mend_goes_on(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def device(dtype: str) -> None:
        raise error

    monkeypatch.setattr(cuda_device, "CudaDevice", device)
    with pytest.raises(type(error)):
        gpu().compile(plan_of_a_step())


def test_a_step_with_more_elements_than_kernels_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "LARGEST", 47)
    assert "more than 47 elements" in gpu().compile(plan_of_a_step()).how
