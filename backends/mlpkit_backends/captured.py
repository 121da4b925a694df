"""Whole training steps recorded once as CUDA graphs, and run again by one call.

What changes from step to step is read on the device: the batches' indices, the schedule's table and
the dropout masks' keys, brought there before each run. Everything that a graph writes is a buffer
that its step owns, or a parameter and its state. The device's part (kernels, products, graphs) is
behind `Device`, so that the tests can run a step without a GPU.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from .base import Array
from .plan import OPS, UPDATES, Plan, Program

SIZES = (32, 16, 8, 4, 2, 1)  # steps in a graph; the graphs' sum is any number of steps
STEPS = SIZES[0]
TABLE = 5  # columns of the schedule's table
LARGEST = 1 << 30  # elements of what kernels count in 32 bits
SGD, SGDM = UPDATES.index("sgd_update"), UPDATES.index("sgdm_update")


class Graph(Protocol):
    """What was recorded; launch runs it on the current stream, without waiting for its end."""

    def launch(self) -> None: ...


class Device(Protocol):
    """What a captured step needs of a device."""

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """A new array."""

    def dense(self, a: Array, shape: tuple[int, ...], dtype: str) -> Array:
        """`a` as the kernels read it: broadcast to the shape, of the dtype, in C's order."""

    def address(self, a: Array) -> int:
        """Where the array lies, for kernels that find their arrays in a table."""

    def fill(self, target: Array, source: Any) -> None:
        """Copy host or device values into an array, in the stream's order."""

    processors: int  # that run blocks at the same time
    shared: int  # bytes that a block's threads may share

    def launch(
        self,
        name: str,
        work: int | tuple[int, int, int],
        *arguments: Any,
        shared: int = 0,
        early: bool = False,
    ) -> None:
        """Run a kernel for so many elements, or with so many blocks of x by y threads, which share
        so many bytes; arrays are handed over by address, numbers as they are. early: it may begin
        before the kernels before it have ended, and waits for them by itself."""

    def gemm(
        self, alpha: Array, a: Array, a_t: bool, b: Array, b_t: bool, beta: Array, c: Array
    ) -> None:
        """c ← alpha op(a) op(b) + beta c; alpha and beta (1,) arrays, read when it runs."""

    def rehearse(self, work: Any) -> None:
        """Load what the launches and products of work() need, and change nothing that they name:
        while a stream records, nothing may be loaded."""

    def record(self, work: Any) -> Graph:
        """The launches and products of work(), recorded instead of run."""


def too_large(plan: Plan, program: Program) -> str:
    """Why the kernels can't count a step's elements, in words; "" where they can."""
    widths = [block.w.shape for block in program.blocks]
    largest = max(max(d * m, plan.batch_size * max(d, m)) for d, m in widths)
    return f"an array has more than {LARGEST} elements" if largest > LARGEST else ""


