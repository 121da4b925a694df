"""cuBLAS's matrix product with a handle of our own, which a CUDA graph may record.

CuPy's own products refuse to run while a stream is capturing. alpha and beta are read on the device
when the graph runs, so that a learning rate may change between two runs of it
(https://docs.nvidia.com/cuda/cublas/#cuda-graphs-support).
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any

WORKSPACE = 32 << 20  # bytes: what NVIDIA recommends for Hopper
POINTER_MODE_DEVICE = 1
DEFAULT_MATH, TF32_MATH = 0, 3
AS_IT_IS, TRANSPOSED = 0, 1
STATUS = {
    1: "NOT_INITIALIZED",
    3: "ALLOC_FAILED",
    7: "INVALID_VALUE",
    8: "ARCH_MISMATCH",
    11: "MAPPING_ERROR",
    13: "EXECUTION_FAILED",
    14: "INTERNAL_ERROR",
    15: "NOT_SUPPORTED",
}


class CublasError(RuntimeError):
    """A call of cuBLAS failed, or there is no cuBLAS."""


def tf32() -> bool:
    """Whether float32 products are to be TF32's, as CuPy takes it."""
    value = os.environ.get("CUPY_TF32", "")
    return value.isdecimal() and int(value) > 0


def load_cublas() -> Any:
    """The library that CuPy itself would load. CublasError where there is none."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        return ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)
    except (ImportError, OSError, RuntimeError) as error:
        cause = str(error).strip().splitlines()
        raise CublasError(
            f"cuBLAS can't be loaded ({cause[0] if cause else type(error).__name__})"
        ) from error


class Cublas:
    """A handle on a stream of CuPy's. workspace: bytes on the device, 256-byte aligned, for it
    alone. Both are held until the handle is destroyed. Products are TF32's where `tf32` says so."""

    def __init__(self, stream: Any, workspace: Any) -> None:
        self.library = load_cublas()
        handle = ctypes.c_void_p()
        self.call("cublasCreate_v2", ctypes.byref(handle))
        self.handle = handle
        weakref.finalize(self, destroy, self.library, handle, stream, workspace)
        self.call("cublasSetStream_v2", handle, ctypes.c_void_p(stream.ptr))
        self.call(  # after the stream, which resets it
            "cublasSetWorkspace_v2",
            handle,
            ctypes.c_void_p(workspace.data.ptr),
            ctypes.c_size_t(workspace.nbytes),
        )
        self.call("cublasSetPointerMode_v2", handle, POINTER_MODE_DEVICE)
        self.call("cublasSetMathMode", handle, TF32_MATH if tf32() else DEFAULT_MATH)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the library; CublasError unless it succeeds."""
        status = getattr(self.library, name)(*arguments)
        if status:
            raise CublasError(f"{name} failed: CUBLAS_STATUS_{STATUS.get(status, status)}")

    def gemm(
        self,
        alpha: int,
        a: Any,
        a_transposed: bool,
        b: Any,
        b_transposed: bool,
        beta: int,
        c: Any,
    ) -> None:
        """c ← alpha op(a) op(b) + beta c; matrices with contiguous rows, alpha and beta addresses
        of numbers of their dtype on the device."""
        name, arguments = gemm_call(alpha, a, a_transposed, b, b_transposed, beta, c)
        self.call(name, self.handle, *arguments)


def destroy(library: Any, handle: ctypes.c_void_p, *used: Any) -> None:
    """Destroy the handle, and let go of what it used only then."""
    library.cublasDestroy_v2(handle)


def gemm_call(
    alpha: int, a: Any, a_transposed: bool, b: Any, b_transposed: bool, beta: int, c: Any
) -> tuple[str, tuple[Any, ...]]:
    """cuBLAS's function and what it takes after the handle. Its matrices are the transposes of
    ours, so it is asked for cᵀ = op(b)ᵀ op(a)ᵀ."""
    name = {"float32": "cublasSgemm_v2", "float64": "cublasDgemm_v2"}[str(c.dtype)]
    inner = a.shape[0] if a_transposed else a.shape[1]
    pointer = ctypes.c_void_p
    return name, (
        TRANSPOSED if b_transposed else AS_IT_IS,
        TRANSPOSED if a_transposed else AS_IT_IS,
        c.shape[1],
        c.shape[0],
        inner,
        pointer(alpha),
        pointer(b.data.ptr),
        b.shape[1],
        pointer(a.data.ptr),
        a.shape[1],
        pointer(beta),
        pointer(c.data.ptr),
        c.shape[1],
    )
