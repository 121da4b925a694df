"""A captured step in float32 that has its own products, fused with what comes before and after.

A layer is one kernel forward and one backward, which updates the layer above it meanwhile, where
`captured` has up to eight. Products of wide matrices run on the tensor cores, as accurate as
float32's own (kernels/wide.cu).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Array
from .captured import STEPS, CapturedStep
from .plan import Block, Program

# What kernels/fused.cu and wide.cu have in their blocks: outputs, and parts of the inner sum.
ROWS, COLUMNS, CHUNK, SQUARE = 8, 32, 128, 32
HIGH, WIDE, DEEP, BATCH, STAGES, PADDING = 64, 128, 32, 64, 3, 4
THREADS, WIDE_THREADS = 256, 128
FLOAT = 4  # bytes
SUMS_SHARED = FLOAT * STAGES * (HIGH * (DEEP + PADDING) + DEEP * (WIDE + PADDING))
UPDATE_SHARED = FLOAT * BATCH * (HIGH + PADDING + WIDE + PADDING)
WIDE_FROM = 1 << 25  # multiplications of a product, from which on it is one of wide matrices
LOSS_UP_TO = 1 << 14  # scores that one block of the loss takes from their sums
BATCHES = 64 << 20  # bytes of batches that are gathered at once


def blocks_of(shape: tuple[int, ...], high: int, wide: int) -> int:
    """Blocks of so many outputs in a matrix."""
    rows, columns = shape
    return int(-(-rows // high) * -(-columns // wide))


def is_wide(block: Block, n: int) -> bool:
    """Whether the tensor cores multiply batches of n by the block's weights."""
    inner, width = block.w.shape
    return bool(n * inner * width >= WIDE_FROM)


def unfit(program: Program, n: int, address: Any) -> str:
    """Why this module can't run a step, in words; "" where it can."""
    for block in program.blocks:
        arrays = (block.w, *block.w_state)
        divisible = all(size % 4 == 0 for size in block.w.shape)
        if is_wide(block, n) and not (divisible and all(address(a) % 16 == 0 for a in arrays)):
            return "a wide layer's widths are no multiples of 4, or it isn't aligned in memory"
    return ""


