"""Whole training steps in numba: forward, loss, backward and update, without Python in between.

A large weight matrix is shared out among workers, forward by columns and backward by rows, so that
each block of the gradient is used for the update while it is still in the worker's cache. SGD's is
never stored: the product itself adds it to the weights. Who does what
depends on the sizes and the number of workers alone, and so do the bits of the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from .elementwise import (
    SGD,
    activate,
    activate_backward,
    add_rows,
    cross_entropy,
    drop,
    gather,
    keep_mask,
    update,
)
from .gemm import gemm
from .jit import jit
from .product import add_gradient, product_columns, tiles_fit, transpose

# Elements of a weight matrix from which on workers share it; below, they would wait for each other
# longer than they work.
SHARED = 1 << 17
# Rows of a weight matrix whose gradient is made and used at a time, by BLAS and in tiles.
ROWS, TILED_ROWS = 384, 64


@jit(parallel=True)
def forward_shared(blas: Any, x: Any, w: Any, z: Any, room: Any, workers: Any) -> None:
    """z ← x w, each worker a block of columns. room: for xᵀ, flat."""
    size, (inputs, columns) = x.shape[0], w.shape
    if not tiles_fit(size, columns):
        for p in prange(workers):
            first, last = p * columns // workers, (p + 1) * columns // workers
            gemm(blas, 1.0, x, False, w[:, first:last], False, 0.0, z[:, first:last])
        return
    xt = room[: inputs * size].reshape(inputs, size)
    for p in prange(workers):
        transpose(x, p * inputs // workers, (p + 1) * inputs // workers, xt)
    for p in prange(workers):
        first, last = p * columns // workers, (p + 1) * columns // workers
        product_columns(blas, x, xt, w, first, last, z)


@jit()
def backward_rows(
    blas: Any, x: Any, d: Any, w: Any, m: Any, v: Any, dw: Any, dx: Any, rule: Any, row: Any
) -> None:
    """For some rows of w, and the columns of x and dx that go with them: dx ← d wᵀ where dx isn't
    empty, then w and its state m, v updated from xᵀ d. dw: room for ROWS rows of it, flat."""
    if dx.shape[0] > 0:
        gemm(blas, 1.0, d, False, w, True, 0.0, dx)
    tiled = tiles_fit(d.shape[0], d.shape[1])
    if rule == SGD:
        if tiled:
            add_gradient(blas, -row[0], x, d, w)
        else:
            gemm(blas, -row[0], x, True, d, False, 1.0, w)
        return
    rows = TILED_ROWS if tiled else ROWS
    for first in range(0, w.shape[0], rows):
        last = min(first + rows, w.shape[0])
        part = dw[: (last - first) * w.shape[1]].reshape(last - first, w.shape[1])
        if tiled:
            part[:] = 0
            add_gradient(blas, 1.0, x[:, first:last], d, part)
        else:
            gemm(blas, 1.0, x[:, first:last], True, d, False, 0.0, part)
        update(rule, row, w[first:last], part, m[first:last], v[first:last])


@jit(parallel=True)
def backward_shared(
    blas: Any,
    x: Any,
    d: Any,
    w: Any,
    m: Any,
    v: Any,
    dw: Any,
    dx: Any,
    rule: Any,
    row: Any,
    workers: Any,
) -> None:
    """backward_rows, each worker a block of rows."""
    rows = w.shape[0]
    for p in prange(workers):
        first, last = p * rows // workers, (p + 1) * rows // workers
        backward_rows(
            blas,
            x[:, first:last],
            d,
            w[first:last],
            m[first:last],
            v[first:last],
            dw[p],
            dx[:, first:last],
            rule,
            row,
        )


@jit()
def run(
    blas: Any,
    images: Any,
    labels: Any,
    mean: Any,
    order: Any,
    ws: Any,
    bs: Any,
    w_states: Any,
    b_states: Any,
    ops: Any,
    settings: Any,
    masks: Any,
    zs: Any,
    hs: Any,
    ds: Any,
    dw: Any,
    room: Any,
    keep_probs: Any,
    keys: Any,
    average: Any,
    rule: Any,
    schedule: Any,
    workers: Any,
    losses: Any,
) -> None:
    """Train on the batches order (K, N) in turn; losses (K,).

    Tuples have an entry a block: ws (D, M), bs (1, M) and their states, twice each; ops and
    settings (alpha, scale); masks, zs and ds (N, M). hs has one more: hs[0] is the batch (N, D),
    hs[i + 1] block i's output. dw: room for the workers' gradients, room: for a
    batch transposed. keep_probs: 0 for no dropout;
    keys (blocks, 3): seed, layer, step of its masks.
    """
    blocks, size = len(ws), order.shape[1]
    factor = 1.0 / size if average else 1.0
    nothing = hs[0][:0]
    for k in range(order.shape[0]):
        gather(images, order[k], mean, hs[0])
        for i in range(blocks):
            if ws[i].size < SHARED:
                gemm(blas, 1.0, hs[i], False, ws[i], False, 0.0, zs[i])
            else:
                forward_shared(blas, hs[i], ws[i], zs[i], room, workers)
            activate(zs[i], bs[i][0], ops[i], settings[i, 0], settings[i, 1], hs[i + 1])
            if keep_probs[i] > 0:
                step = keys[i, 2] + np.uint64(k)
                keep_mask(keep_probs[i], keys[i, 0], keys[i, 1], step, masks[i])
                drop(hs[i + 1], masks[i], keep_probs[i])
        losses[k] = cross_entropy(hs[blocks], labels[order[k]], factor, ds[blocks - 1])
        for back in range(blocks):
            i = blocks - 1 - back
            d = ds[i]
            if keep_probs[i] > 0:
                drop(d, masks[i], keep_probs[i])
            activate_backward(d, zs[i], ops[i], settings[i, 0], settings[i, 1])
            db = dw[0, : d.shape[1]].reshape(1, d.shape[1])
            add_rows(d, db[0])
            update(rule, schedule[k], bs[i], db, b_states[0][i], b_states[1][i])
            dx = ds[i - 1] if i > 0 else nothing
            m, v = w_states[0][i], w_states[1][i]
            if ws[i].size < SHARED:
                backward_rows(blas, hs[i], d, ws[i], m, v, dw[0], dx, rule, schedule[k])
            else:
                backward_shared(blas, hs[i], d, ws[i], m, v, dw, dx, rule, schedule[k], workers)
