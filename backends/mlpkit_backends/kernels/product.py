"""x w and w += alpha xᵀ d for a small batch x and a large w: the products that BLAS is slow at.

BLAS copies w into an order of its own first, which costs as much as a batch of 64 gains by it. Here
a tile of the result is summed up in vector registers while all matrices are read as they lie. For
x w, DEPTH rows of w at a time, a tile's columns wide, stay in cache for the whole batch, and
meanwhile the next such panel is fetched; for xᵀ d, PANEL columns of d stay in cache for all of x.
In float32 on two cores of a Zen 5, x w takes 2.8 ms at batch 64 and a 3072 x 3072 w where OpenBLAS
0.3.30 takes 6.3 ms, and 45 µs at batch 32 and 3072 x 100 where it takes 93 µs; w += alpha xᵀ d of
the first takes 2.8 ms and 5.4 ms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .gemm import gemm
from .jit import jit

# The bytes of AVX-512's vector registers, and the tile whose sums fill 24 of its 32. Processors
# without it are left to BLAS: with AVX2's 12 sums in half as long registers and the smaller caches
# of a Zen 3, tiles took 1.6 times as long at batch 64 and 3072 x 3072 as OpenBLAS 0.3.30.
REGISTER, ROWS, VECTORS = 64, 8, 3
FEATURES = binding.get_host_cpu_features()
# Known before anything is compiled, so that `if TILES` leaves out what would never run.
TILES = bool(FEATURES.get("avx512f"))
SHORT = 16  # bytes of the shortest vector, for the columns that fill no register
DEPTH, PANEL = 512, 1024
LARGEST_BATCH = 128  # beyond it BLAS gains by its own order


def tile_adder(vectors: int, register: int) -> Any:
    """The function add_tile of tiles ROWS x `vectors` vectors of `register` bytes."""

    @intrinsic
    def add_tile(
        typingctx: Any,
        x: Any,
        x_row: Any,
        x_depth: Any,
        w: Any,
        w_depth: Any,
        z: Any,
        z_row: Any,
        depth: Any,
        alpha: Any,
        soon: Any,
    ) -> Any:
        """z[r, c] += alpha Σ_k x[r, k] w[k, c] for a tile's r and c and `depth` k.

        x, w, z: addresses; x_row, x_depth, w_depth, z_row: elements from one r, or k, to the next;
        alpha: a number of the dtype. soon: the address of what is wanted next, of which a cache
        line at each k's w_depth is fetched meanwhile.

        The sum starts at 0 and z is added at its end, as small numbers that are added one by one to
        a large one are lost.
        """
        address, size = types.uintp, types.intp
        signature = types.void(
            address, size, size, address, size, address, size, size, alpha, address
        )

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            x, x_row, x_depth, w, w_depth, z, z_row, depth, factor, soon = values
            kind = context.get_value_type(alpha)
            lanes = register * 8 // alpha.bitwidth
            vector, index = ir.VectorType(kind, lanes), z_row.type
            i32, byte = ir.IntType(32), ir.IntType(8).as_pointer()
            x, w, z, soon = (builder.inttoptr(a, kind.as_pointer()) for a in (x, w, z, soon))

            def function(name: str, result: Any, arguments: list[Any]) -> Any:
                kind = ir.FunctionType(result, arguments)
                return cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]

            fma = function(f"llvm.fma.v{lanes}f{alpha.bitwidth}", vector, [vector] * 3)
            fetch = function("llvm.prefetch.p0i8", ir.VoidType(), [byte, i32, i32, i32])

            def prefetch(pointer: Any, write: int) -> None:
                hints = (i32(write), i32(3), i32(1))  # to keep near, as data
                builder.call(fetch, [builder.bitcast(pointer, byte), *hints])

            def vectors_at(base: Any) -> list[Any]:
                starts = (builder.gep(base, [index(v * lanes)]) for v in range(vectors))
                return [builder.bitcast(start, vector.as_pointer()) for start in starts]

            def load(pointer: Any) -> Any:
                return builder.load(pointer, align=alpha.bitwidth // 8)

            undefined = ir.Constant(vector, ir.Undefined)
            everywhere = ir.Constant(ir.VectorType(i32, lanes), [0] * lanes)

            def spread(number: Any) -> Any:
                lane = builder.insert_element(undefined, number, i32(0))
                return builder.shuffle_vector(lane, undefined, everywhere)

            def step(base: Any, count: Any, elements: Any) -> Any:
                return builder.gep(base, [builder.mul(count, elements)])

            rows = [step(x, index(r), x_row) for r in range(ROWS)]
            targets = [p for r in range(ROWS) for p in vectors_at(step(z, index(r), z_row))]
            for pointer in targets:  # they arrive while the sum is made
                prefetch(pointer, 1)
            before = builder.basic_block
            loop = builder.append_basic_block("depth")
            after = builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(index)
            k.add_incoming(index(0), before)
            sums = [builder.phi(vector) for _ in targets]
            columns = [load(p) for p in vectors_at(step(w, k, w_depth))]
            prefetch(step(soon, k, w_depth), 0)
            new = []
            for r in range(ROWS):
                number = spread(builder.load(step(rows[r], k, x_depth)))
                for v in range(vectors):
                    new.append(builder.call(fma, [number, columns[v], sums[r * vectors + v]]))
            following = builder.add(k, index(1))
            k.add_incoming(following, loop)
            zero = ir.Constant(vector, [0.0] * lanes)
            for total, end in zip(sums, new, strict=True):
                total.add_incoming(zero, before)
                total.add_incoming(end, loop)
            builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
            builder.position_at_end(after)
            scale = spread(factor)
            for pointer, total in zip(targets, new, strict=True):
                value = builder.call(fma, [scale, total, load(pointer)])
                builder.store(value, pointer, align=alpha.bitwidth // 8)
            return context.get_dummy_value()

        return signature, generate

    return add_tile


add_wide, add_vector, add_short = (
    tile_adder(VECTORS, REGISTER),
    tile_adder(1, REGISTER),
    tile_adder(1, SHORT),
)


@jit()
def tile_width(left: Any, size: Any) -> Any:
    """The columns of the next tile where so many are left, of elements of `size` bytes; 0: none."""
    for width in (VECTORS * REGISTER // size, REGISTER // size, SHORT // size):
        if width <= left:
            return width
    return 0


@jit()
def add_tile(
    width: Any,
    x: Any,
    x_row: Any,
    x_depth: Any,
    w: Any,
    w_depth: Any,
    z: Any,
    z_row: Any,
    depth: Any,
    alpha: Any,
    size: Any,
    soon: Any,
) -> None:
    """The tile of that width; the rest as tile_adder's functions take it."""
    arguments = (x, x_row, x_depth, w, w_depth, z, z_row, depth, alpha, soon)
    # numba hands the typing context over itself
    if width == VECTORS * REGISTER // size:
        add_wide(*arguments)
    elif width == REGISTER // size:
        add_vector(*arguments)
    else:
        add_short(*arguments)


