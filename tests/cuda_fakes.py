"""CuPy's errors, and its backend over a device, where there is neither."""

from __future__ import annotations

import types

from mlpkit_backends.cublas import CublasError
from mlpkit_backends.cuda import CupyBackend
from mlpkit_backends.cuda_launch import LaunchError


def cupys(name: str, module: str, base: type[Exception] = RuntimeError) -> type[Exception]:
    """A class as CuPy's is called; CuPy itself need not be there."""
    return type(name, (base,), {"__module__": module})


OutOfMemoryError = cupys("OutOfMemoryError", "cupy.cuda.memory", MemoryError)
CUDARuntimeError = cupys("CUDARuntimeError", "cupy_backends.cuda.api.runtime")
CUDADriverError = cupys("CUDADriverError", "cupy_backends.cuda.api.driver")
CUBLASError = cupys("CUBLASError", "cupy_backends.cuda.libs.cublas")
NVRTCError = cupys("NVRTCError", "cupy_backends.cuda.libs.nvrtc")
CompileException = cupys("CompileException", "cupy.cuda.compiler", Exception)
KINDS = (
    *(CUDARuntimeError, CUDADriverError, CUBLASError, NVRTCError, CompileException),
    *(CublasError, LaunchError),
)


def fake_device(capability: str) -> types.SimpleNamespace:
    """A device of that compute capability, as CuPy has it."""
    shared = {"MaxSharedMemoryPerBlockOptin": 99 << 10}
    return types.SimpleNamespace(id=0, compute_capability=capability, attributes=shared)


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
        Device=lambda: fake_device("120"),
    )
    backend = CupyBackend.__new__(CupyBackend)
    backend.name = "cupy"
    pool = types.SimpleNamespace(free_all_blocks=lambda: None)
    backend.xp = types.SimpleNamespace(
        cuda=space, get_default_memory_pool=lambda: pool, __version__="14.2.0"
    )
    return backend
