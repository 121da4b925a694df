"""Matrix products through the BLAS that SciPy brings.

NumPy brings one of its own, and the threads of each go on waiting for more work after a product:
where both are used, in turn, they keep each other from the processors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg.blas import dgemm, sgemm

GEMMS: dict[Any, Any] = {np.dtype("float32"): sgemm, np.dtype("float64"): dgemm}


def product(a: Any, b: Any) -> Any:
    """a b, a new matrix (N, M) with contiguous rows, from a (N, D) and b (D, M)."""
    gemm = GEMMS.get(a.dtype)
    if gemm is None or a.dtype != b.dtype or not a.ndim == b.ndim == 2 or not a.size * b.size:
        return a @ b
    # Fortran's matrices are the transposes of ours, so BLAS is asked for bᵀ aᵀ.
    first, first_transposed = in_fortran(b)
    second, second_transposed = in_fortran(a)
    return gemm(1.0, first, second, trans_a=first_transposed, trans_b=second_transposed).T


def in_fortran(a: Any) -> tuple[Any, bool]:
    """aᵀ as Fortran takes it, without a copy where the rows or the columns are contiguous: a matrix
    in Fortran's order, and whether to transpose it."""
    return (a.T, False) if a.flags.c_contiguous else (a, True)


def add_product(alpha: float, a: Any, b: Any, beta: float, c: Any) -> None:
    """c ← alpha aᵀ b + beta c in place, all with contiguous rows: a (N, D), b (N, M), c (D, M)."""
    GEMMS[c.dtype](alpha, b.T, a.T, trans_b=1, beta=beta, c=c.T, overwrite_c=1)