def table(update: str, schedule: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
    """The schedule's rows as the kernels take them, (K, TABLE): Adam's lr and t as
    lr / (1 - β₁ᵗ) and 1 / (1 - β₂ᵗ)."""
    rows = np.zeros((len(schedule), TABLE))
    if update == "adam_update":
        lr, beta1, beta2, eps, t = schedule.T
        rows[:] = np.stack([lr / (1 - beta1**t), beta1, beta2, eps, 1 / (1 - beta2**t)], axis=1)
    else:
        rows[:, : schedule.shape[1]] = schedule
    return rows


class CapturedStep:
    """The buffers of a plan's step, its graphs, and the call that runs them. All is recorded when
    it is made: what can't be is an error then, before a parameter or the optimizer has changed."""

    how = "as CUDA graphs of cuBLAS's products"

    def __init__(self, plan: Plan, program: Program, device: Device) -> None:
        self.plan, self.program, self.device = plan, program, device
        self.update, dtype = UPDATES.index(program.update), plan.dtype
        self.real = np.dtype(dtype).type
        blocks, n = program.blocks, plan.batch_size
        shape = tuple(plan.images.shape)
        pixels = "uint8" if plan.mean is not None else dtype
        self.images = device.dense(plan.images, shape, pixels)
        self.labels = device.dense(plan.labels, shape[:1], "int64")
        self.mean = None if plan.mean is None else device.dense(plan.mean, shape[1:], dtype)
        outputs = [(n, block.w.shape[1]) for block in blocks]
        self.z, self.h, self.d = (
            [device.empty(shape, dtype) for shape in outputs] for _ in range(3)
        )
        self.losses = device.empty((STEPS,), dtype)
        self.order = device.empty((STEPS, n), "int64")
        floats, keys, reals = STEPS * TABLE, 3 * len(blocks), 2 * (STEPS + 1)
        size = 8 * (floats + keys) + np.dtype(dtype).itemsize * reals
        self.changing = device.empty((size,), "uint8")
        self.table, self.keys, self.scalars = self.parts(self.changing)
        self.allocate()
        device.rehearse(lambda: self.run(1))
        self.graphs = {k: device.record(lambda k=k: self.run(k)) for k in SIZES}

    def allocate(self) -> None:
        """Make the buffers that this way of running a step has for itself."""
        blocks, dtype, empty = self.program.blocks, self.plan.dtype, self.device.empty
        self.x = empty((self.plan.batch_size, blocks[0].w.shape[0]), dtype)
        # SGD's gradients are added to the weights, and SGDM's to the velocity, by the product.
        folded = self.update in (SGD, SGDM)
        self.dw = [] if folded else [empty(block.w.shape, dtype) for block in blocks]
        self.matrices = empty((len(blocks), 6), "uint64")
        self.device.fill(self.matrices, self.addresses())

    def owned(self) -> list[Array]:
        """Every array that a graph may write."""
        own = [self.x, *self.z, *self.h, *self.d, *self.dw, self.losses]
        return own + [a for block in self.program.blocks for a, _ in block.arrays()]

    def addresses(self) -> Any:
        """A row a matrix for update_weights: where w, dw, m and v lie, the elements, and how many
        fours of them may be read at once."""
        rows = []
        for i, block in enumerate(self.program.blocks):
            w, m, v = map(self.device.address, block.with_states()[0])
            dw = self.device.address(self.dw[i]) if self.dw else w
            aligned = all(place % (4 * block.w.itemsize) == 0 for place in (w, dw, m, v))
            rows.append((w, dw, m, v, block.w.size, block.w.size // 4 if aligned else 0))
        return np.array(rows, dtype=np.uint64)

    def parts(self, changing: Any) -> tuple[Any, Any, Any]:
        """What changes from run to run, in one buffer of bytes: the schedule's table; the masks'
        keys (blocks, 3); for the products, each step's -lr and momentum, then 1 and 0."""
        first = 8 * STEPS * TABLE
        second = first + 8 * 3 * len(self.program.blocks)
        return (
            changing[:first].view("float64").reshape(STEPS, TABLE),
            changing[first:second].view("uint64").reshape(-1, 3),
            changing[second:].view(self.plan.dtype).reshape(STEPS + 1, 2),
        )

    def __call__(self, order: Array) -> Array:
        count = order.shape[0]
        losses = self.device.empty((count,), self.plan.dtype)
        first = 0
        while first < count:
            k = next(size for size in SIZES if size <= count - first)
            part = slice(first, first + k)
            self.bring(order[part], k)
            self.graphs[k].launch()
            self.device.fill(losses[part], self.losses[:k])
            for block in self.program.blocks:
                if block.dropout is not None:
                    block.dropout.step += k
            first += k
        return losses

    def bring(self, order: Array, k: int) -> None:
        """Put what changes from run to run where the graph reads it."""
        schedule = self.program.schedule(k)
        changing = np.zeros(self.changing.shape, np.uint8)
        rows, keys, scalars = self.parts(changing)
        rows[:k] = table(self.program.update, schedule)
        for i, block in enumerate(self.program.blocks):
            if (masks := block.dropout) is not None:
                keys[i] = masks.seed, masks.position, masks.step
        scalars[:k, 0] = -schedule[:, 0]
        if self.update == SGDM:
            scalars[:k, 1] = schedule[:, 1]
        scalars[STEPS] = 1, 0
        self.device.fill(self.changing, changing)
        self.device.fill(self.order[:k], order)

    def run(self, steps: int) -> None:
        """Launch the work of so many steps."""
        for k in range(steps):
            self.step(k)

    def step(self, k: int) -> None:
        """Launch one step's work: the batch, forward, the loss, backward and the updates."""
        blocks, launch = self.program.blocks, self.device.launch
        self.gather(self.order[k], self.x)
        for i, block in enumerate(blocks):
            self.product(self.input(i), False, block.w, False, self.z[i])
            count, width = np.int32(self.z[i].size), np.int32(block.w.shape[1])
            elements = (self.z[i], block.b, self.h[i], count, width)
            launch("forward_elements", self.z[i].size, *elements, *self.settings(i, k))
        self.loss(k)
        for i in range(len(blocks) - 1, -1, -1):
            self.backward(i, k)
        if self.update != SGD:
            fours = max(-(-block.w.size // 4) for block in blocks)
            matrices = (self.matrices, np.int32(len(blocks)))
            launch("update_weights", fours, *matrices, np.int32(self.update), self.table[k])

    def gather(self, order: Array, x: Array) -> None:
        """x (..., inputs) ← the images of those indices (...), less their mean."""
        images = (self.images,) if self.mean is None else (self.images, self.mean)
        name = "gather_numbers" if self.mean is None else "gather_pixels"
        size, width = x.size, np.int32(x.shape[-1])
        self.device.launch(name, size, *images, order, x, np.int32(size), width)

    def loss(self, k: int) -> None:
        """Launch the loss and its gradient: a warp a row, as many as a block may have."""
        n, classes = self.d[-1].shape
        read, written = (
            (self.h[-1], self.labels, self.order[k]),
            (self.d[-1], self.losses[k : k + 1]),
        )
        arguments = (*read, self.factor(), *written, np.int32(n), np.int32(classes))
        self.device.launch("loss_and_gradient", (1, 32 * min(n, 32), 1), *arguments)

    def factor(self) -> Any:
        """What the sum of a batch's losses is multiplied by."""
        return self.real(self.program.loss_factor(self.plan.batch_size))

    def backward(self, i: int, k: int) -> None:
        """Launch block i's gradients and its bias's update; self.d[i] is the gradient of its
        output."""
        block, d, n = self.program.blocks[i], self.d[i], np.int32(self.plan.batch_size)
        width = block.w.shape[1]
        bias = (*block.with_states()[1], np.int32(self.update), self.table[k])
        elements = (d, self.z[i], n, np.int32(width), *self.settings(i, k))
        self.device.launch("backward_columns", (-(-width // 32), 32, 8), *elements, *bias)
        if i > 0:
            self.product(d, False, block.w, True, self.d[i - 1])
        alpha, momentum = self.scalars[k, :1], self.scalars[k, 1:]
        one, x = self.scalars[STEPS, :1], self.input(i)
        if self.update == SGD:
            self.device.gemm(alpha, x, True, d, False, one, block.w)
        elif self.update == SGDM:
            self.device.gemm(alpha, x, True, d, False, momentum, block.w_state[0])
        else:
            self.product(x, True, d, False, self.dw[i])

    def product(self, a: Array, a_t: bool, b: Array, b_t: bool, c: Array) -> None:
        """c ← op(a) op(b)."""
        one, zero = self.scalars[STEPS, :1], self.scalars[STEPS, 1:]
        self.device.gemm(one, a, a_t, b, b_t, zero, c)

    def input(self, i: int) -> Array:
        """Block i's input."""
        return self.h[i - 1] if i else self.x

    def settings(self, i: int, k: int) -> tuple[Any, ...]:
        """What the elementwise kernels take of block i at step k of a run."""
        block = self.program.blocks[i]
        alpha, scale = block.alpha_and_scale()
        keep_prob = block.dropout.keep_prob if block.dropout is not None else 0.0
        op = np.int32(OPS.index(block.op))
        return op, self.real(alpha), self.real(scale), float(keep_prob), self.keys[i], k
