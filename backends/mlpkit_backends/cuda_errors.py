"""What CuPy and CUDA raise, as sentences."""

from __future__ import annotations

import re
from collections.abc import Callable

from .cublas import CublasError
from .cuda_launch import LaunchError


def from_cuda(error: BaseException) -> bool:
    """Whether the error is of CuPy's own kinds, of cuBLAS's or of a launch's: CuPy's are told by
    their modules, for some can't be imported where their library is missing."""
    module = type(error).__module__.partition(".")[0]
    return isinstance(error, CublasError | LaunchError) or module in ("cupy", "cupy_backends")


def of_the_device(error: BaseException) -> bool:
    """Whether driver or device raised it, rather than a library or compiler on the host."""
    driver = type(error).__module__.startswith("cupy_backends.cuda.api.")
    return driver or out_of_memory(error)


def out_of_memory(error: BaseException) -> bool:
    """Whether the error is that the GPU's memory is too small: CuPy's own, the driver's or
    cuBLAS's."""
    if not from_cuda(error):
        return False
    words = ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def explain(error: BaseException, memory: Callable[[], tuple[int, int]]) -> str:
    """An error of CUDA's in a sentence. memory: the bytes that are free and that there are, or an
    error, where the device is gone."""
    if not out_of_memory(error):
        return (
            f"the GPU failed ({one_line(error)}): what was written before is whole; see that "
            "`nvidia-smi` lists the device, and start again"
        )
    asked = re.search(r"allocating ([\d,]+) bytes", str(error))
    size = gib(int(asked[1].replace(",", ""))) if asked else "more"
    try:
        free, total = map(gib, memory())
        room = f", {free} of {total} is free"
    except Exception:  # a device that is gone doesn't say
        room = ""
    return (
        f"the GPU's memory is too small: {size} was asked for{room}: lower --batch-size, the "
        "network's widths or --train-size, or end what else uses the GPU"
    )


def gib(size: int) -> str:
    """Bytes in GiB, or in MiB where it is less than one."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def one_line(error: BaseException) -> str:
    """The first line that an error says, or its kind where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
