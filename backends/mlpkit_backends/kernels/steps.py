"""Whole training steps in numba: forward, loss, backward and update, without Python in between.

Workers share what is large. All weights are updated together at the end of a step, each worker
some rows of every matrix, so that they wait for each other once; each block of a gradient is used
for the update while it is still in the worker's cache, and SGD's is never stored: the product
itself adds it to the weights. Who does what depends on the sizes and the number of workers alone,
and so do the bits of the result.
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
from .product import LARGEST_BATCH, add_gradient, product

# Multiply-adds from which on workers share a product; below, they would wait for each other longer
# than they work.
SHARED = 1 << 20
# Elements of a weight matrix from which on tiles are faster than BLAS, and columns from which on
# there are enough to share out; of a narrower one, rows are.
LARGE, WIDE = 1 << 17, 512
# Rows of a weight matrix whose gradient is made and used at a time, by BLAS and in tiles.
ROWS, TILED_ROWS = 384, 64


@jit()
def tiled(batch: Any, w: Any) -> Any:
    """Whether a batch's products with w are made in tiles."""
    return batch <= LARGEST_BATCH and w.size >= LARGE


@jit()
def block(p: Any, workers: Any, size: Any) -> Any:
    """The first of worker p's part of so many rows or columns, and the first that isn't."""
    return p * size // workers, (p + 1) * size // workers


@jit(parallel=True)
def forward_shared(blas: Any, x: Any, w: Any, z: Any, room: Any, workers: Any) -> None:
    """z ← x w, each worker a block of columns or, where w is narrow, of rows: a part of the sum.
    room: for the parts, flat, a worker's in each row."""
    (size, columns), tiles = z.shape, tiled(x.shape[0], w)
    if columns >= WIDE or size * columns > room.shape[1]:
        for p in prange(workers):
            first, last = block(p, workers, columns)
            if tiles:
                product(blas, x, w[:, first:last], z[:, first:last])
            else:
                gemm(blas, 1.0, x, False, w[:, first:last], False, 0.0, z[:, first:last])
        return
    for p in prange(workers):
        first, last = block(p, workers, w.shape[0])
        part = room[p, : size * columns].reshape(size, columns)
        if tiles:
            product(blas, x[:, first:last], w[first:last], part)
        else:
            gemm(blas, 1.0, x[:, first:last], False, w[first:last], False, 0.0, part)
    z[:] = 0
    for p in range(workers):
        z += room[p, : size * columns].reshape(size, columns)


@jit(parallel=True)
def backward_shared(blas: Any, d: Any, w: Any, dx: Any, workers: Any) -> None:
    """dx ← d wᵀ, each worker a block of columns."""
    for p in prange(workers):
        first, last = block(p, workers, w.shape[0])
        gemm(blas, 1.0, d, False, w[first:last], True, 0.0, dx[:, first:last])


@jit()
def update_rows(
    blas: Any, tiles: Any, x: Any, d: Any, w: Any, m: Any, v: Any, dw: Any, rule: Any, row: Any
) -> None:
    """Some rows of w and its state m, v updated from xᵀ d, x having just the columns that go with
    them. dw: room for ROWS rows of the gradient, flat."""
    if rule == SGD:
        if tiles:
            add_gradient(blas, -row[0], x, d, w)
        else:
            gemm(blas, -row[0], x, True, d, False, 1.0, w)
        return
    rows = TILED_ROWS if tiles else ROWS
    for first in range(0, w.shape[0], rows):
        last = min(first + rows, w.shape[0])
        part = dw[: (last - first) * w.shape[1]].reshape(last - first, w.shape[1])
        if tiles:
            part[:] = 0
            add_gradient(blas, 1.0, x[:, first:last], d, part)
        else:
            gemm(blas, 1.0, x[:, first:last], True, d, False, 0.0, part)
        update(rule, row, w[first:last], part, m[first:last], v[first:last])


@jit()
def update_part(
    blas: Any,
    p: Any,
    workers: Any,
    hs: Any,
    ds: Any,
    ws: Any,
    ms: Any,
    vs: Any,
    dw: Any,
    rule: Any,
    row: Any,
) -> None:
    """Worker p's rows of every weight matrix updated."""
    for i in range(len(ws)):
        first, last = block(p, workers, ws[i].shape[0])
        update_rows(
            blas,
            tiled(hs[i].shape[0], ws[i]),
            hs[i][:, first:last],
            ds[i],
            ws[i][first:last],
            ms[i][first:last],
            vs[i][first:last],
            dw[p],
            rule,
            row,
        )


@jit(parallel=True)
def update_shared(
    blas: Any,
    workers: Any,
    hs: Any,
    ds: Any,
    ws: Any,
    ms: Any,
    vs: Any,
    dw: Any,
    rule: Any,
    row: Any,
) -> None:
    """Every weight matrix updated, each worker a block of its rows."""
    for p in prange(workers):
        update_part(blas, p, workers, hs, ds, ws, ms, vs, dw, rule, row)


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
    hs[i + 1] block i's output. dw: room for each worker's gradient, flat.
    keep_probs: 0 for no dropout; keys (blocks, 3): seed, layer, step of its masks.
    """
    blocks, size = len(ws), order.shape[1]
    factor = 1.0 / size if average else 1.0
    weights = 0
    for w in ws:
        weights += w.size
    for k in range(order.shape[0]):
        gather(images, order[k], mean, hs[0])
        for i in range(blocks):
            if size * ws[i].size >= SHARED:
                forward_shared(blas, hs[i], ws[i], zs[i], dw, workers)
            else:
                gemm(blas, 1.0, hs[i], False, ws[i], False, 0.0, zs[i])
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
            if i == 0:  # nobody asks for the images' gradient
                continue
            if size * ws[i].size >= SHARED:
                backward_shared(blas, d, ws[i], ds[i - 1], workers)
            else:
                gemm(blas, 1.0, d, False, ws[i], True, 0.0, ds[i - 1])
        m, v, row = w_states[0], w_states[1], schedule[k]
        if size * weights >= SHARED:
            update_shared(blas, workers, hs, ds, ws, m, v, dw, rule, row)
        else:
            update_part(blas, 0, 1, hs, ds, ws, m, v, dw, rule, row)
