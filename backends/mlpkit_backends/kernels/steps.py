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
from llvmlite import ir
from numba import carray, prange, types  # type: ignore[attr-defined]
from numba.extending import intrinsic

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
from .product import LARGEST_BATCH, TILES, add_gradient, product

# A block's matrices, by their places in a table of addresses: with it a network of any depth runs
# the same machine code, which for tuples of arrays would be compiled for each length. m and v are
# the two states of w or b that a rule may have; x is the batch or the block before's h.
PARTS = ("w", "m", "v", "b", "bias_m", "bias_v", "x", "z", "h", "mask", "d")
# NumPy's integers, as numba compiles a function once more for each of Python's that it is given.
W, M, V, B, BIAS_M, BIAS_V, X, Z, H, MASK, D = map(np.int64, range(len(PARTS)))
ZERO, ONE = np.int64(0), np.int64(1)
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
    return TILES and batch <= LARGEST_BATCH and w.size >= LARGE


@jit()
def share(p: Any, workers: Any, size: Any) -> Any:
    """The first of worker p's share of so many rows or columns, and the first beyond it."""
    return p * size // workers, (p + 1) * size // workers


@jit()
def forward_part(
    blas: Any, p: Any, workers: Any, by_rows: Any, x: Any, w: Any, z: Any, room: Any
) -> None:
    """Worker p's columns of z ← x w or, by rows of w, its part of the sum, into its row of room."""
    tiles = tiled(x.shape[0], w)
    top, bottom, left, right = 0, w.shape[0], 0, w.shape[1]
    if by_rows:
        top, bottom = share(p, workers, w.shape[0])
        z = room[p, : z.size].reshape(z.shape)
    else:
        left, right = share(p, workers, w.shape[1])
    # All sliced, so that the products are compiled for one kind of array.
    some, block, part = x[:, top:bottom], w[top:bottom, left:right], z[:, left:right]
    if TILES and tiles:
        product(blas, some, block, part)
    else:
        gemm(blas, 1.0, some, False, block, False, 0.0, part)


@jit()
def add_parts(room: Any, workers: Any, z: Any) -> None:
    """z ← the sum of the workers' parts."""
    z[:] = 0
    for p in range(workers):
        z += room[p, : z.size].reshape(z.shape)


@jit(parallel=True)
def forward_shared(blas: Any, x: Any, w: Any, z: Any, room: Any, workers: Any) -> None:
    """z ← x w, each worker a block of columns or, where w is narrow, of rows: a part of the sum.
    room: for the parts, flat, a worker's in each row."""
    by_rows = z.shape[1] < WIDE and z.size <= room.shape[1]
    for p in prange(workers):
        forward_part(blas, np.int64(p), workers, by_rows, x, w, z, room)
    if by_rows:
        add_parts(room, workers, z)


@jit()
def backward_part(blas: Any, p: Any, workers: Any, d: Any, w: Any, dx: Any) -> None:
    """Worker p's columns of dx ← d wᵀ."""
    first, last = share(p, workers, w.shape[0])
    gemm(blas, 1.0, d, False, w[first:last], True, 0.0, dx[:, first:last])


@jit(parallel=True)
def backward_shared(blas: Any, d: Any, w: Any, dx: Any, workers: Any) -> None:
    """dx ← d wᵀ, each worker a block of columns."""
    for p in prange(workers):
        backward_part(blas, np.int64(p), workers, d, w, dx)


@jit()
def update_rows(
    blas: Any, tiles: Any, x: Any, d: Any, w: Any, m: Any, v: Any, room: Any, rule: Any, row: Any
) -> None:
    """Some rows of w and its state m, v updated from xᵀ d, x having just the columns that go with
    them. room: for ROWS rows of the gradient, flat."""
    if rule == SGD:
        if TILES and tiles:
            add_gradient(blas, -row[0], x, d, w)
        else:
            gemm(blas, -row[0], x, True, d, False, 1.0, w)
        return
    rows = TILED_ROWS if tiles else ROWS
    for first in range(0, w.shape[0], rows):
        last = min(first + rows, w.shape[0])
        part = room[: (last - first) * w.shape[1]].reshape(last - first, w.shape[1])
        if TILES and tiles:
            part[:] = 0
            add_gradient(blas, 1.0, x[:, first:last], d, part)
        else:
            gemm(blas, 1.0, x[:, first:last], True, d, False, 0.0, part)
        update(rule, row, w[first:last], part, m[first:last], v[first:last])


