"""C ← alpha op(A) op(B) + beta C inside numba code, through the BLAS that SciPy brings.

numba's own np.dot has neither alpha nor beta, takes whole contiguous arrays only, and so can't fold
an update into a product or work on a block of columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import get_cython_function_address, intrinsic

from .jit import jit

TRANSPOSED, AS_IT_IS = np.uint8(ord("T")), np.uint8(ord("N"))


def gemm_address(dtype: str) -> int:
    """Where SciPy's BLAS keeps sgemm (float32) or dgemm (float64)."""
    name = {"float32": "sgemm", "float64": "dgemm"}[dtype]
    return int(get_cython_function_address("scipy.linalg.cython_blas", name))


@intrinsic
def call_fortran(typingctx: Any, address: Any, arguments: Any) -> Any:
    """Call the Fortran subroutine at an address: uintp arguments are pointers, all others are
    stored and passed by reference, as Fortran takes them."""
    signature = types.void(address, arguments)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        passed = []
        for i, kind in enumerate(signature.args[1]):
            value = builder.extract_value(values[1], i)
            if kind == types.uintp:
                passed.append(builder.inttoptr(value, pointer))
            else:
                slot = builder.alloca(value.type)
                builder.store(value, slot)
                passed.append(builder.bitcast(slot, pointer))
        function = ir.FunctionType(ir.VoidType(), [pointer] * len(passed))
        builder.call(builder.inttoptr(values[0], function.as_pointer()), passed)
        return context.get_dummy_value()

    return signature, generate


@jit()
def gemm(
    address: Any,
    alpha: Any,
    a: Any,
    a_transposed: Any,
    b: Any,
    b_transposed: Any,
    beta: Any,
    c: Any,
) -> None:
    """c ← alpha op(a) op(b) + beta c; matrices of one dtype whose rows are contiguous.

    Fortran's matrices are the transposes of ours, so it is asked for cᵀ = op(b)ᵀ op(a)ᵀ.
    """
    real = c.dtype.type
    inner = a.shape[0] if a_transposed else a.shape[1]
    call_fortran(  # type: ignore[call-arg]  # numba hands the typing context over itself
        address,
        (
            TRANSPOSED if b_transposed else AS_IT_IS,
            TRANSPOSED if a_transposed else AS_IT_IS,
            np.int32(c.shape[1]),
            np.int32(c.shape[0]),
            np.int32(inner),
            real(alpha),
            np.uintp(b.ctypes.data),
            np.int32(b.strides[0] // b.itemsize),
            np.uintp(a.ctypes.data),
            np.int32(a.strides[0] // a.itemsize),
            real(beta),
            np.uintp(c.ctypes.data),
            np.int32(c.strides[0] // c.itemsize),
        ),
    )
