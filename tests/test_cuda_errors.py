"""What is said of a GPU that fails, and of a CuPy that lacks something."""

from __future__ import annotations

import types
import warnings

import numpy as np
import pytest

from mlpkit import MLP, Adam, Batches, CrossEntropy
from mlpkit.planning import make_plan
from mlpkit_backends import (
    Backend,
    BackendUnavailable,
    DeviceError,
    captured,
    cuda_device,
    cuda_find,
)
from mlpkit_backends.base import EagerStep
from mlpkit_backends.captured import CapturedStep
from mlpkit_backends.cublas import CublasError, tf32
from mlpkit_backends.cuda_find import try_out
from mlpkit_backends.fused import FusedStep
from mlpkit_backends.plan import Plan
from tests.cuda_double import DeviceDouble
from tests.cuda_fakes import (
    KINDS,
    CompileException,
    CUBLASError,
    CUDADriverError,
    CUDARuntimeError,
    OutOfMemoryError,
    fake_device,
    gpu,
)


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


@pytest.mark.parametrize(
    "error",
    [
        CUDARuntimeError("cudaErrorMemoryAllocation: out of memory"),
        CUDADriverError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
        CUBLASError("CUBLAS_STATUS_ALLOC_FAILED"),
        CublasError("cublasCreate_v2 failed: CUBLAS_STATUS_ALLOC_FAILED"),
    ],
)
def test_memory_that_runs_out_below_cupy_is_the_same_sentence(error: Exception) -> None:
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


def test_a_folder_that_takes_no_kernels_is_named_with_its_variable() -> None:
    for what in ("kernel", "product"):
        said = tried(**{what: OSError(30, "Read-only file system", "/home/x/.cupy")})
        assert "'/home/x/.cupy'" in said
        assert said.endswith("with CUPY_CACHE_DIR")
        assert "pip install" not in said
    # What the dynamic linker says has no number.
    assert tried(product=OSError("libcublas.so.13: cannot open")).endswith(INSTALL)


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


def plan_of_a_step(dtype: str = "float64") -> Plan:
    """A small one, with Adam."""
    model = MLP((12, 4, 3), seed=0, dtype=dtype, backend="numpy")
    images = np.zeros((8, 2, 2, 3), np.uint8)
    split = Batches.of(model.backend, images, np.zeros(8, int), dtype, np.zeros(3))
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


@pytest.mark.parametrize(
    ("dtype", "tf32", "capability", "kind", "how"),
    [
        ("float32", "0", "120", FusedStep, "as CUDA graphs of fused kernels"),
        ("float32", "0", "80", FusedStep, "as CUDA graphs of fused kernels"),
        (
            "float32",
            "0",
            "75",
            CapturedStep,
            "cuBLAS's products (the fused kernels are for compute",
        ),
        ("float32", "1", "90", CapturedStep, "cuBLAS's products (CUPY_TF32=1 asks for"),
        (
            "float64",
            "0",
            "90",
            CapturedStep,
            "cuBLAS's products (the fused kernels are for float32",
        ),
    ],
)
def test_which_kernels_a_step_has(
    dtype: str, tf32: str, capability: str, kind: type, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUPY_TF32", tf32)
    fused_devices = []

    def device(dtype: str, fused: bool = False) -> DeviceDouble:
        fused_devices.append(fused)
        return DeviceDouble(dtype)

    monkeypatch.setattr(cuda_device, "CudaDevice", device)
    backend = gpu()
    backend.xp.cuda.Device = lambda: fake_device(capability)
    step = backend.compile(plan_of_a_step(dtype))
    assert type(step) is kind
    assert fused_devices == [kind is FusedStep]
    assert how in step.how


def test_what_is_kept_for_arrays_is_given_back_to_cublas_and_graphs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend, made = gpu(), []
    pool = types.SimpleNamespace(free_all_blocks=lambda: made.append("room"))
    backend.xp.get_default_memory_pool = lambda: pool

    def device(dtype: str, fused: bool = False) -> DeviceDouble:
        made.append("device")
        return DeviceDouble(dtype)

    monkeypatch.setattr(cuda_device, "CudaDevice", device)
    backend.compile(plan_of_a_step("float64"))
    assert made == ["room", "device"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", False), ("0", False), ("1", True), ("2", True), ("01", True), ("on", False)],
)
def test_tf32_as_cupy_takes_it(value: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUPY_TF32", value)
    assert tf32() is expected


def test_fused_kernels_that_do_not_load_leave_cublas_products(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def device(dtype: str, fused: bool = False) -> DeviceDouble:
        if fused:
            raise CompileException("no such instruction")
        return DeviceDouble(dtype)

    monkeypatch.setattr(cuda_device, "CudaDevice", device)
    step = gpu().compile(plan_of_a_step("float32"))
    assert step.how == "as CUDA graphs of cuBLAS's products (no such instruction)"


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


class FakeStream:
    """A stream that records nothing, and whose recording was broken."""

    ended = False

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def begin_capture(self) -> None: ...

    def end_capture(self) -> None:
        self.ended = True
        raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated")


def test_a_recording_that_fails_is_ended_and_tells_its_own_error() -> None:
    device = cuda_device.CudaDevice.__new__(cuda_device.CudaDevice)
    device.stream = stream = FakeStream()

    def work() -> None:
        raise CublasError("cublasSgemm_v2 failed: CUBLAS_STATUS_NOT_SUPPORTED")

    with pytest.raises(CublasError, match="NOT_SUPPORTED"):
        device.record(work)
    assert stream.ended
