"""Finding CuPy and a CUDA device, and saying what is missing."""

from __future__ import annotations

import re
import warnings
from importlib.metadata import distributions
from typing import Any

from .cuda_errors import of_the_device, one_line
from .errors import BackendUnavailable

CUDA13 = 'pip install "cupy-cuda13x[ctk]"'
CUDA12 = 'pip install "cupy-cuda12x[ctk]"'


def wheels() -> list[str]:
    """CuPy's installed wheels, with their versions."""
    found = {}
    for one in distributions():
        # What is half removed has no name, and to ask for it is deprecated.
        name = one.metadata["Name"].lower() if "Name" in one.metadata else ""
        if re.fullmatch(r"cupy(-cuda\d+x|-rocm.*)?", name):
            found[name] = f"{name} {one.version}"
    return [found[name] for name in sorted(found)]


def cure(installed: list[str]) -> str:
    """The line that completes the wheel that is there, or installs the newest."""
    name = installed[0].split()[0] if installed else ""
    return f'pip install "{name}[ctk]"' if name.startswith("cupy-cuda") else CUDA13


def import_cupy() -> Any:
    """CuPy, once it has worked on a device; BackendUnavailable with the cause and the cure."""
    installed = wheels()
    if len(installed) > 1:
        names = " ".join(wheel.split()[0] for wheel in installed)
        raise BackendUnavailable(
            f"{len(installed)} wheels of CuPy are installed, {' and '.join(installed)}, which "
            f"overwrite each other: pip uninstall {names}, then {CUDA13} or {CUDA12}"
        )
    try:
        import cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise BackendUnavailable(
                f"CuPy is installed but lacks {error.name}: {cure(installed)}"
            ) from error
        raise BackendUnavailable(
            f"CuPy is not installed: {CUDA13} (driver 580 or newer) or {CUDA12} (driver 525 or "
            "newer)"
        ) from error
    except ImportError as error:
        raise BackendUnavailable(
            f"CuPy is installed but can't be loaded ({one_line(error)}): {cure(installed)}"
        ) from error
    except OSError as error:  # the folder of its kernels is made as it is imported
        raise BackendUnavailable(no_cache(error)) from error
    find_device(cupy.cuda.runtime)
    try_out(cupy, cure(installed))
    return cupy


def no_cache(error: OSError) -> str:
    """That CuPy has no folder for what it compiles, and how to give it one."""
    return (
        f"CuPy can't keep the kernels that it compiles ({one_line(error)}): name a folder that can "
        "be written to with CUPY_CACHE_DIR"
    )


def find_device(runtime: Any) -> None:
    """BackendUnavailable unless CuPy is made for CUDA, and driver and device answer."""
    if getattr(runtime, "is_hip", False):
        raise BackendUnavailable(
            "this CuPy is made for AMD's ROCm, and the kernels are CUDA's: pip uninstall it, then "
            f"{CUDA13} or {CUDA12}"
        )
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


def try_out(cupy: Any, install: str) -> None:
    """BackendUnavailable unless a kernel can be compiled and run, and a product. install: the line
    that brings what is missing."""

    def kernel() -> None:
        x = cupy.zeros(1, cupy.float32)
        cupy.ElementwiseKernel("float32 x", "float32 y", "y = x + 1", "mlpkit_try_out")(x)
        cupy.cuda.get_current_stream().synchronize()

    def product() -> None:
        x = cupy.zeros((2, 2), cupy.float32)
        cupy.matmul(x, x)
        cupy.cuda.get_current_stream().synchronize()

    needs = {
        "compile and run a kernel, for which it needs NVRTC and CUDA's headers": kernel,
        "multiply matrices, for which it needs cuBLAS": product,
    }
    for what, work in needs.items():
        with warnings.catch_warnings(record=True) as said:  # CuPy's own, of a missing library
            warnings.simplefilter("always")
            try:
                work()
            except Exception as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise BackendUnavailable(no_cache(error)) from error
                if of_the_device(error):
                    raise BackendUnavailable(
                        f"the GPU doesn't work ({one_line(error)}): see what `nvidia-smi` says of "
                        "it, and what else uses it"
                    ) from error
                cause = str(said[0].message) if said else one_line(error)
                raise BackendUnavailable(f"CuPy can't {what} ({cause}): {install}") from error


def cuda_version(number: int) -> str:
    """12080 as "12.8"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def capability(device: Any) -> str:
    """A device's compute capability, "90" as "9.0"."""
    number = str(device.compute_capability)
    return f"{number[:-1]}.{number[-1]}"
