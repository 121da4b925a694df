"""A captured step in float32 that has its own products, fused with what comes before and after.

The last layers, the loss and the way back through them are one kernel, which takes each row of the
batch through all of it on its own. Each layer before those takes one kernel forward, two with more
than CHUNK inputs, and one backward. One more kernel updates them all, where `captured` has up to
eight a layer. Products of wide matrices run on the tensor cores, nearly as accurate as float32's
own (kernels/wide.cu), and the updates of such layers are in their kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .base import Array
from .captured import SGD, STEPS, CapturedStep
from .plan import Block, Plan, Program

# What the kernels have in their blocks: outputs, and parts of the inner sum; in threads.
ROWS, COLUMNS, CHUNK = 8, 32, 128
HIGH, WIDE, DEEP, STAGES, BATCH = 64, 128, 32, 3, 64
THREADS, LAST, WIDE_THREADS = 256, 512, 128
FLOAT = 4  # bytes
SUMS_SHARED = FLOAT * STAGES * (HIGH * (DEEP + 4) + DEEP * (WIDE + 4))
# A product is wide from so many multiplications on, where both sizes of its weights are at least
# WIDE_WIDTH.
WIDE_FROM, WIDE_WIDTH = 1 << 25, 32
ROWS_EACH = 4  # rows that one block takes through the last layers, one by one, at most
BATCHES = 64 << 20  # bytes of batches that are gathered at once

# A layer as the kernels find it: fused.cu's Layer. Arrays are there by their addresses.
NUMBERS = ("keep_prob", "alpha", "scale")
ARRAYS = ("w", "w_m", "w_v", "bias", "bias_m", "bias_v", "x", "h", "d")
LAYER = np.dtype(
    [(name, "f8") for name in NUMBERS]
    + [(name, "u8") for name in ARRAYS]
    + [(name, "i8") for name in ("op", "inner", "width", "place")]
)


def blocks_of(shape: tuple[int, ...], high: int, wide: int) -> int:
    """Blocks of so many outputs in a matrix."""
    rows, columns = shape
    return int(-(-rows // high) * -(-columns // wide))


def is_wide(block: Block, n: int) -> bool:
    """Whether the tensor cores multiply batches of n by the block's weights."""
    inner, width = block.w.shape
    return bool(n * inner * width >= WIDE_FROM and min(inner, width) >= WIDE_WIDTH)


