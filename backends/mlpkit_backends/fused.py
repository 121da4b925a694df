"""A captured step in float32 that has its own products, fused with what comes before and after.

A layer of up to CHUNK inputs is one kernel forward and one backward, and one more updates all of
them, where `captured` has up to eight a layer; more inputs are one more forward. Products of wide
matrices run on the tensor cores, nearly as accurate as float32's own (kernels/wide.cu), and their
layers have an update of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .base import Array
from .captured import STEPS, CapturedStep
from .plan import Block, Plan, Program

# What kernels/fused.cu and wide.cu have in their blocks: outputs, and parts of the inner sum.
ROWS, COLUMNS, CHUNK, SQUARE = 8, 32, 128, 32
HIGH, WIDE, DEEP, STAGES, BATCH = 64, 128, 32, 3, 64
THREADS, WIDE_THREADS = 256, 128
LAYER_WORDS = 11
FLOAT = 4  # bytes
SUMS_SHARED = FLOAT * STAGES * (HIGH * (DEEP + 4) + DEEP * (WIDE + 4))
UPDATE_SHARED = FLOAT * BATCH * (HIGH + 4 + WIDE + 4)
# Multiplications of a product, and widths, from which on it is one of wide matrices.
WIDE_FROM, WIDE_WIDTH = 1 << 25, 32
SCORES, CLASSES = 1 << 13, 32  # that one block takes the loss of, and of products made there
LARGEST_BATCH = 1024  # examples that one block takes the loss of
BATCHES = 64 << 20  # bytes of batches that are gathered at once


def blocks_of(shape: tuple[int, ...], high: int, wide: int) -> int:
    """Blocks of so many outputs in a matrix."""
    rows, columns = shape
    return int(-(-rows // high) * -(-columns // wide))


def is_wide(block: Block, n: int) -> bool:
    """Whether the tensor cores multiply batches of n by the block's weights."""
    inner, width = block.w.shape
    return bool(n * inner * width >= WIDE_FROM and min(inner, width) >= WIDE_WIDTH)


def unfit(plan: Plan, program: Program, address: Callable[[Array], int]) -> str:
    """Why this module can't run a step, in words; "" where it can. address: where an array lies."""
    n = plan.batch_size
    if plan.dtype != "float32":
        return f"the fused kernels are for float32, not {plan.dtype}"
    if n > LARGEST_BATCH:
        return f"a batch has more than {LARGEST_BATCH} examples"
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
        self.narrow = [i for i, block in enumerate(blocks) if not is_wide(block, n)]
        rows = [self.layer(i) for i in self.narrow]
        self.update_blocks = sum(row[-1] for row in rows)
        self.layers = self.device.empty((max(len(rows), 1), LAYER_WORDS), "uint64")
        self.device.fill(
            self.layers[: len(rows)], np.array(rows, np.uint64).reshape(-1, LAYER_WORDS)
        )

    def layer(self, i: int) -> tuple[int, ...]:
        """Block i's row for update_layers; the first block's input is 0, as it is another one in
        each step."""
        block, address = self.program.blocks[i], self.device.address
        w, b = block.with_states()
        x = address(self.h[i - 1]) if i else 0
        blocks = blocks_of(block.w.shape, SQUARE, SQUARE) + -(-block.w.shape[1] // THREADS)
        return (x, *map(address, (self.d[i], *w, *b)), *block.w.shape, blocks)

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
        for i in range(last, 0, -1):
            self.input_gradient(i, k)
        self.update_all(k)

    def launch(self, name: str, blocks: int, *arguments: Any) -> None:
        """Run a kernel of fused.cu in so many blocks."""
        self.device.launch(name, (blocks, THREADS, 1), *arguments)

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
        block, n = self.program.blocks[i], self.plan.batch_size
        inner, classes = self.shape(i)
        splits, _ = self.splits(block)
        outputs = (block.b, self.z[i], self.h[i], *self.target(k), *self.settings(i, k))
        if self.z[i].size > SCORES:
            self.forward(i, k)
            self.loss_kernel("loss_and_gradient", self.h[i], *self.target(k))
            self.backward_elements(i, k)
        elif splits == 1 and classes <= CLASSES and not is_wide(block, n):
            self.loss_kernel("loss_of_products", self.input(i, k), block.w, inner, *outputs)
        else:
            self.products(i, k)
            self.loss_kernel("loss_of_sums", self.sums, np.int32(splits), *outputs)

    def backward_elements(self, i: int, k: int) -> None:
        """Launch the gradient of block i's z from that of its h."""
        size = self.z[i].size
        arguments = (self.d[i], self.z[i], np.int32(size), *self.settings(i, k))
        self.device.launch("backward_elements", size, *arguments)

    def input_gradient(self, i: int, k: int) -> None:
        """Launch the gradient of the z that block i has its input from."""
        block, n, d = self.program.blocks[i], self.plan.batch_size, self.d[i]
        inner, width = self.shape(i)
        if is_wide(block, n):
            self.product(d, False, block.w, True, self.d[i - 1])
            self.backward_elements(i - 1, k)
            return
        arguments = (d, block.w, self.z[i - 1], self.d[i - 1], np.int32(n), inner, width)
        blocks = blocks_of((n, block.w.shape[0]), ROWS, COLUMNS)
        self.launch("input_gradient", blocks, *arguments, *self.settings(i - 1, k))

    def update_all(self, k: int) -> None:
        """Launch the updates, when no gradient needs the weights any more."""
        n, update = np.int32(self.plan.batch_size), np.int32(self.update)
        for i, block in enumerate(self.program.blocks):
            if i in self.narrow:
                continue
            w, b = block.with_states()
            blocks = -(-block.w.shape[1] // WIDE_THREADS) + blocks_of(block.w.shape, HIGH, WIDE)
            arguments = (self.input(i, k), self.d[i], *w, *b, n, *self.shape(i), update)
            work = (blocks, WIDE_THREADS, 1)
            self.device.launch("wide_update", work, *arguments, self.table[k], shared=UPDATE_SHARED)
        if self.narrow:
            batch = self.input(0, k)
            arguments = (self.layers, batch, n, update, self.table[k])
            self.launch("update_layers", self.update_blocks, *arguments)