class FusedStep(CapturedStep):
    """CapturedStep with the kernels of fused.cu and wide.cu; cuBLAS's product is left for the
    gradient of a wide layer's input alone."""

    how = "as CUDA graphs of fused kernels"

    def allocate(self) -> None:
        n, blocks = self.plan.batch_size, self.program.blocks
        inputs = blocks[0].w.shape[0]
        # Batches are gathered for as many steps at once as there is room for.
        self.together = STEPS
        while self.together > 1 and FLOAT * self.together * n * inputs > BATCHES:
            self.together //= 2
        self.x = self.device.empty((self.together, n, inputs), self.plan.dtype)
        sizes = [self.splits(block)[0] * n * block.w.shape[1] for block in blocks]
        self.sums = self.device.empty((max(sizes),), self.plan.dtype)

    def owned(self) -> list[Array]:
        own = [self.x, *self.z, *self.h, *self.d, self.sums, self.losses]
        return own + [a for block in self.program.blocks for a, _ in block.arrays()]

    def splits(self, block: Block) -> tuple[int, int]:
        """In how many parts a product's inner sum is made, and how long each is: as many blocks as
        the device runs at the same time."""
        inner, width = block.w.shape
        n = self.plan.batch_size
        if not is_wide(block, n):
            return -(-inner // CHUNK), CHUNK
        at_once = 2 * self.device.processors
        wanted = max(at_once // blocks_of((n, width), HIGH, WIDE), 1)
        chunk = DEEP * -(-inner // (DEEP * wanted))
        return -(-inner // chunk), chunk

    def run(self, steps: int) -> None:
        for k in range(steps):
            if k % self.together == 0:
                many = min(self.together, steps - k)
                self.gather(self.order[k : k + many], self.x[:many])
            self.step(k)

    def step(self, k: int) -> None:
        last = len(self.program.blocks) - 1
        for i in range(last):
            self.forward(i, k)
        self.loss(last, k)
        waiting: list[int] = []  # layers whose weights no gradient needs any more
        for i in range(last, 0, -1):
            self.input_gradient(i, k, waiting)
            waiting = self.unless_wide(i, k)
        waiting += self.unless_wide(0, k)
        if waiting:
            first, *other = [self.parameters(i, k) for i in waiting]
            # Another's part is empty where there is none.
            blocks, arguments = zip(first, *(other or [(0, first[1])]), strict=True)
            n, rule, table = self.rule(k)
            self.launch(
                "update_layers",
                sum(blocks),
                np.int32(blocks[0]),
                *arguments[0],
                *arguments[1],
                n,
                rule,
                table,
            )

    def launch(self, name: str, blocks: int, *arguments: Any) -> None:
        """Run a kernel of fused.cu in so many blocks."""
        self.device.launch(name, (blocks, THREADS, 1), *arguments)

    def rule(self, k: int) -> tuple[Any, ...]:
        """What updates take of step k beside arrays."""
        return np.int32(self.plan.batch_size), np.int32(self.update), self.table[k]

    def input(self, i: int, k: int = 0) -> Array:
        return self.h[i - 1] if i else self.x[k % self.together]

    def shape(self, i: int) -> tuple[Any, Any]:
        """The block's widths as kernels take them."""
        inner, width = self.program.blocks[i].w.shape
        return np.int32(inner), np.int32(width)

    def forward(self, i: int, k: int) -> None:
        """Launch what makes block i's z and h of its input."""
        block, n = self.program.blocks[i], self.plan.batch_size
        inner, width = self.shape(i)
        outputs = (block.b, self.z[i], self.h[i])
        splits, _ = self.splits(block)
        if splits == 1 and not is_wide(block, n):
            arguments = (self.input(i, k), block.w, *outputs, np.int32(n), inner, width)
            blocks = blocks_of((n, width), ROWS, COLUMNS)
            self.launch("forward_layer", blocks, *arguments, *self.settings(i, k))
            return
        self.products(i, k)
        size = self.z[i].size
        sums = (self.sums, np.int32(splits), *outputs, np.int32(size), width)
        self.device.launch("forward_sums", size, *sums, *self.settings(i, k))

    def products(self, i: int, k: int) -> None:
        """Launch block i's product, in the parts of its inner sum."""
        block, n = self.program.blocks[i], self.plan.batch_size
        inner, width = self.shape(i)
        splits, chunk = self.splits(block)
        arguments = (self.input(i, k), block.w, self.sums, np.int32(n), inner, width)
        if is_wide(block, n):
            work = (splits * blocks_of((n, width), HIGH, WIDE), WIDE_THREADS, 1)
            self.device.launch("wide_sums", work, *arguments, np.int32(chunk), shared=SUMS_SHARED)
        else:
            blocks = splits * blocks_of((n, width), ROWS, COLUMNS)
            self.launch("product_sums", blocks, *arguments, np.int32(splits))

    def loss(self, i: int, k: int) -> None:
        """Launch the last block, i, the loss and its gradient by z."""
        block, n = self.program.blocks[i], np.int32(self.plan.batch_size)
        classes = self.shape(i)[1]
        factor = self.real(1.0 / n if self.program.average else 1.0)
        labels, threads = (self.labels, self.order[k], factor), 32 * min(int(n), 32)
        found = (self.d[i], self.losses[k : k + 1], n, classes)
        if self.z[i].size <= LOSS_UP_TO:
            self.products(i, k)
            scores = (self.sums, np.int32(self.splits(block)[0]), block.b, self.z[i], self.h[i])
            arguments = (*scores, *labels, *found, *self.settings(i, k))
            self.device.launch("loss_of_sums", (1, threads, 1), *arguments)
        else:
            self.forward(i, k)
            self.device.launch("loss_and_gradient", (1, threads, 1), self.h[i], *labels, *found)
            self.backward_elements(i, k)

    def backward_elements(self, i: int, k: int) -> None:
        """Launch the gradient of block i's z from that of its h."""
        size = self.z[i].size
        arguments = (self.d[i], self.z[i], np.int32(size), *self.settings(i, k))
        self.device.launch("backward_elements", size, *arguments)

    def input_gradient(self, i: int, k: int, waiting: list[int]) -> None:
        """Launch the gradient of the z that block i has its input from, and the update of a layer
        that waits for it."""
        block, n = self.program.blocks[i], self.plan.batch_size
        inner, width = self.shape(i)
        d, before = self.d[i], self.d[i - 1]
        blocks, update = self.parameters(waiting[0], k) if waiting else (0, None)
        if is_wide(block, n):
            self.product(d, False, block.w, True, before)
            self.backward_elements(i - 1, k)
            if update is None:
                return
            own = 0
        else:
            own = blocks_of((n, inner), ROWS, COLUMNS)
        update = update or self.parameters(i, k)[1]
        gradient = (d, block.w, self.z[i - 1], before, inner, width, *self.settings(i - 1, k))
        arguments = (np.int32(own), *gradient, *update, *self.rule(k))
        self.launch("backward_layer", own + blocks, *arguments)

    def parameters(self, i: int, k: int) -> tuple[int, tuple[Any, ...]]:
        """The blocks that update layer i, and their arguments."""
        block = self.program.blocks[i]
        w, b = block.with_states()
        arguments = (self.input(i, k), self.d[i], *w, *b, *self.shape(i))
        return blocks_of(block.w.shape, SQUARE, SQUARE), arguments

    def unless_wide(self, i: int, k: int) -> list[int]:
        """Launch the update of layer i if it is a wide one's; else the layer waits for its own."""
        block = self.program.blocks[i]
        if not is_wide(block, self.plan.batch_size):
            return [i]
        x, d, *arrays, inner, width = self.parameters(i, k)[1]
        n, rule, table = self.rule(k)
        work = (blocks_of(block.w.shape, HIGH, WIDE), WIDE_THREADS, 1)
        arguments = (x, d, *arrays, n, inner, width, rule, table)
        self.device.launch("wide_update", work, *arguments, shared=UPDATE_SHARED)
        return []