@jit()
def product(blas: Any, x: Any, w: Any, z: Any) -> None:
    """z (N, M) ← x (N, D) w (D, M); BLAS takes what fills no tile."""
    (inputs, columns), size = w.shape, z.itemsize
    rows, done = x.shape[0] - x.shape[0] % ROWS, 0
    one = z.dtype.type(1)
    z[:] = 0
    for k in range(0, inputs, DEPTH):
        depth, c = min(DEPTH, inputs - k), 0
        while tile_width(columns - c, size) > 0:
            width = tile_width(columns - c, size)
            # Each row of tiles fetches another vector of the next panel.
            if tile_width(columns - c - width, size) > 0:
                soon = np.uintp(w.ctypes.data + k * w.strides[0] + (c + width) * size)
            else:
                soon = np.uintp(w.ctypes.data + (k + DEPTH) * w.strides[0])
            for r in range(0, rows, ROWS):
                add_tile(
                    width,
                    np.uintp(x.ctypes.data + r * x.strides[0] + k * size),
                    x.strides[0] // size,
                    x.strides[1] // size,
                    np.uintp(w.ctypes.data + k * w.strides[0] + c * size),
                    w.strides[0] // size,
                    np.uintp(z.ctypes.data + r * z.strides[0] + c * size),
                    z.strides[0] // size,
                    depth,
                    one,
                    size,
                    np.uintp(soon + r // ROWS % VECTORS * REGISTER),
                )
            c += width
        done = c
    if done < columns:
        gemm(blas, 1.0, x, False, w[:, done:], False, 0.0, z[:, done:])
    if rows < x.shape[0] and done > 0:
        gemm(blas, 1.0, x[rows:], False, w[:, :done], False, 0.0, z[rows:, :done])


@jit()
def add_gradient(blas: Any, alpha: Any, x: Any, d: Any, w: Any) -> None:
    """w (D, M) += alpha xᵀ d, from x (N, D) and d (N, M); BLAS takes what fills no tile."""
    if w.shape[0] == 0:
        return  # a worker's share, where there are fewer rows than workers
    size, columns = w.itemsize, w.shape[1]
    rows, done = w.shape[0] - w.shape[0] % ROWS, 0
    factor = w.dtype.type(alpha)
    while tile_width(columns - done, size) > 0:
        first = done
        for r in range(0, w.shape[0], ROWS):
            c = first
            while c < first + PANEL and tile_width(columns - c, size) > 0:
                width = tile_width(columns - c, size)
                if r < rows:
                    add_tile(
                        width,
                        np.uintp(x.ctypes.data + r * size),
                        1,
                        x.strides[0] // size,
                        np.uintp(d.ctypes.data + c * size),
                        d.strides[0] // size,
                        np.uintp(w.ctypes.data + r * w.strides[0] + c * size),
                        w.strides[0] // size,
                        x.shape[0],
                        factor,
                        size,
                        np.uintp(d.ctypes.data),
                    )
                c += width
            done = c
    if done < columns:
        gemm(blas, alpha, x, True, d[:, done:], False, 1.0, w[:, done:])
    if rows < w.shape[0] and done > 0:
        gemm(blas, alpha, x[:, rows:], True, d[:, :done], False, 1.0, w[rows:, :done])