def whole_fours(width: int) -> int:
    """How far apart the rows of a product's sums are."""
    return -(-width // 4) * 4


def row_size(width: int) -> int:
    """How far apart the rows of weights are in last_layers' shared memory."""
    return width if width % 4 else 4 * (width // 4 | 1)


def places(blocks: Sequence[Block]) -> list[int]:
    """Where last_layers has each of those layers in shared memory: after their rows, the numbers
    of a row of the batch and their parts. At the end, how many numbers there are in all."""
    widths = [whole_fours(block.w.shape[1]) for block in blocks]
    sizes = [2 * width for width in widths]  # the bias, and a row's z
    for i, block in enumerate(blocks[1:], 1):
        rows, width = block.w.shape
        sizes[i] += whole_fours(rows * row_size(width))
    before = len(blocks) * LAYER.itemsize // FLOAT + max(widths) + max(LAST, *widths)
    return [before + sum(sizes[:i]) for i in range(len(sizes) + 1)]


def shared_by(blocks: Sequence[Block]) -> int:
    """Bytes of a block's shared memory that last_layers takes for those layers."""
    return FLOAT * places(blocks)[-1]


def unfit(plan: Plan, program: Program, address: Callable[[Array], int], shared: int) -> str:
    """Why this module can't run a step, in words; "" where it can. address: where an array lies;
    shared: bytes that a block's threads may share."""
    n = plan.batch_size
    if plan.dtype != "float32":
        return f"the fused kernels are for float32, not {plan.dtype}"
    if shared_by(program.blocks[-1:]) > shared:
        return "a row of the last layer doesn't fit into a block's shared memory"
    for block in program.blocks:
        arrays = (block.w, *block.w_state)
        divisible = all(size % 4 == 0 for size in block.w.shape)
        if is_wide(block, n) and not (divisible and all(address(a) % 16 == 0 for a in arrays)):
            return "a wide layer's widths are no multiples of 4, or it isn't aligned in memory"
    return ""


class FusedStep(CapturedStep):
    """CapturedStep with the kernels of fused.cu, last.cu and wide.cu; cuBLAS's product is left for
    the gradient of a wide layer's input alone."""

    how = "as CUDA graphs of fused kernels"

    def allocate(self) -> None:
        n, blocks, empty = self.plan.batch_size, self.program.blocks, self.device.empty
        inputs = blocks[0].w.shape[0]
        # Batches are gathered for as many steps at once as there is room for.
        self.together = STEPS
        while self.together > 1 and FLOAT * self.together * n * inputs > BATCHES:
            self.together //= 2
        self.x = empty((self.together, n, inputs), self.plan.dtype)
        self.wide = [i for i, block in enumerate(blocks) if is_wide(block, n)]
        sizes = [
            self.splits(i)[0] * n * whole_fours(block.w.shape[1]) for i, block in enumerate(blocks)
        ]
        self.sums = empty((max(sizes),), self.plan.dtype)
        self.row_losses = empty((STEPS, n), self.plan.dtype)
        self.first = self.first_of_the_last()
        rows = np.concatenate([self.layer(i) for i in range(len(blocks))])
        rows["place"][self.first :] = places(blocks[self.first :])[:-1]
        words = rows.view(np.uint64)
        self.layers = empty((len(blocks), LAYER.itemsize // 8), "uint64")
        self.device.fill(self.layers, words.reshape(self.layers.shape))
        # Threads of a block that updates: wide weights need fewer for SGD (kernels/wide.cu).
        self.updaters = 128 if self.wide and self.update == SGD else 256
        # The narrow layers' updates, a block each: which layer, and which block of it.
        square = self.updaters // 4
        updates = [
            np.arange(self.update_blocks(block, square, COLUMNS), dtype=np.uint64) | i << 32
            for i, block in enumerate(blocks)
            if i not in self.wide
        ]
        self.narrow = sum(map(len, updates))
        self.places = empty((max(self.narrow, 1),), "uint64")
        if updates:
            self.device.fill(self.places, np.concatenate(updates))

    def first_of_the_last(self) -> int:
        """The first block that last_layers handles. Its own product is launched before that kernel,
        which makes those of the blocks after it."""
        blocks, n = self.program.blocks, self.plan.batch_size
        first = len(blocks) - 1
        if n > ROWS_EACH * self.device.processors:
            return first
        while (
            first > 0
            and first not in self.wide
            and shared_by(blocks[first - 1 :]) <= self.device.shared
        ):
            first -= 1
        return first

    def layer(self, i: int) -> Any:
        """Block i's row of `layers`. The first block's input is 0: it is another one in each
        step."""
        block, row = self.program.blocks[i], np.zeros(1, LAYER)
        w, b = block.with_states()
        arrays = (*w, *b, self.h[i - 1] if i else None, self.h[i], self.d[i])
        op, alpha, scale, keep_prob, *_ = self.settings(i, 0)
        numbers = (keep_prob, alpha, scale)
        addresses = [0 if array is None else self.device.address(array) for array in arrays]
        row[0] = (*numbers, *addresses, op, *block.w.shape, 0)
        return row

    def owned(self) -> list[Array]:
        own = [self.x, *self.z, *self.h, *self.d, self.sums, self.row_losses, self.losses]
        return own + [a for block in self.program.blocks for a, _ in block.arrays()]

    def splits(self, i: int) -> tuple[int, int]:
        """In how many parts the inner sum of block i's product is made, and how long each is: as
        many blocks as the device runs at the same time."""
        inner, width = self.program.blocks[i].w.shape
        n = self.plan.batch_size
        if i not in self.wide:
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
        n, factor = np.int32(self.plan.batch_size), self.factor()
        losses = (self.row_losses, self.losses, n, factor)
        self.device.launch("sum_losses", (steps, 32, 1), *losses)

    def step(self, k: int) -> None:
        for i in range(self.first):
            self.forward(i, k)
        self.products(self.first, k)
        self.last_layers(k)
        for i in range(self.first, 0, -1):
            self.input_gradient(i, k)
        self.update_all(k)

    def launch(self, name: str, blocks: int, *arguments: Any, early: bool = False) -> None:
        """Run a kernel of fused.cu in so many blocks."""
        self.device.launch(name, (blocks, THREADS, 1), *arguments, early=early)

    def input(self, i: int, k: int = 0) -> Array:
        return self.h[i - 1] if i else self.x[k % self.together]

    def shape(self, i: int) -> tuple[Any, Any, Any]:
        """The batch's size and the block's widths as kernels take them."""
        inner, width = self.program.blocks[i].w.shape
        return np.int32(self.plan.batch_size), np.int32(inner), np.int32(width)

    def forward(self, i: int, k: int) -> None:
        """Launch what makes block i's z and h of its input."""
        block = self.program.blocks[i]
        n, inner, width = self.shape(i)
        outputs = (block.b, self.z[i], self.h[i])
        splits, _ = self.splits(i)
        if splits == 1 and i not in self.wide:
            arguments = (self.input(i, k), block.w, *outputs, n, inner, width)
            blocks = blocks_of((n, width), ROWS, COLUMNS)
            self.launch("forward_layer", blocks, *arguments, *self.settings(i, k))
            return
        self.products(i, k)
        sums = (self.sums, np.int32(splits), *outputs, n, width)
        fours = int(n * whole_fours(width)) // 4
        self.device.launch("forward_sums", fours, *sums, *self.settings(i, k))

    def products(self, i: int, k: int) -> None:
        """Launch block i's product, in the parts of its inner sum."""
        block = self.program.blocks[i]
        n, inner, width = self.shape(i)
        splits, chunk = self.splits(i)
        arguments = (self.input(i, k), block.w, self.sums, n, inner, width)
        if i in self.wide:
            work = (splits * blocks_of((n, width), HIGH, WIDE), WIDE_THREADS, 1)
            all_of_them = (*arguments, np.int32(chunk))
            self.device.launch("wide_sums", work, *all_of_them, shared=SUMS_SHARED, early=True)
        else:
            blocks = splits * blocks_of((n, width), ROWS, COLUMNS)
            self.launch("product_sums", blocks, *arguments, np.int32(splits), early=True)

    def last_layers(self, k: int) -> None:
        """Launch the last layers from the first one's product on, the loss and the way back."""
        first, n = self.first, self.plan.batch_size
        blocks = self.program.blocks[first:]
        splits, _ = self.splits(first)
        widest = max(block.w.shape[1] for block in blocks)
        layers = (self.layers[first:], np.int32(len(blocks)), np.int32(widest))
        sums, labels = (self.sums, np.int32(splits)), (self.labels, self.order[k])
        losses = (self.factor(), self.row_losses[k], np.int32(n))
        arguments = (*layers, *sums, *labels, *losses, self.keys[first:], k)
        work = (min(n, self.device.processors), LAST, 1)
        shared = shared_by(blocks)
        self.device.launch("last_layers", work, *arguments, shared=shared, early=True)

    def input_gradient(self, i: int, k: int) -> None:
        """Launch the gradient of the z that block i has its input from."""
        block, d = self.program.blocks[i], self.d[i]
        n, inner, width = self.shape(i)
        if i in self.wide:
            self.product(d, False, block.w, True, self.d[i - 1])
            size = self.d[i - 1].size
            elements = (self.d[i - 1], self.z[i - 1], np.int32(size), *self.settings(i - 1, k))
            self.device.launch("backward_elements", size, *elements)
            return
        arguments = (d, block.w, self.z[i - 1], self.d[i - 1], n, inner, width)
        blocks = blocks_of((n, inner), ROWS, COLUMNS)
        self.launch("input_gradient", blocks, *arguments, *self.settings(i - 1, k))

    def update_blocks(self, block: Block, high: int, wide: int) -> int:
        """Blocks of threads that update a layer, the first ones its bias."""
        of_bias = int(-(-block.w.shape[1] // self.updaters))
        return of_bias + blocks_of(block.w.shape, high, wide)

    def update_all(self, k: int) -> None:
        """Launch the updates, when no gradient needs the weights any more; the narrow layers' with
        the last one of the wide layers'."""
        update, row = np.int32(self.update), self.table[k]
        layers = (self.layers, self.places, self.input(0, k))
        for i in self.wide:
            block = self.program.blocks[i]
            w, b = block.with_states()
            inputs, narrow = (self.input(i, k), self.d[i]), self.narrow * (i == self.wide[-1])
            tall = self.updaters // 2
            work = (narrow + self.update_blocks(block, tall, WIDE), self.updaters, 1)
            shared = FLOAT * BATCH * (tall + 4 + WIDE + 4)
            if self.update == SGD:
                name, arguments = "wide_update_sgd", (*inputs, block.w, block.b, *self.shape(i))
            else:
                name, arguments = "wide_update", (*inputs, *w, *b, *self.shape(i), update)
            more = (row, *layers, np.int32(narrow))
            self.device.launch(name, work, *arguments, *more, shared=shared, early=True)
        if not self.wide:
            n = np.int32(self.plan.batch_size)
            work = (self.narrow, self.updaters, 1)
            self.device.launch("update_layers", work, *layers, n, update, row, early=True)
