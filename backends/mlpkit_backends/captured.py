"""Whole training steps recorded once as a CUDA graph, and run again by one call.

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

STEPS = 32  # at most, in a graph
TABLE = 6  # columns of the schedule's table
SGD, SGDM = UPDATES.index("sgd_update"), UPDATES.index("sgdm_update")


class Graph(Protocol):
    """What was recorded; launch runs it on the current stream, without waiting for its end."""

    def launch(self) -> None: ...


class Device(Protocol):
    """What a captured step needs of a device."""

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """A new array."""

    def fill(self, target: Array, source: Any) -> None:
        """Copy host or device values into an array, in the stream's order."""

    def launch(self, name: str, work: int | tuple[int, tuple[int, int]], *arguments: Any) -> None:
        """Run a kernel of step.cu for so many elements, or with so many blocks of (x, y) threads;
        arrays are handed over by address, numbers as they are."""

    def gemm(
        self, alpha: Array, a: Array, a_t: bool, b: Array, b_t: bool, beta: Array, c: Array
    ) -> None:
        """c ← alpha op(a) op(b) + beta c; alpha and beta (1,) arrays, read when it runs."""

    def record(self, work: Any) -> Graph:
        """The launches and products of work(), recorded instead of run."""


def table(update: str, schedule: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
    """The schedule's rows as the kernels take them, (K, TABLE): Adam's t as its bias corrections
    1 - β₁ᵗ and 1 - β₂ᵗ."""
    rows = np.zeros((len(schedule), TABLE))
    if update == "adam_update":
        lr, beta1, beta2, eps, t = schedule.T
        rows[:] = np.stack([lr, beta1, beta2, eps, 1 - beta1**t, 1 - beta2**t], axis=1)
    else:
        rows[:, : schedule.shape[1]] = schedule
    return rows


class CapturedStep:
    """The buffers of a plan's step, its graphs, and the call that runs them."""

    how = "as CUDA graphs"

    def __init__(self, plan: Plan, program: Program, device: Device) -> None:
        self.plan, self.program, self.device = plan, program, device
        self.update = UPDATES.index(program.update)
        blocks, n = program.blocks, plan.batch_size
        self.real = np.dtype(plan.dtype).type
        self.width = blocks[0].w.shape[0]
        self.x = device.empty((n, self.width), plan.dtype)
        outputs = [(n, block.w.shape[1]) for block in blocks]
        self.z, self.h, self.d = (
            [device.empty(shape, plan.dtype) for shape in outputs] for _ in range(3)
        )
        # SGD's gradients are added to the weights, and SGDM's to the velocity, by the product.
        largest = max(block.w.size for block in blocks)
        folded = self.update in (SGD, SGDM)
        self.dw = device.empty((0 if folded else largest,), plan.dtype)
        self.order = device.empty((STEPS, n), "int64")
        self.table = device.empty((STEPS, TABLE), "float64")
        # Each step's -lr and momentum, then 1 and 0, for the products.
        self.scalars = device.empty((STEPS + 1, 2), plan.dtype)
        self.keys = device.empty((len(blocks), 3), "uint64")
        self.losses = device.empty((STEPS,), plan.dtype)
        self.graphs: dict[int, Graph] = {}

    def owned(self) -> list[Array]:
        """Every array that a graph may write."""
        own = [self.x, *self.z, *self.h, *self.d, self.dw, self.losses]
        return own + [a for block in self.program.blocks for a, _ in block.arrays()]

    def __call__(self, order: Array) -> Array:
        losses = self.device.empty((order.shape[0],), self.plan.dtype)
        for first in range(0, order.shape[0], STEPS):
            part = order[first : first + STEPS]
            k = part.shape[0]
            self.bring(part, k)
            if k not in self.graphs:
                self.graphs[k] = self.device.record(lambda k=k: self.run(k))
            self.graphs[k].launch()
            self.device.fill(losses[first : first + k], self.losses[:k])
            for block in self.program.blocks:
                if block.dropout is not None:
                    block.dropout.step += k
        return losses

    def bring(self, order: Array, k: int) -> None:
        """Put what changes from run to run where the graph reads it."""
        schedule = self.program.schedule(k)
        scalars = np.zeros((STEPS + 1, 2), self.plan.dtype)
        scalars[:k, 0] = -schedule[:, 0]
        if self.update == SGDM:
            scalars[:k, 1] = schedule[:, 1]
        scalars[STEPS] = 1, 0
        masks = [block.dropout for block in self.program.blocks]
        keys = [(m.seed, m.position, m.step) if m is not None else (0, 0, 0) for m in masks]
        self.device.fill(self.order[:k], order)
        self.device.fill(self.table[:k], table(self.program.update, schedule))
        self.device.fill(self.scalars, scalars)
        self.device.fill(self.keys, np.array(keys, dtype=np.uint64))

    def run(self, steps: int) -> None:
        """Launch the work of so many steps."""
        for k in range(steps):
            self.step(k)

    def step(self, k: int) -> None:
        """Launch one step's work: the batch, forward, the loss, backward and the updates."""
        plan, blocks, launch = self.plan, self.program.blocks, self.device.launch
        n, order = plan.batch_size, self.order[k]
        size = n * self.width
        if plan.mean is None:
            launch("gather_numbers", size, plan.images, order, self.x, n, self.width)
        else:
            launch("gather_pixels", size, plan.images, order, plan.mean, self.x, n, self.width)
        for i, block in enumerate(blocks):
            self.product(self.input(i), False, block.w, False, self.z[i])
            elements = (self.z[i], block.b, self.h[i], n, block.w.shape[1])
            launch("forward_elements", self.z[i].size, *elements, *self.settings(i, k))
        factor = self.real(1.0 / n if self.program.average else 1.0)
        batch = (plan.labels, order, factor, self.d[-1], self.losses[k : k + 1])
        classes = np.int32(blocks[-1].w.shape[1])
        launch("loss_and_gradient", (1, (256, 1)), self.h[-1], *batch, n, classes)
        for i in range(len(blocks) - 1, -1, -1):
            self.backward(i, k)

    def backward(self, i: int, k: int) -> None:
        """Launch block i's gradients and updates; self.d[i] is the gradient of its output."""
        block, d, n = self.program.blocks[i], self.d[i], self.plan.batch_size
        width = block.w.shape[1]
        if block.op is not None or block.dropout is not None:
            elements = (d, self.z[i], n, width)
            self.device.launch("backward_elements", d.size, *elements, *self.settings(i, k))
        if i > 0:
            self.product(d, False, block.w, True, self.d[i - 1])
        rule, row = np.int32(self.update), self.table[k]
        self.device.launch(
            "update_bias",
            (-(-width // 32), (32, 8)),
            d,
            n,
            width,
            *state_of(block.b, block.b_state),
            rule,
            row,
        )
        alpha, momentum = self.scalars[k, :1], self.scalars[k, 1:]
        one, zero = self.scalars[STEPS, :1], self.scalars[STEPS, 1:]
        x, w = self.input(i), block.w
        if self.update == SGD:
            self.device.gemm(alpha, x, True, d, False, one, w)
        elif self.update == SGDM:
            (velocity,) = block.w_state
            self.device.gemm(alpha, x, True, d, False, momentum, velocity)
            self.device.launch("add_velocity", w.size, w, velocity, w.size)
        else:
            dw = self.dw[: w.size].reshape(w.shape)
            self.device.gemm(one, x, True, d, False, zero, dw)
            w_and_states = state_of(w, block.w_state)
            self.device.launch(
                "update_weights", w.size, w, dw, *w_and_states[1:], w.size, rule, row
            )

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
        op = np.int32(OPS.index(block.op or ""))
        return op, self.real(alpha), self.real(scale), float(keep_prob), self.keys[i], k


def state_of(p: Array, state: tuple[Array, ...]) -> tuple[Array, Array, Array]:
    """A parameter and two arrays of state; itself stands in for one that isn't."""
    m, v = (*state, p, p)[:2]
    return p, m, v