@intrinsic
def pointer(typingctx: Any, address: Any) -> Any:
    """The address as numba's carray takes it."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], ir.IntType(8).as_pointer())

    return types.voidptr(address), generate


@jit()
def matrix(table: Any, i: Any, part: Any, dtype: Any) -> Any:
    """Block i's matrix of that part, as it lies in memory."""
    address, rows, columns = table[i, part]
    # numba hands the typing context over itself
    return carray(pointer(address), (rows, columns), dtype)  # type: ignore[call-arg]


@jit()
def update_part(
    blas: Any, p: Any, workers: Any, table: Any, room: Any, rule: Any, row: Any
) -> None:
    """Worker p's rows of every weight matrix updated."""
    for i in range(len(table)):
        w, d = matrix(table, i, W, room.dtype), matrix(table, i, D, room.dtype)
        m, v = matrix(table, i, M, room.dtype), matrix(table, i, V, room.dtype)
        x = matrix(table, i, X, room.dtype)
        first, last = share(p, workers, w.shape[0])
        update_rows(
            blas,
            tiled(x.shape[0], w),
            x[:, first:last],
            d,
            w[first:last],
            m[first:last],
            v[first:last],
            room[p],
            rule,
            row,
        )


@jit(parallel=True)
def update_shared(blas: Any, workers: Any, table: Any, room: Any, rule: Any, row: Any) -> None:
    """Every weight matrix updated, each worker a block of its rows."""
    for p in prange(workers):
        update_part(blas, np.int64(p), workers, table, room, rule, row)


@jit()
def run(
    blas: Any,
    images: Any,
    labels: Any,
    mean: Any,
    order: Any,
    table: Any,
    ops: Any,
    settings: Any,
    keep_probs: Any,
    keys: Any,
    room: Any,
    factor: Any,
    rule: Any,
    schedule: Any,
    workers: Any,
    losses: Any,
) -> None:
    """Train on the batches order (K, N) in turn; losses (K,).

    table (blocks, PARTS, 3): each matrix's address, rows and columns; all are C-contiguous and of
    the losses' dtype, but for the masks. ops, settings (alpha, scale), keep_probs (0 for no
    dropout) and keys (seed, layer, step of its masks) have a row a block. room: for each worker's
    gradient, flat. factor: what the sum of a batch's losses is multiplied by.
    """
    blocks, size, dtype = len(table), order.shape[1], losses.dtype
    last = blocks - 1
    weights = 0
    for i in range(blocks):
        weights += matrix(table, i, W, dtype).size
    for k in range(order.shape[0]):
        row = schedule[k]
        gather(images, order[k], mean, matrix(table, ZERO, X, dtype))
        for i in range(blocks):
            x, z, h = (
                matrix(table, i, X, dtype),
                matrix(table, i, Z, dtype),
                matrix(table, i, H, dtype),
            )
            w, b = matrix(table, i, W, dtype), matrix(table, i, B, dtype)
            if size * w.size >= SHARED:
                forward_shared(blas, x, w, z, room, workers)
            else:
                gemm(blas, 1.0, x, False, w, False, 0.0, z)
            activate(z, b[0], ops[i], settings[i, 0], settings[i, 1], h)
            if keep_probs[i] > 0:
                mask, step = matrix(table, i, MASK, np.bool_), keys[i, 2] + np.uint64(k)
                keep_mask(keep_probs[i], keys[i, 0], keys[i, 1], step, mask)
                drop(h, mask, keep_probs[i])
        scores, d_scores = matrix(table, last, H, dtype), matrix(table, last, D, dtype)
        losses[k] = cross_entropy(scores, labels[order[k]], factor, d_scores)
        for back in range(blocks):
            i = last - back
            z, d = matrix(table, i, Z, dtype), matrix(table, i, D, dtype)
            if keep_probs[i] > 0:
                drop(d, matrix(table, i, MASK, np.bool_), keep_probs[i])
            activate_backward(d, z, ops[i], settings[i, 0], settings[i, 1])
            b, db = matrix(table, i, B, dtype), room[0, : d.shape[1]].reshape(1, d.shape[1])
            add_rows(d, db[0])
            m, v = matrix(table, i, BIAS_M, dtype), matrix(table, i, BIAS_V, dtype)
            update(rule, row, b, db, m, v)
            if i == 0:  # nobody asks for the images' gradient
                continue
            w, dx = matrix(table, i, W, dtype), matrix(table, i - 1, D, dtype)
            if size * w.size >= SHARED:
                backward_shared(blas, d, w, dx, workers)
            else:
                gemm(blas, 1.0, d, False, w, True, 0.0, dx)
        if size * weights >= SHARED:
            update_shared(blas, workers, table, room, rule, row)
        else:
            update_part(blas, ZERO, ONE, table, room, rule, row)
