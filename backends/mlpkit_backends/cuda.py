"""CuPy on a CUDA GPU. Importing this module imports CuPy and asks for a device."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Array, Backend
from .errors import BackendUnavailable

CUDA13 = 'pip install "cupy-cuda13x[ctk]"'
CUDA12 = 'pip install "cupy-cuda12x[ctk]"'


class CupyBackend(Backend):
    """The base ops on CuPy, on the current device."""

    def __init__(self) -> None:
        super().__init__("cupy", import_cupy())

    def asarray(self, a: Any, dtype: str | None = None) -> Array:
        return self.xp.asarray(a, dtype=dtype)

    def to_numpy(self, a: Array) -> np.ndarray[Any, Any]:
        return np.asarray(self.xp.asnumpy(a))

    def synchronize(self) -> None:
        self.xp.cuda.get_current_stream().synchronize()

    def device_name(self) -> str:
        device = self.xp.cuda.Device()
        return str(self.xp.cuda.runtime.getDeviceProperties(device.id)["name"].decode())


def import_cupy() -> Any:
    """CuPy, once it has answered for a device; BackendUnavailable with the cause and the cure."""
    try:
        import cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise BackendUnavailable(
                f"CuPy is installed but lacks {error.name}: {CUDA13}"
            ) from error
        raise BackendUnavailable(
            f"CuPy is not installed: {CUDA13} (driver 580 or newer) or {CUDA12} (driver 525 or "
            "newer)"
        ) from error
    except ImportError as error:
        raise BackendUnavailable(
            f"CuPy is installed but can't be loaded ({one_line(error)}): {CUDA13}"
        ) from error
    runtime = cupy.cuda.runtime
    driver = runtime.driverGetVersion()
    if driver == 0:
        raise BackendUnavailable(
            "no NVIDIA driver answers on this machine: install NVIDIA's driver "
            "(on Debian: apt install nvidia-driver), then see that `nvidia-smi` lists the GPU"
        )
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        wheel = runtime.runtimeGetVersion()
        if driver < wheel // 1000 * 1000:
            raise BackendUnavailable(
                f"the NVIDIA driver is too old: it offers CUDA {cuda_version(driver)} and CuPy was "
                f"built for CUDA {cuda_version(wheel)}: update the driver, or "
                f"pip uninstall cupy-cuda{wheel // 1000}x and {CUDA12}"
            ) from error
        count = 0
        cause = one_line(error)
    else:
        cause = "the driver lists none"
    if count == 0:
        raise BackendUnavailable(
            f"no CUDA device is visible ({cause}): see that `nvidia-smi` lists the GPU and that "
            "CUDA_VISIBLE_DEVICES is unset or names it"
        )
    return cupy


def cuda_version(number: int) -> str:
    """12080 as "12.8"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def one_line(error: BaseException) -> str:
    """The first line that an error says, or its kind where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
